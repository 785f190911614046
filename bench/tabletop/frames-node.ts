import * as v from 'valibot';
import { type Cache, readCache, sceneSettingsSchema, writeCache } from './cache-node.ts';
import { IMAGE_SIZE } from './camera.ts';
import type { Frame, FrameSettings } from './frames.ts';
import { inWorkers } from './workers-node.ts';

const header = v.object({
  frames: v.array(
    v.object({
      seed: v.number(),
      settings: sceneSettingsSchema,
      held: v.number(),
      state: v.array(v.number()),
      places: v.array(v.tuple([v.number(), v.number()])),
    }),
  ),
});

export interface CachedFramesOptions {
  /** The folder that keeps frames. */
  readonly folder: string;
  /** Called after every scene with the number of scenes done and of all. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Stops the work: its reason is thrown. */
  readonly signal?: AbortSignal;
}

/** All frames of these settings, from the cache, or made in worker threads and kept there. Node only. */
export async function cachedFrames(
  settings: FrameSettings,
  { folder, onProgress, signal }: CachedFramesOptions,
): Promise<Frame[]> {
  const cache: Cache<v.InferOutput<typeof header>> = { folder, what: 'frames', settings, header };
  const cached = await readCache(cache, ({ header, bytes }) =>
    header.frames.map((frame) => ({ ...frame, pixels: bytes(IMAGE_SIZE * IMAGE_SIZE * 3) })),
  );
  if (cached) return cached;
  const frames: Frame[] = [];
  let scenes = 0;
  for await (const own of inWorkers({ name: 'frames', settings }, settings.scenes)) {
    signal?.throwIfAborted();
    frames.push(...own);
    onProgress?.(++scenes, settings.scenes);
  }
  const truths = frames.map(({ pixels: _, places, state, ...own }) => {
    return { ...own, state: [...state], places: places.map(([down, across]): [number, number] => [down, across]) };
  });
  await writeCache(
    cache,
    { frames: truths },
    frames.map(({ pixels }) => pixels),
  );
  return frames;
}
