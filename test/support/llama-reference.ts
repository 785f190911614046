/** The Llama language model in float64. */
import type { LanguageModelSizes } from '../../bench/step/language-model.ts';

/** Llama in float64, straight from the formulas: logits [ids, vocabulary]. */
export function referenceLogits(
  weights: ReadonlyMap<string, ArrayLike<number>>,
  { width, hidden, depth, heads, kvHeads, headDimension: dimension }: LanguageModelSizes,
  ids: ArrayLike<number>,
  { base = 10_000, epsilon = 1e-5 } = {},
): Float64Array {
  const length = ids.length;
  const get = (name: string) => weights.get(`${name}.weight`)!;
  /** x [rows, inputs] times the transposed matrix [outputs, inputs] */
  const product = (x: Float64Array, matrix: ArrayLike<number>, inputs: number) => {
    const outputs = matrix.length / inputs;
    return Float64Array.from({ length: (x.length / inputs) * outputs }, (_, i) => {
      let sum = 0;
      for (let k = 0; k < inputs; k++)
        sum += x[Math.floor(i / outputs) * inputs + k] * matrix[(i % outputs) * inputs + k];
      return sum;
    });
  };
  const norm = (x: Float64Array, gain: ArrayLike<number>) =>
    x.map((value, i) => {
      const row = x.subarray(i - (i % width), i - (i % width) + width);
      return (value / Math.sqrt(row.reduce((sum, own) => sum + own * own, 0) / width + epsilon)) * gain[i % width];
    });
  const rotated = (x: Float64Array, count: number) =>
    x.map((value, i) => {
      const at = i % dimension;
      const angle = Math.floor(i / (count * dimension)) * base ** (-(at - (at % 2)) / dimension);
      return value * Math.cos(angle) + (at % 2 ? x[i - 1] : -x[i + 1]) * Math.sin(angle);
    });
  const attended = (query: Float64Array, key: Float64Array, value: Float64Array) => {
    const output = new Float64Array(query.length);
    for (let q = 0; q < length; q++)
      for (let head = 0; head < heads; head++) {
        const own = (q * heads + head) * dimension;
        const at = (k: number) => (k * kvHeads + Math.floor(head / (heads / kvHeads))) * dimension;
        const scores = Array.from({ length: q + 1 }, (_, k) => {
          let sum = 0;
          for (let i = 0; i < dimension; i++) sum += query[own + i] * key[at(k) + i];
          return Math.exp(sum / Math.sqrt(dimension));
        });
        const total = scores.reduce((sum, score) => sum + score);
        scores.forEach((score, k) => {
          for (let i = 0; i < dimension; i++) output[own + i] += (score / total) * value[at(k) + i];
        });
      }
    return output;
  };
  const embeddings = get('tok_embeddings');
  let x = Float64Array.from(
    { length: length * width },
    (_, i) => embeddings[ids[Math.floor(i / width)] * width + (i % width)],
  );
  const added = (branch: Float64Array) => x.map((value, i) => value + branch[i]);
  for (let layer = 0; layer < depth; layer++) {
    const own = (name: string) => get(`layers.${layer}.${name}`);
    const normed = norm(x, own('attention_norm'));
    const [query, key, value] = ['wq', 'wk', 'wv'].map((name) => product(normed, own(`attention.${name}`), width));
    x = added(
      product(attended(rotated(query, heads), rotated(key, kvHeads), value), own('attention.wo'), heads * dimension),
    );
    const between = norm(x, own('ffn_norm'));
    const up = product(between, own('feed_forward.w3'), width);
    const gated = product(between, own('feed_forward.w1'), width).map((z, i) => (z / (1 + Math.exp(-z))) * up[i]);
    x = added(product(gated, own('feed_forward.w2'), hidden));
  }
  const logits = product(norm(x, get('norm')), weights.get('output.weight') ?? embeddings, width);
  return logits;
}

/** Cross-entropy of each next id, in nats. */
export function lossesOf(logits: Float64Array, ids: ArrayLike<number>, vocabulary: number): number[] {
  return Array.from({ length: ids.length - 1 }, (_, i) => {
    const row = logits.subarray(i * vocabulary, (i + 1) * vocabulary);
    return Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0)) - row[ids[i + 1]];
  });
}
