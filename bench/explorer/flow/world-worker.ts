/**
 * The tabletop world in a thread of its own. The physics' WebAssembly makes functions out of text, which the page's security policy
 * forbids and that of a worker allows; and the page stays quick.
 */
import type { PicturePlace } from '../../../model/policy/subtask.ts';
import { project } from '../../tabletop/camera.ts';
import { Demonstrator } from '../../tabletop/demonstrator.ts';
import { attempt } from '../../tabletop/episode-recorder.ts';
import { evaluateClosedLoop } from '../../tabletop/evaluation.ts';
import { simplePlacing } from '../../tabletop/scene.ts';
import { ACTION_DIMENSION, TabletopWorld, type WorldObservation } from '../../tabletop/world.ts';
import { connect } from './calls.ts';

/** A control step of the first of the episodes in which a policy acts. */
export interface ActedStep {
  readonly step: number;
  readonly observation: Pick<WorldObservation, 'image' | 'instruction'>;
  /** Where the chunk that is carried out leads the gripper from its place at the call of the policy, and where the demonstrator would. */
  readonly predicted: readonly PicturePlace[];
  readonly demonstrated: readonly PicturePlace[];
}

/** How the episodes ended. */
export interface Acted {
  readonly succeeded: number;
  readonly episodes: number;
  /** The first episode. */
  readonly outcome: string;
  readonly last: ActedStep;
}

export type PageCalls = {
  /** Chunks of an actor of the page, one for each observation. */
  chunks(actor: number, observations: readonly WorldObservation[]): Promise<readonly Float32Array[]>;
  seen(actor: number, step: ActedStep): void;
};

let made: Promise<TabletopWorld> | undefined;
const ownWorld = () => (made ??= TabletopWorld.create());

const worldCalls = {
  /** The demonstration of attempt number `index`; null if the demonstrator fails in its scene. */
  async demonstrate(seed: number, index: number) {
    return attempt(await ownWorld(), { seed, scenes: [simplePlacing] }, index);
  },
  /** Lets an actor of the page act in held-out scenes of the seed. */
  async act(actor: number, episodes: number, seed: number): Promise<Acted> {
    const shadow = await ownWorld();
    const actions: Float32Array[] = [];
    let paths: Pick<ActedStep, 'predicted' | 'demonstrated'> = { predicted: [], demonstrated: [] };
    const evaluation = await evaluateClosedLoop(
      async (observations, [world]) => {
        const chunks = await page('chunks', actor, observations);
        const horizon = chunks[0].length / ACTION_DIMENSION;
        const predicted = Array.from({ length: horizon }, (_, i) => chunks[0].subarray(i * ACTION_DIMENSION));
        const demonstrated = demonstratedFrom(shadow, world, actions, horizon);
        const placed = (path: readonly ArrayLike<number>[]) =>
          [world.state(), ...path].map(({ 0: x, 1: y, 2: z }) => project([x, y, z], world.scene.look.camera));
        paths = { predicted: placed(predicted), demonstrated: placed(demonstrated) };
        return chunks;
      },
      {
        ...{ episodes, seed },
        onAction(index, { image, instruction }, action) {
          if (index > 0) return;
          page('seen', actor, { step: actions.length, observation: { image, instruction }, ...paths });
          actions.push(action);
        },
      },
    );
    const [{ outcome, end, instruction, steps }] = evaluation.episodes;
    return {
      succeeded: evaluation.episodes.filter(({ success }) => success).length,
      ...{ episodes, outcome },
      last: { step: steps, observation: { image: end, instruction }, predicted: [], demonstrated: [] },
    };
  },
};
export type WorldCalls = typeof worldCalls;

/** The demonstrator's next actions in the place of a policy, after what the policy has done in the scene of `world`. */
function demonstratedFrom(shadow: TabletopWorld, world: TabletopWorld, done: readonly Float32Array[], length: number) {
  shadow.begin(world.scene);
  for (const action of done) shadow.step(action);
  const demonstrator = new Demonstrator(shadow);
  return Array.from({ length }, () => {
    const action = demonstrator.action();
    shadow.step(action);
    return action;
  });
}

const page = connect<PageCalls>(globalThis as unknown as Worker, worldCalls);
