import * as v from 'valibot';
import { type Cache, readCache, sceneSettingsSchema, writeCache } from './cache-node.ts';
import { IMAGE_SIZE } from './camera.ts';
import type { DemonstrationSettings, Recording } from './episode-recorder.ts';
import { inWorkers } from './workers-node.ts';
import { ACTION_DIMENSION, STATE_DIMENSION } from './world.ts';

// Node only; demonstrations.ts, which also runs in a browser, loads this file by a dynamic import.

const header = v.object({
  episodes: v.array(
    v.object({
      seed: v.number(),
      settings: sceneSettingsSchema,
      length: v.number(),
      instructions: v.array(v.string()),
    }),
  ),
});

/** The recordings of these settings from the cache, or made in worker threads and kept there; no cache without a folder. */
export async function cachedRecordings(
  settings: Required<DemonstrationSettings>,
  folder: string | undefined,
  collect: (attempted: AsyncIterable<Recording | null>) => Promise<Recording[]>,
): Promise<Recording[]> {
  const make = () => collect(inWorkers({ name: 'demonstration', settings }, settings.episodes));
  if (folder === undefined) return make();
  const cache: Cache<v.InferOutput<typeof header>> = { folder, what: 'demonstrations', settings, header };
  const cached = await readCache(cache, ({ header, bytes, floats }) =>
    header.episodes.map((episode) => ({
      ...episode,
      states: floats(episode.length * STATE_DIMENSION),
      actions: floats(episode.length * ACTION_DIMENSION),
      images: bytes(episode.length * IMAGE_SIZE * IMAGE_SIZE * 3),
    })),
  );
  if (cached) return cached;
  const recordings = await make();
  const episodes = recordings.map(({ states: _, actions: _a, images: _i, ...episode }) => episode);
  await writeCache(
    cache,
    { episodes },
    recordings.flatMap(({ states, actions, images }) => [states, actions, images]),
  );
  return recordings;
}
