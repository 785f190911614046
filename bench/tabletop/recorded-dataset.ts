/** Recorded episodes of the tabletop world as a data set. Runs in a browser, too. */
import type { Dataset, Episode, Image } from '../../model/data/dataset.ts';
import type { WorldTask } from '../../tokenizers/index.ts';
import { IMAGE_SIZE, project } from './camera.ts';
import type { Recording } from './episode-recorder.ts';
import { makeScene } from './make-scene.ts';
import { restingHeight } from './mjcf.ts';
import { dimensions, nameOf, type Scene, workplace } from './scene.ts';
import { ACTION_DIMENSION, ACTION_NAMES, CAMERA, RATE, STATE_DIMENSION } from './world.ts';

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

/** A recording as an episode, with all its pictures in memory. */
export function toEpisode({ seed, settings, length, actions, states, images, instructions }: Recording): Episode {
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
