/** How much a model depends on its picture and on its words: its losses and its actions when every example gets those of another. */
import { InputError } from '../../engine/files/errors.ts';
import { lastSteps } from '../architecture/configuration.ts';
import { actingObjective, isReal, type ObjectiveDescription } from '../architecture/objectives/index.ts';
import { mapped } from '../architecture/records.ts';
import type { Sample } from '../data/index.ts';
import { changedEpisode } from '../data/parts.ts';
import type { Policy } from '../policy/policy.ts';
import { BatchMaker, chunkOf, type MadeBatch } from '../training/batches.ts';
import type { Losses } from '../training/history.ts';
import { finiteLosses, Means, measuredBatches } from '../training/measuring.ts';
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
  const { pictures, words } = swapsOf(samples);
  const lossesOver = (own: readonly Sample[]) => meanLosses(policy, settings, own, signal);
  const own = await lossesOver(samples);
  const ratios = (losses: Losses) => finiteLosses(mapped(losses, (loss, name) => loss / own[name])).finite;
  return {
    examples: samples.length,
    pictures: hasCameras(policy) && pictures.some(Boolean) ? ratios(await lossesOver(filled(pictures, samples))) : null,
    words: words.some(Boolean) ? ratios(await lossesOver(filled(words, samples))) : null,
  };
}

const hasCameras = ({ encoding }: Policy) => encoding.settings.cameras.length > 0;

/** The changed examples; those that have no other stay as they are. */
const filled = (changed: readonly (Swap | null)[], samples: readonly Sample[]): Sample[] =>
  changed.map((own, i) => own?.sample ?? samples[i]);

/** An example with the pictures or the words of another. */
interface Swap {
  readonly sample: Sample;
  readonly from: Sample;
}

/** By example: the swaps, null where no other is to be had. */
function swapsOf(samples: readonly Sample[]): Record<'pictures' | 'words', (Swap | null)[]> {
  const swapped = (differ: (a: Sample, b: Sample) => boolean, change: (own: Sample, other: Sample) => Sample) =>
    samples.map((own, i) => {
      const from = otherOf(samples, i, (other) => differ(own, other));
      return from && { from, sample: change(own, from) };
    });
  return {
    pictures: swapped(({ part: a }, { part: b }) => a.episode !== b.episode, withPictures),
    words: swapped(
      (a, b) => a.instruction !== b.instruction,
      (own, { instruction }) => ({ ...own, instruction }),
    ),
  };
}

/**
 * How far a predicted chunk moves: root mean square distances over the real numbers of normalised actions, from the chunk of the unchanged
 * example with the same noise; null where there is no other to be had.
 */
export interface Moves {
  /** With other noise: what the policy leaves to chance; null for a policy that draws none. */
  readonly noise: number | null;
  readonly pictures: number | null;
  readonly words: number | null;
  /** Between the demonstrated chunks of this example and of the one whose pictures it gets. */
  readonly demonstrated: number | null;
}

/** The moves of one example, and the examples whose pictures and words it got. */
export interface MovedExample {
  readonly sample: Sample;
  readonly moves: Moves;
  readonly others: Readonly<Record<'pictures' | 'words', Sample | null>>;
}

/** By example. @throws InputError if the model does not act; the reason of an aborted `signal` */
export async function swappedActions(
  policy: Policy,
  settings: MakerSettings,
  samples: readonly Sample[],
  signal?: AbortSignal,
): Promise<MovedExample[]> {
  const { encoding, model } = policy;
  const objective = actingObjective(model.objectives);
  if (!objective) throw new InputError('this model does not act, so no action moves');
  const maker = new BatchMaker(encoding, model.configuration, settings);
  const swaps = swapsOf(samples);
  const moved: MovedExample[] = [];
  for (let start = 0; start < samples.length; start += settings.batch) {
    const examples = samples.slice(start, start + settings.batch);
    const makeBatch = (own: readonly Sample[]) => {
      signal?.throwIfAborted();
      return maker.make(own, start);
    };
    const actIn = async ({ observations }: MadeBatch, seed = 0) =>
      await policy.actNormalised(observations, { seed, sample: start });
    const own = await makeBatch(examples);
    const chunks = await actIn(own);
    const steps = lastSteps(model.configuration, own.batch);
    const distances = (others: readonly Float32Array[], from = chunks) =>
      others.map((chunk, i) => rootMeanSquare(differencesOf(own, steps[i], chunk, from[i])));
    const noise = objective.draw ? distances(await actIn(own, 1)) : null;
    const byPart = async (part: 'pictures' | 'words') => {
      const all = swaps[part].slice(start, start + settings.batch);
      if (!all.some(Boolean) || (part === 'pictures' && !hasCameras(policy))) return null;
      const found = distances(await actIn(await makeBatch(filled(all, examples))));
      return found.map((distance, i) => (all[i] ? { distance, from: all[i].from } : null));
    };
    const [pictures, words] = [await byPart('pictures'), await byPart('words')];
    const others = await makeBatch(examples.map((sample, i) => pictures?.[i]?.from ?? sample));
    const [demonstrated, otherwise] = [own, others].map((batch) => steps.map((step) => chunkOf(batch, step)));
    const between = distances(otherwise, demonstrated);
    examples.forEach((sample, i) => {
      const [picture, word] = [pictures?.[i] ?? null, words?.[i] ?? null];
      const moves = { noise: noise?.[i] ?? null, pictures: picture?.distance ?? null, words: word?.distance ?? null };
      moved.push({
        sample,
        moves: { ...moves, demonstrated: picture && between[i] },
        others: { pictures: picture?.from ?? null, words: word?.from ?? null },
      });
    });
  }
  return moved;
}

/** null if there are no values. */
const rootMeanSquare = (values: readonly number[]): number | null =>
  values.length === 0 ? null : Math.sqrt(values.reduce((sum, own) => sum + own ** 2, 0) / values.length);

/** The root mean squares over examples. */
export function meanMoves(moved: readonly Pick<MovedExample, 'moves'>[]): Moves {
  const over = (name: keyof Moves) => rootMeanSquare(moved.flatMap(({ moves }) => moves[name] ?? []));
  return { noise: over('noise'), pictures: over('pictures'), words: over('words'), demonstrated: over('demonstrated') };
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
        const step = lastSteps(configuration, batch.batch)[example];
        for (const error of differencesOf(batch, step, chunk, chunkOf(batch, step)))
          squares.add(openLoop, { loss: error ** 2, count: 1 });
      });
    }
    for (const objective of objectives)
      means.add(objective.name, { loss: losses[objective.name], count: objective.count(inputs) });
  }
  return { ...means.all(), ...mapped(squares.all(), Math.sqrt) };
}

/** The differences of two chunks [horizon * dimensions] where the actions of the control step are real. */
const differencesOf = (batch: MadeBatch, step: number, chunk: Float32Array, other: Float32Array): number[] =>
  Array.from(chunk, (own, k) => own - other[k]).filter((_, k) => isReal(batch, step * chunk.length + k));
