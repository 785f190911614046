import { InputError } from '../../engine/files/errors.ts';
import type { Dataset, Episode, Image } from '../../model/data/dataset.ts';
import { IMAGE_SIZE } from './camera.ts';
import { type DemonstrationSettings, type Recording, recordEpisode } from './episode-recorder.ts';
import { hexadecimal, WORLD_HASH } from './hash.ts';
import { dimensions, episodeSeed, makeScene, nameOf } from './scene.ts';
import { ACTION_DIMENSION, CAMERA, RATE, STATE_DIMENSION, TabletopWorld } from './world.ts';

/** The widest opening of the gripper, in metres, at which it holds an object. */
const GRASPED = 2 * dimensions.object + 0.006;

interface DemonstrationOptions extends DemonstrationSettings {
  /** Node only: the folder that keeps finished demonstrations; without it they are made again each time. */
  readonly cacheFolder?: string;
  /** Called after every episode with the number of episodes done and of all. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Stops the recording: its reason is thrown. */
  readonly signal?: AbortSignal;
}

/**
 * Demonstrations of the scripted demonstrator in training scenes, with all their pictures in memory (about 0.3 MB an
 * episode). Node makes them in a worker thread, a browser on the calling thread with a pause after each episode.
 *
 * @throws InputError if a setting is out of range or the demonstrator fails too often
 */
export async function demonstrations(options: DemonstrationOptions): Promise<Dataset> {
  const { episodes, seed = 0, disturbance = 0, cacheFolder } = options;
  if (!Number.isInteger(episodes) || episodes < 1) {
    throw new InputError(`demonstrations: ${episodes} episodes is not a whole number from 1`);
  }
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new InputError(`demonstrations: seed ${seed} is not a whole number from 0 to 2^53 - 1`);
  }
  if (!(disturbance >= 0 && disturbance <= 0.05)) {
    throw new InputError(`demonstrations: a disturbance of ${disturbance} m is not between 0 and 0.05 m`);
  }
  const settings = { episodes, seed, disturbance };
  const inNode = typeof process !== 'undefined' && process.versions?.node !== undefined;
  if (!inNode) return recordedDataset(await collect(pausing(record(settings)), options));

  const { readCache, recordInWorker, writeCache } = await import('./demonstrations-node.ts');
  const make = () => collect(recordInWorker(settings), options);
  if (cacheFolder === undefined) return recordedDataset(await make());
  const name = `tabletop-${await cacheKey(settings)}.gz`;
  const cached = await readCache(cacheFolder, name);
  if (cached !== null) {
    options.onProgress?.(episodes, episodes);
    return recordedDataset(cached);
  }
  const recordings = await make();
  await writeCache(cacheFolder, name, recordings);
  return recordedDataset(recordings);
}

/** The recordings of the settings' episodes, in order; scenes in which the demonstrator fails are skipped. */
export async function* record(settings: Required<DemonstrationSettings>): AsyncGenerator<Recording> {
  const { episodes, seed, disturbance } = settings;
  const world = await TabletopWorld.create();
  try {
    let done = 0;
    for (let index = 0; done < episodes; index++) {
      if (index > 4 * (done + 10)) {
        throw new InputError(
          `demonstrations: the demonstrator succeeded in only ${done} of ${index} scenes; use a smaller disturbance`,
        );
      }
      const recording = recordEpisode(world, episodeSeed('training', seed, index), disturbance);
      if (recording === null) continue;
      done++;
      yield recording;
    }
  } finally {
    world.delete();
  }
}

async function collect(
  recordings: AsyncIterable<Recording>,
  { episodes, onProgress, signal }: DemonstrationOptions,
): Promise<Recording[]> {
  const all: Recording[] = [];
  for await (const recording of recordings) {
    signal?.throwIfAborted();
    all.push(recording);
    onProgress?.(all.length, episodes);
  }
  return all;
}

/** Lets a page draw and respond between episodes. */
async function* pausing<T>(items: AsyncIterable<T>): AsyncGenerator<T> {
  for await (const item of items) {
    yield item;
    await new Promise((resolve) => setTimeout(resolve));
  }
}

async function cacheKey(settings: Required<DemonstrationSettings>): Promise<string> {
  const { episodes, seed, disturbance } = settings;
  const text = JSON.stringify([WORLD_HASH, episodes, seed, disturbance]);
  return hexadecimal(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))).slice(0, 16);
}

/** Recorded episodes as a data set. */
export function recordedDataset(recordings: readonly Recording[]): Dataset {
  return {
    name: 'tabletop',
    rate: RATE,
    actionDimension: ACTION_DIMENSION,
    stateDimension: STATE_DIMENSION,
    cameras: [CAMERA],
    episodes: recordings.map(toEpisode),
  };
}

function toEpisode({ seed, length, actions, states, images, instructions }: Recording): Episode {
  const size = IMAGE_SIZE * IMAGE_SIZE * 3;
  const image = async (camera: string, step: number): Promise<Image | null> => {
    if (camera !== CAMERA || step < 0) return null;
    const at = Math.min(Math.floor(step), length - 1);
    return { width: IMAGE_SIZE, height: IMAGE_SIZE, pixels: images.subarray(at * size, (at + 1) * size) };
  };
  const { objects, object, fixtures, fixture } = makeScene(seed);
  const isClosed = (step: number) => states[step * STATE_DIMENSION + 3] < GRASPED;
  const subtask = (step: number): string => {
    if (isClosed(step)) return `bring it to the ${nameOf(fixtures[fixture])}`;
    const grasped = Array.from({ length: step }, (_, before) => before).some(isClosed);
    return grasped ? 'let go' : `reach for the ${nameOf(objects[object])}`;
  };
  return { id: `tabletop-${seed}`, length, actions, states, instructions, cameras: [CAMERA], image, subtask };
}
