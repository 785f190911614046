import { Demonstrator } from './demonstrator.ts';
import { disturbance } from './disturbance.ts';
import { episodeSeed, type SceneSettings, simplePlacing } from './scene.ts';
import type { TabletopWorld, WorldObservation } from './world.ts';

/** The number of control steps after which an episode has failed. */
export const MAXIMUM_STEPS = 40;
/** Control steps of a demonstration after success: the gripper rises, which shows that the task is done. */
const AFTER_SUCCESS = 3;

/** Work that takes a while: `onProgress` gets the number of its parts that are done and of all; the reason of an aborted signal is thrown. */
export interface Watched {
  readonly onProgress?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** The choice of demonstrations: the same settings give the same bytes. */
export interface DemonstrationSettings {
  readonly seed: number;
  /** Kinds of scenes, which take turns. */
  readonly scenes: readonly SceneSettings[];
  /** Root mean square of the pushes against the gripper, in metres (see `recordEpisode`); none by default. */
  readonly pushes?: number;
}

/** One episode: a demonstration, or the actions of a policy. */
export interface Recording {
  readonly seed: number;
  readonly settings: SceneSettings;
  readonly length: number;
  /** [length, 4] */
  readonly actions: Float32Array;
  /** [length, 4], measured before the action. */
  readonly states: Float32Array;
  /** [length, 64, 64, 3], seen before the action. */
  readonly images: Uint8Array;
  readonly instructions: readonly string[];
}

/** An observation and the action that followed it. */
export interface RecordedStep {
  readonly observation: WorldObservation;
  readonly action: ArrayLike<number>;
}

export function recordingOf(
  steps: readonly RecordedStep[],
  about: Pick<Recording, 'seed' | 'settings' | 'instructions'>,
): Recording {
  const size = steps[0].observation.image.pixels.length;
  const images = new Uint8Array(steps.length * size);
  for (const [at, { observation }] of steps.entries()) images.set(observation.image.pixels, at * size);
  return {
    ...about,
    length: steps.length,
    actions: Float32Array.from(steps.flatMap(({ action }) => Array.from(action))),
    states: Float32Array.from(steps.flatMap(({ observation }) => [...observation.state])),
    images,
  };
}

/**
 * Lets the demonstrator act on a seed's scene; null if it does not succeed within MAXIMUM_STEPS. With `pushes` (root mean
 * square, in metres) the gripper follows the demonstrator's action plus a slowly changing push, but the recording
 * holds the action alone: such demonstrations show how to recover from a policy's own errors (Laskey et al. 2017, "DART:
 * noise injection for robust imitation learning").
 */
export function recordEpisode(
  world: TabletopWorld,
  seed: number,
  pushes: number,
  settings: SceneSettings = simplePlacing,
): Recording | null {
  world.reset(seed, settings);
  const demonstrator = new Demonstrator(world);
  const pushed = disturbance(seed, pushes);
  const steps: RecordedStep[] = [];
  let rest = AFTER_SUCCESS;
  while (rest > 0) {
    if (steps.length === MAXIMUM_STEPS) return null;
    const action = demonstrator.action();
    steps.push({ observation: world.observe(), action });
    world.step(pushed(action, steps.length - 1));
    rest = world.success() ? rest - 1 : AFTER_SUCCESS;
  }
  return recordingOf(steps, { seed, settings, instructions: world.scene.instructions });
}

/** The demonstration of attempt number `index`; null if the demonstrator fails in its scene. */
export function attempt(
  world: TabletopWorld,
  { seed, scenes, pushes = 0 }: DemonstrationSettings,
  index: number,
): Recording | null {
  return recordEpisode(world, episodeSeed('training', seed, index), pushes, scenes[index % scenes.length]);
}
