/**
 * Interference: whether the losses pull the weights that they share the same way. The cosine of two gradients is 1 if they agree, 0 if
 * each leaves the other's loss as it is to first order, and negative if a step for the one makes the other worse (Yu et al. 2020, Gradient
 * Surgery for Multi-Task Learning, arXiv 2001.06782). It is measured with the edges of the table as they are, open, scaled and cut, so
 * that it shows what insulation prevents.
 */
import type { ModelConfiguration } from '../architecture/configuration.ts';
import type { Inputs } from '../architecture/inputs.ts';
import { Model } from '../architecture/model.ts';
import { withFactors } from './gradient-flow.ts';
import { type GradientOf, lossGradients, type ModelPart, partsOf } from './loss-gradients.ts';

/** The gradients a and b of two losses on one part of a model; null where one of them is exactly 0. */
export interface InterferenceCell {
  /** a . b / (|a| |b|), with sums in float64. */
  readonly cosine: number | null;
  /** |a| / |b| */
  readonly ratio: number | null;
}

/** The measurement with one factor on the edges that the table stops or scales, and on those between experts. */
export interface EdgeSetting {
  /** The factor of the gradient that passes these edges: 1 for open, 0 for cut; null for those of the model as it is. */
  readonly factor: number | null;
  /** Whether these are the edges of the model as it is. */
  readonly isOwn: boolean;
  /** By pair of losses: a cell for each part, in their order. */
  readonly pairs: readonly (readonly InterferenceCell[])[];
}

export interface Interference {
  readonly parts: readonly ModelPart[];
  /** The names of two losses each. */
  readonly pairs: readonly (readonly [string, string])[];
  /** One for each factor, and before them the model as it is, where no factor gives the same; that alone, if all give the same. */
  readonly settings: readonly EdgeSetting[];
}

export interface InterferenceOptions {
  /** Factors on the edges, beside the model as it is. */
  readonly factors?: readonly number[];
  /** The gradients of all losses of the model as it is, if they are there already. */
  readonly gradients?: Readonly<Record<string, GradientOf>>;
}

/**
 * Cosines and ratios of the losses' gradients on the `trainingInputs` of a batch, before the losses' weights. Values and an optimizer's
 * state stay as they are; gradients are overwritten.
 */
export async function interference(
  model: Model,
  inputs: Inputs,
  { factors = [1, 0.3, 0], gradients: given }: InterferenceOptions = {},
): Promise<Interference> {
  const { device, configuration, parameters, objectives } = model;
  const parts = partsOf(model.architecture);
  const names = objectives.map(({ name }) => name);
  const pairs = names.flatMap((a, i) => names.slice(i + 1).map((b): [string, string] => [a, b]));
  const measured = async (own: Model) => {
    const gradients = own === model && given ? given : await lossGradients(own, inputs);
    return pairs.map(([a, b]) => parts.map((part) => cellOf(part, gradients[a], gradients[b])));
  };
  const settings: EdgeSetting[] = [];
  const changed = factors.map((factor) => ({ factor, other: withFactors(configuration, factor) }));
  const isOwn = (other: ModelConfiguration) => JSON.stringify(other) === JSON.stringify(configuration);
  const own = changed.filter(({ other }) => isOwn(other));
  if (own.length !== 1) settings.push({ factor: null, isOwn: true, pairs: await measured(model) });
  if (own.length > 1) return { parts, pairs, settings };
  for (const { factor, other } of changed)
    settings.push({ factor, isOwn: isOwn(other), pairs: await measured(new Model(device, other, parameters)) });
  return { parts, pairs, settings };
}

function cellOf({ parameters }: ModelPart, a: GradientOf, b: GradientOf): InterferenceCell {
  let [squaresA, squaresB, products] = [0, 0, 0];
  for (const name of parameters) {
    const [first, second] = [a(name), b(name)];
    for (let i = 0; i < first.length; i++) {
      squaresA += first[i] * first[i];
      squaresB += second[i] * second[i];
      products += first[i] * second[i];
    }
  }
  if (squaresA === 0 || squaresB === 0) return { cosine: null, ratio: null };
  return { cosine: products / Math.sqrt(squaresA * squaresB), ratio: Math.sqrt(squaresA / squaresB) };
}
