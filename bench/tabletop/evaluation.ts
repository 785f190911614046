import { InputError } from '../../engine/files/errors.ts';
import type { Image } from '../../model/data/dataset.ts';
import type { WorldTask } from '../../tokenizers/index.ts';
import { Demonstrator } from './demonstrator.ts';
import { MAXIMUM_STEPS } from './episode-recorder.ts';
import type { Film } from './film.ts';
import { makeScene } from './make-scene.ts';
import { episodeSeed, type Scene, type SceneSettings, simplePlacing } from './scene.ts';
import { outcomeOf, stages } from './stages.ts';
import { ACTION_DIMENSION, TabletopWorld, type WorldObservation } from './world.ts';

/**
 * A policy in the world: it returns a chunk of future actions [horizon, 4], in metres, for each observation. Every call
 * has all episodes, in the same order, so that its batch keeps one shape; an episode that is over repeats its last
 * observation, and its chunk is ignored. `worlds` are the simulated worlds of the observations, for baselines that read
 * their state.
 */
export interface WorldPolicy {
  (observations: readonly WorldObservation[], worlds: readonly TabletopWorld[]): Promise<readonly Float32Array[]>;
  /** Called, for policies with history, with the observations of episode number `index` between two calls. */
  see?(index: number, observation: WorldObservation): void;
}

export interface EvaluationOptions {
  /** The number of episodes, which advance together; 20 by default. */
  readonly episodes?: number;
  /** The seed that chooses the scenes, all different from training scenes; 0 by default. */
  readonly seed?: number;
  /** Kinds of scenes, which take turns; simple placing by default. */
  readonly scenes?: readonly SceneSettings[];
  /** Changes the scene of each seed, for instance to another goal. */
  readonly change?: (scene: Scene) => Scene;
  /** The number of control steps after which an episode has failed. */
  readonly maximumSteps?: number;
  /** The number of actions of each chunk that are carried out before the policy's next call. */
  readonly executeSteps?: number;
  /** Called after every chunk with the number of control steps done and the largest possible number. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Called before every action that is carried out, with the observation of episode number `index` at that moment. */
  readonly onAction?: (index: number, observation: WorldObservation, action: Float32Array) => void;
  /** Records the episodes. */
  readonly film?: Film;
  /** Stops the evaluation: its reason is thrown. */
  readonly signal?: AbortSignal;
}

const within = `within ${MAXIMUM_STEPS} control steps`;

const stagesOf = (task: WorldTask) =>
  `stages: how many of these were reached: ${stages[task].map(({ name }) => name).join(', ')}`;

/** The meaning of each task's rates. */
export const CLOSED_LOOP_MEASURE: Readonly<Record<WorldTask, string>> = {
  place: `success: ${within} the named object lies in the named bin, let go; right object: success, or the first object that was lifted is the named one; ${stagesOf('place')}`,
  press: `success: ${within} the named button is the first that is pressed down; right object: the same; ${stagesOf('press')}`,
  open: `success: ${within} the named drawer is out by 5 cm; right object: success, or the first drawer that was pulled is the named one; ${stagesOf('open')}`,
};

export interface EpisodeResult {
  readonly seed: number;
  readonly settings: SceneSettings;
  readonly instruction: string;
  readonly success: boolean;
  /** The outcome in words. */
  readonly outcome: string;
  /** Success, or the first thing that the gripper lifted, pressed or pulled was the named one. */
  readonly rightObject: boolean;
  /** The share of the task's stages that were reached. */
  readonly stageScore: number;
  /** Control steps until success, or until the episode was given up. */
  readonly steps: number;
  /** The first thing that the gripper lifted, pressed or pulled: the index of an object or a fixture; -1 if there is none. */
  readonly firstMoved: number;
  /** The bin in which the named object lies at the end: the index of a fixture; -1 if there is none. */
  readonly bin: number;
  /** The picture at the end. */
  readonly end: Image;
}

export interface Evaluation {
  /** Share of episodes with success. */
  readonly success: number;
  /** Share of episodes with the right object. */
  readonly rightObject: number;
  /** Mean stage score of the episodes. */
  readonly stageScore: number;
  readonly episodes: readonly EpisodeResult[];
}

/** Lets a policy act in held-out scenes of the world, in lockstep: each call of the policy serves all of them. */
export async function evaluateClosedLoop(policy: WorldPolicy, options: EvaluationOptions = {}): Promise<Evaluation> {
  const {
    episodes = 20,
    seed = 0,
    scenes = [simplePlacing],
    maximumSteps = MAXIMUM_STEPS,
    executeSteps = 5,
    change = (scene) => scene,
    onProgress,
    onAction,
    film,
    signal,
  } = options;
  for (const [name, value] of Object.entries({ episodes, maximumSteps, executeSteps })) {
    if (!Number.isInteger(value) || value < 1)
      throw new InputError(`closed loop: ${name} is ${value}, not a whole number from 1`);
  }
  const worlds: TabletopWorld[] = [];
  try {
    const seeds = Array.from({ length: episodes }, (_, index) => episodeSeed('evaluation', seed, index));
    for (const [index, episode] of seeds.entries()) {
      const world = await TabletopWorld.create();
      worlds.push(world);
      world.begin(change(makeScene(episode, scenes[index % scenes.length])));
    }
    const observations = worlds.map((world) => world.observe());
    const steps = worlds.map(() => 0);
    const over = (index: number) => steps[index] === maximumSteps || worlds[index].success();
    for (let done = 0; done < maximumSteps; done += executeSteps) {
      const running = worlds.map((_, index) => index).filter((index) => !over(index));
      if (running.length === 0) break;
      signal?.throwIfAborted();
      const chunks = await policy(observations, worlds);
      for (const index of running) {
        const chunk = chunks[index];
        checkChunk(chunk, index, executeSteps);
        film?.call(index, steps[index], worlds[index], observations[index], chunk);
        for (let step = 0; step < executeSteps && !over(index); step++) {
          const action = chunk.subarray(step * ACTION_DIMENSION, (step + 1) * ACTION_DIMENSION);
          if (step > 0 && (onAction || policy.see)) {
            observations[index] = worlds[index].observe();
            policy.see?.(index, observations[index]);
          }
          onAction?.(index, observations[index], action);
          worlds[index].step(action);
          film?.moved(index, worlds[index]);
          steps[index]++;
        }
        observations[index] = worlds[index].observe();
      }
      onProgress?.(Math.min(done + executeSteps, maximumSteps), maximumSteps);
    }
    const results = worlds.map((world, index) => ({
      seed: seeds[index],
      settings: world.scene.settings,
      instruction: observations[index].instruction,
      success: world.success(),
      outcome: outcomeOf(world),
      rightObject: world.success() || world.rightObject(),
      stageScore: world.stageScore(),
      steps: steps[index],
      firstMoved: world.firstMoved,
      bin: world.scene.fixtures.findIndex((_, bin) => world.scene.object >= 0 && world.liesIn(world.scene.object, bin)),
      end: observations[index].image,
    }));
    const share = (of: (result: EpisodeResult) => boolean) => results.filter(of).length / episodes;
    return {
      success: share((r) => r.success),
      rightObject: share((r) => r.rightObject),
      stageScore: results.reduce((sum, r) => sum + r.stageScore, 0) / episodes,
      episodes: results,
    };
  } finally {
    for (const world of worlds) world.delete();
  }
}

function checkChunk(chunk: Float32Array | undefined, index: number, executeSteps: number): void {
  const needed = executeSteps * ACTION_DIMENSION;
  if (chunk === undefined || chunk.length < needed || chunk.length % ACTION_DIMENSION !== 0) {
    throw new RangeError(
      `closed loop: the policy's chunk for episode ${index} has ${chunk?.length ?? 0} numbers: ` +
        `it needs [horizon, ${ACTION_DIMENSION}] with a horizon of at least ${executeSteps} (executeSteps)`,
    );
  }
}

/** The scripted demonstrator as a policy: an upper bound, as it reads the state of the world. For `executeSteps: 1`. */
export function demonstratorPolicy(): WorldPolicy {
  const demonstrators = new Map<TabletopWorld, Demonstrator>();
  return async (_, worlds) =>
    worlds.map((world) => {
      const demonstrator = demonstrators.get(world) ?? new Demonstrator(world);
      demonstrators.set(world, demonstrator);
      return demonstrator.action();
    });
}
