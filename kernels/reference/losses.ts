/** Losses: means of an error over the elements that count, and the cross-entropy of token ids. */
import { make, type Numbers, sum } from './numbers.ts';

export const errors = {
  meanSquaredError: (p: number, t: number) => (p - t) ** 2,
  l1: (p: number, t: number) => Math.abs(p - t),
  huber: (p: number, t: number) => (Math.abs(p - t) <= 1 ? 0.5 * (p - t) ** 2 : Math.abs(p - t) - 0.5),
  binaryCrossEntropyWithLogits: (p: number, t: number) => Math.max(p, 0) - p * t + Math.log1p(Math.exp(-Math.abs(p))),
};

export interface Masks {
  /** 1 for each leading part that counts. */
  readonly valid?: Numbers | null;
  /** 1 for each column that counts: [width], or [samples, width]. */
  readonly dimensions?: Numbers | null;
}

/** The elements of a shape that count. */
export function countedElements(shape: readonly number[], { valid, dimensions }: Masks): number[] {
  const size = shape.reduce((a, b) => a * b, 1);
  const width = shape[shape.length - 1];
  return Array.from({ length: size }, (_, i) => i).filter((i) => {
    const ofSample = dimensions && dimensions.length > width ? Math.floor((i * shape[0]) / size) * width : 0;
    return (
      (!valid || valid[Math.floor((i * valid.length) / size)] === 1) &&
      (!dimensions || dimensions[ofSample + (i % width)] === 1)
    );
  });
}

export const meanLoss = (
  error: (prediction: number, target: number) => number,
  prediction: Numbers,
  target: Numbers,
  counted: readonly number[] = [...Array(target.length).keys()],
): Float64Array =>
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
  const marked = (from: number, count: number) =>
    Math.max(
      1,
      sum(count, (i) => mask[from + i]),
    );
  if (reduction === 'perToken') return make(mask.length, (row) => mask[row] / marked(0, mask.length));
  const samples = mask.length / tokens;
  return make(mask.length, (row) => mask[row] / (samples * marked(row - (row % tokens), tokens)));
}

/** Logits, log-sum-exp, loss and most likely id of one row of hidden [rows, width] by embedding [vocabulary, width]. */
function tokenRow(hidden: Numbers, embedding: Numbers, { targets }: TokenTargets, row: number) {
  const width = hidden.length / targets.length;
  const logits = make(embedding.length / width, (id) => {
    let product = 0;
    for (let i = 0; i < width; i++) product += hidden[row * width + i] * embedding[id * width + i];
    return product;
  });
  const most = logits.reduce((a, b) => Math.max(a, b));
  const logSumExp = most + Math.log(logits.reduce((total, logit) => total + Math.exp(logit - most), 0));
  return { logits, logSumExp, loss: logSumExp - logits[targets[row]], prediction: logits.indexOf(most) };
}

/** loss = sum over rows of weight * (log(sum(exp(logits))) - logits[target]) */
export function linearCrossEntropy(hidden: Numbers, embedding: Numbers, given: TokenTargets): Float64Array {
  const loss = (weight: number, row: number) => weight && weight * tokenRow(hidden, embedding, given, row).loss;
  return Float64Array.of(rowWeights(given).reduce((total, weight, row) => total + loss(weight, row), 0));
}

/** The same, row by row, with the gradients: dLogit = weight * (softmax(logits) - [id is the target]). */
export function linearCrossEntropyRows(hidden: Numbers, embedding: Numbers, given: TokenTargets) {
  const weights = rowWeights(given);
  const width = hidden.length / weights.length;
  const [dHidden, dEmbedding] = [new Float64Array(hidden.length), new Float64Array(embedding.length)];
  const rows = Array.from(weights, (weight, row) => {
    const { logits, logSumExp, loss, prediction } = tokenRow(hidden, embedding, given, row);
    logits.forEach((logit, id) => {
      const dLogit = weight * (Math.exp(logit - logSumExp) - (id === given.targets[row] ? 1 : 0));
      for (let i = 0; i < width; i++) {
        dHidden[row * width + i] += dLogit * embedding[id * width + i];
        dEmbedding[id * width + i] += dLogit * hidden[row * width + i];
      }
    });
    return { loss: loss * given.mask[row], logSumExp, prediction };
  });
  return { rows, dHidden, dEmbedding };
}
