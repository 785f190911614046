/** Losses: means of an error over the elements that count, and the cross-entropy of token ids. */
import { make, type Numbers, sum } from './numbers.ts';

export const errors = {
  meanSquaredError: (p: number, t: number) => (p - t) ** 2,
  l1: (p: number, t: number) => Math.abs(p - t),
  huber: (p: number, t: number) => (Math.abs(p - t) <= 1 ? 0.5 * (p - t) ** 2 : Math.abs(p - t) - 0.5),
  binaryCrossEntropyWithLogits: (p: number, t: number) => Math.max(p, 0) - p * t + Math.log1p(Math.exp(-Math.abs(p))),
};

/** The elements of a shape that count: `valid` is 1 for each leading part that does, `dimensions` [width] or [samples, width] for each column. */
export function countedElements(
  shape: readonly number[],
  { valid, dimensions }: { readonly valid?: Numbers | null; readonly dimensions?: Numbers | null },
): number[] {
  const size = shape.reduce((a, b) => a * b, 1);
  const width = shape[shape.length - 1];
  return [...Array(size).keys()].filter((i) => {
    const ofSample = dimensions && dimensions.length > width ? Math.floor((i * shape[0]) / size) * width : 0;
    const real = !valid || valid[Math.floor((i * valid.length) / size)] === 1;
    return real && (!dimensions || dimensions[ofSample + (i % width)] === 1);
  });
}

type Loss = (prediction: number, target: number) => number;
const every = ({ length }: Numbers): readonly number[] => [...Array(length).keys()];

/** The mean over the elements that count. */
export const meanLoss = (error: Loss, prediction: Numbers, target: Numbers, counted = every(target)): Float64Array =>
  Float64Array.of(sum(counted.length, (i) => error(prediction[counted[i]], target[counted[i]])) / counted.length);

export interface TokenTargets {
  readonly targets: Numbers;
  /** 1 for each row with a loss. */
  readonly mask: Numbers;
  /** Rows of a sample. */
  readonly tokens: number;
  /** The mean over samples of means over their rows (the default), or the mean over all rows. */
  readonly reduction?: 'perExample' | 'perToken';
}

/** The weight of each row's loss in the result. */
function rowWeights({ mask, tokens, reduction = 'perExample' }: TokenTargets): Float64Array {
  const marked = (from: number, count: number) => sum(count, (i) => mask[from + i]) || 1;
  if (reduction === 'perToken') return make(mask.length, (row) => mask[row] / marked(0, mask.length));
  return make(mask.length, (row) => ((mask[row] / mask.length) * tokens) / marked(row - (row % tokens), tokens));
}

/**
 * logits = hidden embedding^T, with hidden [rows, width] and embedding [vocabulary, width];
 * loss = sum over rows of weight * (log(sum(exp(logits))) - logits[target]); dLogit = weight * (softmax(logits) - [id is the target])
 */
export function linearCrossEntropyRows(hidden: Numbers, embedding: Numbers, given: TokenTargets) {
  const weights = rowWeights(given);
  const width = hidden.length / weights.length;
  const [dHidden, dEmbedding] = [new Float64Array(hidden.length), new Float64Array(embedding.length)];
  let total = 0;
  const rows = Array.from(weights, (weight, row) => {
    const target = given.targets[row];
    const logits = make(embedding.length / width, (id) => {
      let product = 0;
      for (let i = 0; i < width; i++) product += hidden[row * width + i] * embedding[id * width + i];
      return product;
    });
    const most = logits.reduce((a, b) => Math.max(a, b));
    const logSumExp = most + Math.log(logits.reduce((all, logit) => all + Math.exp(logit - most), 0));
    const loss = weight && logSumExp - logits[target];
    total += weight * loss;
    logits.forEach((logit, id) => {
      const dLogit = weight && weight * (Math.exp(logit - logSumExp) - (id === target ? 1 : 0));
      for (let i = 0; dLogit !== 0 && i < width; i++) {
        dHidden[row * width + i] += dLogit * embedding[id * width + i];
        dEmbedding[id * width + i] += dLogit * hidden[row * width + i];
      }
    });
    return { loss, logSumExp, prediction: logits.indexOf(most) };
  });
  return { loss: Float64Array.of(total), rows, dHidden, dEmbedding };
}

export const linearCrossEntropy = (hidden: Numbers, embedding: Numbers, given: TokenTargets): Float64Array =>
  linearCrossEntropyRows(hidden, embedding, given).loss;
