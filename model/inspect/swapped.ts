/** How much a model depends on its picture and on its words: its losses when every example gets those of another. */

import { lastSteps } from '../architecture/configuration.ts';
import { actingObjective, isReal, type ObjectiveDescription } from '../architecture/objectives/index.ts';
import { mapped } from '../architecture/records.ts';
import type { Sample } from '../data/index.ts';
import { changedEpisode } from '../data/parts.ts';
import type { Policy } from '../policy/policy.ts';
import { BatchMaker, chunkOf, type MadeBatch } from '../training/batches.ts';
import type { Losses } from '../training/history.ts';
import { Means, measuredBatches } from '../training/measuring.ts';
import { OPEN_LOOP_MEASURE } from '../training/open-loop.ts';
import type { RunSettings } from '../training/run-settings.ts';

type MakerSettings = Pick<RunSettings, 'seed' | 'augment' | 'batch'>;

/** The error of predicted chunks, beside the losses. The losses are given the subtask; before a predicted chunk the policy says its own. */
export const openLoopDescription: ObjectiveDescription = {
  name: 'open loop',
  title: 'open-loop error',
  meaning: OPEN_LOOP_MEASURE,
  baseline: null,
};

/** Losses by the name of the objective, each divided by that of the unchanged examples; null if no other is to be had. */
export interface SwappedLosses {
  readonly examples: number;
  readonly pictures: Losses | null;
  readonly words: Losses | null;
}

/**
 * Losses over held-out control steps when every example gets the pictures, or the instruction, of another: another
 * episode's pictures, an instruction with other words, both of the same robot. Targets, states and noise stay. Throws
 * the reason of an aborted `signal`.
 */
export async function swappedLosses(
  policy: Policy,
  settings: MakerSettings,
  samples: readonly Sample[],
  signal?: AbortSignal,
): Promise<SwappedLosses> {
  const swapped = (differ: (a: Sample, b: Sample) => boolean, change: (own: Sample, other: Sample) => Sample) => {
    const others = samples.map((own, i) => otherOf(samples, i, (other) => differ(own, other)));
    return others.some((other) => other !== null)
      ? samples.map((own, i) => (others[i] === null ? own : change(own, others[i])))
      : null;
  };
  const pictures = swapped(({ part: a }, { part: b }) => a.episode !== b.episode, withPictures);
  const words = swapped(
    (a, b) => a.instruction !== b.instruction,
    (own, { instruction }) => ({ ...own, instruction }),
  );
  const lossesOver = (own: readonly Sample[]) => meanLosses(policy, settings, own, signal);
  const own = await lossesOver(samples);
  const ratios = (losses: Losses) => mapped(losses, (loss, name) => loss / own[name]);
  return {
    examples: samples.length,
    pictures: policy.encoding.settings.cameras.length > 0 && pictures ? ratios(await lossesOver(pictures)) : null,
    words: words && ratios(await lossesOver(words)),
  };
}

/** The example half way round, or the next after it, that differs and is of the same robot. */
function otherOf(samples: readonly Sample[], i: number, differs: (other: Sample) => boolean): Sample | null {
  const { robot } = samples[i].part.episode;
  for (let step = 0; step < samples.length; step++) {
    const other = samples[(i + (samples.length >> 1) + step) % samples.length];
    if (other.part.episode.robot === robot && differs(other)) return other;
  }
  return null;
}

/** The pictures up to the control step of `own` are those up to the step of the other sample. */
function withPictures(own: Sample, { part: { episode, from }, step }: Sample): Sample {
  const image = (camera: string, at: number) => episode.image(camera, Math.max(from, step + at - own.step));
  return { ...own, part: { ...own.part, episode: changedEpisode(own.part.episode, () => ({ image })) } };
}

/** Means over the examples, with the noise of their places in the list. The first ones fill up the last batch, and then count twice. */
async function meanLosses(
  policy: Policy,
  settings: MakerSettings,
  samples: readonly Sample[],
  signal?: AbortSignal,
): Promise<Losses> {
  const { model, encoding } = policy;
  const { objectives, configuration } = model;
  const maker = new BatchMaker(encoding, configuration, settings);
  const [means, squares] = [new Means(), new Means()];
  const { name: openLoop } = openLoopDescription;
  const how = { size: settings.batch, signal };
  for await (const { batch, inputs, losses, start } of measuredBatches(model, maker, samples, how)) {
    if (actingObjective(objectives)) {
      const predicted = await policy.actNormalised(batch.observations, { sample: start });
      predicted.forEach((chunk, example) => {
        for (const loss of squaredErrors(batch, chunk, lastSteps(configuration, batch.batch)[example]))
          squares.add(openLoop, { loss, count: 1 });
      });
    }
    for (const objective of objectives)
      means.add(objective.name, { loss: losses[objective.name], count: objective.count(inputs) });
  }
  return { ...means.all(), ...mapped(squares.all(), Math.sqrt) };
}

function squaredErrors(batch: MadeBatch, chunk: Float32Array, step: number): number[] {
  const demonstrated = chunkOf(batch, step);
  return Array.from(chunk, (own, k) => (own - demonstrated[k]) ** 2).filter((_, k) =>
    isReal(batch, step * chunk.length + k),
  );
}
