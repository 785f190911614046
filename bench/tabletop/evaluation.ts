import type { PreviousChunks } from '../../model/architecture/objectives/index.ts';
import type { ActOptions } from '../../model/policy/acting.ts';
import { Decodes } from '../../model/policy/decodes.ts';
import { type ExecutionOptions, Executor } from '../../model/policy/execution.ts';
import type { WorldTask } from '../../tokenizers/index.ts';
import { MAXIMUM_STEPS, type Watched } from './episode-recorder.ts';
import type { Film } from './film.ts';
import { makeScene } from './make-scene.ts';
import { episodeSeed, type Scene, type SceneSettings, simplePlacing } from './scene.ts';
import { outcomeOf, stages } from './stages.ts';
import { ACTION_DIMENSION, TabletopWorld, type WorldObservation } from './world.ts';

/**
 * A policy in the world: it returns a chunk of future actions [horizon, 4], in metres, for each observation. Every call
 * has all episodes, in the same order, so that its batch keeps one shape; an episode that is over repeats its last
 * observation, and its chunk is ignored. `worlds` are the simulated worlds of the observations, for baselines that read
 * their state, and `options` are for a trained policy.
 */
export interface WorldPolicy {
  (
    observations: readonly WorldObservation[],
    worlds: readonly TabletopWorld[],
    options?: Pick<ActOptions, 'onDecoded' | 'previous'>,
  ): Promise<readonly Float32Array[]>;
  /** Called, for policies with history, with the observation of episode number `index` at each control step between two calls. */
  see?(index: number, observation: WorldObservation): void;
}

export interface EvaluationOptions extends ExecutionOptions, Watched {
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
  /** Called before every action that is carried out, with the observation of episode number `index` at that moment. */
  readonly onAction?: (index: number, observation: WorldObservation, action: Float32Array) => void;
  readonly film?: Film;
}

const rates: Readonly<Record<WorldTask, string>> = {
  place:
    'the named object lies in the named bin, let go; right object: success, or the first object that was lifted is the named one',
  press: 'the named button is the first that is pressed down; right object: the same',
  open: 'the named drawer is out by 5 cm; right object: success, or the first drawer that was pulled is the named one',
};

/** The meaning of a task's rates. */
export const closedLoopMeasure = (task: WorldTask): string =>
  `success: within ${MAXIMUM_STEPS} control steps ${rates[task]}; stages: how many of these were reached: ${stages[task].map(({ name }) => name).join(', ')}`;

export type Evaluation = Awaited<ReturnType<typeof evaluateClosedLoop>>;
export type EpisodeResult = Evaluation['episodes'][number];

/** Lets a policy act in held-out scenes of the world, in lockstep: each call of the policy serves all of them. */
export async function evaluateClosedLoop(policy: WorldPolicy, options: EvaluationOptions = {}) {
  const { episodes = 20, seed = 0, scenes = [simplePlacing], maximumSteps = MAXIMUM_STEPS, film } = options;
  const worlds: TabletopWorld[] = [];
  try {
    const seeds = Array.from({ length: episodes }, (_, index) => episodeSeed('evaluation', seed, index));
    for (const [index, episode] of seeds.entries()) {
      const world = await TabletopWorld.create();
      worlds.push(world);
      const scene = makeScene(episode, scenes[index % scenes.length]);
      world.begin(options.change?.(scene) ?? scene);
    }
    const steps = worlds.map(() => 0);
    const observed: (WorldObservation | undefined)[] = [];
    /** The observation of an episode at present, made once. */
    const observe = (index: number) => {
      observed[index] ??= worlds[index].observe();
      return observed[index];
    };
    const isOver = (index: number) => steps[index] === maximumSteps || worlds[index].success();
    let running: number[] = [];
    let called = 0;
    const decodes = new Decodes();
    const onDecoded = (complete: readonly boolean[]) => decodes.add(running.map((index) => complete[index]));
    const call = async (observations: readonly WorldObservation[], previous: PreviousChunks | undefined) => {
      const chunks = await policy(observations, worlds, { onDecoded, previous });
      for (const index of running) film?.call(index, steps[index], worlds[index], observations[index], chunks[index]);
      return chunks;
    };
    const executor = new Executor(call, ACTION_DIMENSION, options);
    for (let done = 0; done < maximumSteps; done++) {
      running = [...worlds.keys()].filter((index) => !isOver(index));
      if (running.length === 0) break;
      options.signal?.throwIfAborted();
      const actions = await executor.next(() => {
        called = done;
        return worlds.map((_, index) => observe(index));
      });
      for (const index of running) {
        if (policy.see && called < done) policy.see(index, observe(index));
        if (options.onAction) options.onAction(index, observe(index), actions[index]);
        worlds[index].step(actions[index]);
        observed[index] = undefined;
        film?.moved(index, worlds[index]);
        steps[index]++;
      }
      options.onProgress?.(done + 1, maximumSteps);
    }
    const results = worlds.map((world, index) => ({
      seed: seeds[index],
      settings: world.scene.settings,
      instruction: observe(index).instruction,
      success: world.success(),
      outcome: outcomeOf(world),
      // Success, or the first thing that the gripper lifted, pressed or pulled was the named one.
      rightObject: world.success() || world.rightObject(),
      // The share of the task's stages that were reached.
      stageScore: world.stageScore(),
      // Control steps until success, or until the episode was given up.
      steps: steps[index],
      // The index of that first thing, an object or a fixture, and of the bin in which the named object lies at the end; -1 for none.
      firstMoved: world.firstMoved,
      bin: world.scene.fixtures.findIndex((_, bin) => world.scene.object >= 0 && world.liesIn(world.scene.object, bin)),
      end: observe(index).image,
    }));
    const mean = (of: (result: (typeof results)[number]) => number) =>
      results.reduce((sum, result) => sum + of(result), 0) / episodes;
    return {
      // Shares of episodes, and the mean stage score.
      success: mean(({ success }) => Number(success)),
      rightObject: mean(({ rightObject }) => Number(rightObject)),
      stageScore: mean(({ stageScore }) => stageScore),
      // Action tokens that were decoded for episodes that were not over; null for a policy that acts by none.
      decodes: decodes.counts,
      episodes: results,
    };
  } finally {
    for (const world of worlds) world.delete();
  }
}
