import type { Dataset, Episode, Image } from '../../model/data/dataset.ts';
import type { WorldTask } from '../../tokenizers/index.ts';
import { cached } from './cache.ts';
import { IMAGE_SIZE, project } from './camera.ts';
import type { Recording, Watched } from './episode-recorder.ts';
import { makeScene } from './make-scene.ts';
import { restingHeight } from './mjcf.ts';
import { dimensions, nameOf, type Scene, type SceneSettings, simplePlacing, workplace } from './scene.ts';
import { inWorkers } from './workers.ts';
import { ACTION_DIMENSION, ACTION_NAMES, CAMERA, RATE, STATE_DIMENSION } from './world.ts';

interface DemonstrationOptions extends Watched {
  readonly episodes: number;
  /** The seed that chooses the scenes: a whole number from 0; 0 by default. */
  readonly seed?: number;
  /** Kinds of scenes, which take turns; simple placing by default. */
  readonly scenes?: readonly SceneSettings[];
  /** The folder that keeps finished demonstrations; without it they are made again each time. */
  readonly cacheFolder?: string;
}

/**
 * Demonstrations of the scripted demonstrator in training scenes, with all their pictures in memory (about 0.3 MB an episode): the first
 * successful attempts. Worker threads make them, as many as there are cores. Node only.
 */
export async function demonstrations(options: DemonstrationOptions): Promise<Dataset> {
  const { episodes, seed = 0, scenes = [simplePlacing], cacheFolder } = options;
  const make = () => inWorkers('attempt', { seed, scenes }, episodes, options);
  if (cacheFolder === undefined) return recordedDataset(await make());
  return recordedDataset(await cached(cacheFolder, 'demonstrations', { episodes, seed, scenes }, make));
}

export function recordedDataset(recordings: readonly Recording[]): Dataset {
  return {
    name: 'tabletop',
    rate: RATE,
    actionDimension: ACTION_DIMENSION,
    actionNames: ACTION_NAMES,
    stateDimension: STATE_DIMENSION,
    cameras: [CAMERA],
    episodes: recordings.map(toEpisode),
  };
}

function toEpisode({ seed, settings, length, actions, states, images, instructions }: Recording): Episode {
  const size = IMAGE_SIZE * IMAGE_SIZE * 3;
  const image = async (camera: string, step: number): Promise<Image | null> => {
    if (camera !== CAMERA || step < 0) return null;
    const at = Math.min(Math.floor(step), length - 1);
    return { width: IMAGE_SIZE, height: IMAGE_SIZE, pixels: images.subarray(at * size, (at + 1) * size) };
  };
  const scene = makeScene(seed, settings);
  const subtask = (step: number) => subtaskOf(scene, states, step);
  const places = (step: number) => placesOf(scene, states, step);
  return { id: `tabletop-${seed}`, length, actions, states, instructions, cameras: [CAMERA], image, subtask, places };
}

/** The states up to a control step, and whether the gripper has closed, in one of them, on what the task has it grasp. */
function soFar(states: Float32Array, step: number, task: WorldTask) {
  const until = Array.from({ length: step + 1 }, (_, at) =>
    states.subarray(at * STATE_DIMENSION, (at + 1) * STATE_DIMENSION),
  );
  const width = 2 * (task === 'place' ? dimensions.object : dimensions.handle.half);
  return { until, isClosed: (state: Float32Array) => state[3] < width + 0.006 };
}

/** The part of the task that is done at a control step, by the states up to it. */
function subtaskOf(
  { settings: { task }, objects, object, fixtures, fixture }: Scene,
  states: Float32Array,
  step: number,
) {
  const target = fixtures[fixture];
  const reach = `reach for the ${nameOf(task === 'place' ? objects[object] : target)}`;
  const { until, isClosed } = soFar(states, step, task);
  if (task === 'press') {
    const above = ([x, y]: Float32Array) => Math.abs(x - target.x) < 0.02 && Math.abs(y - target.y) < 0.02;
    return until.some(above) ? 'press it' : reach;
  }
  if (isClosed(until[step])) return task === 'place' ? `bring it to the ${nameOf(target)}` : 'pull it open';
  return until.some(isClosed) ? 'let go' : reach;
}

/** Where the named things are in the picture of a control step, those that are acted on first: what is grasped is at the gripper. */
function placesOf(scene: Scene, states: Float32Array, step: number): [number, number][] {
  const { settings, objects, object, fixtures, fixture, look } = scene;
  const target = workplace(fixtures[fixture], 0);
  const placesAt = (...positions: ArrayLike<number>[]) =>
    positions.map(({ 0: x, 1: y, 2: z }) => project([x, y, z], look.camera));
  if (settings.task === 'press') return placesAt(target);
  const { until, isClosed } = soFar(states, step, settings.task);
  const grasped = until.findLast(isClosed);
  if (settings.task === 'open') return placesAt(grasped ? [target[0], grasped[1], target[2]] : target);
  const { x, y, noun } = objects[object];
  if (!grasped) return placesAt([x, y, restingHeight(noun)], target);
  const isLetGo = grasped !== until[step];
  return placesAt(isLetGo ? [target[0], target[1], dimensions.object] : grasped, target);
}
