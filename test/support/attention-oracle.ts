import type { AttentionTable } from '../../kernels/index.ts';

export interface AttentionProblem {
  table: AttentionTable;
  batch: number;
  heads: number;
  kvHeads: number;
  headDimension: number;
  scale?: number;
  validity: ArrayLike<number>;
  queries?: string[];
  lossBlocks?: string[];
  query: ArrayLike<number>;
  key: ArrayLike<number>;
  value: ArrayLike<number>;
  dOutput: ArrayLike<number>;
  /** An expression's mask, score and derivative of the score; default: all allowed, the score itself, 1. */
  allowed?: (q: number, k: number, sample: number) => boolean;
  score?: (score: number, q: number, k: number, head: number, sample: number) => number;
  derivative?: (score: number, q: number, k: number, head: number, sample: number) => number;
}

/** Attention in float64, forward and backward, pair by pair: the definition, with nothing saved. */
export function attentionOracle(problem: AttentionProblem) {
  const { table, batch, heads, kvHeads, headDimension: D, validity, query, key, value, dOutput } = problem;
  const { blocks, length: tokens } = table.layout;
  const scale = problem.scale ?? 1 / Math.sqrt(D);
  const { allowed = () => true, score = (s: number) => s, derivative = () => 1 } = problem;
  const owner = blocks.flatMap((block, index) => Array<number>(block.length).fill(index));
  const rowTokens = [...owner.keys()].filter(
    (token) => !problem.queries || problem.queries.includes(blocks[owner[token]].name),
  );
  const rows = rowTokens.length;
  // Tokens without keys have no rows in key and value.
  const keyTokens = [...owner.keys()].filter((token) => blocks[owner[token]].keys);
  const keyRow = new Map(keyTokens.map((token, row) => [token, row]));
  const output = new Float64Array(query.length);
  const logSumExp = new Float64Array(batch * heads * rows);
  const live = new Uint8Array(batch * heads * rows);
  const dQuery = new Float64Array(query.length);
  const dKey = new Float64Array(key.length);
  const dValue = new Float64Array(value.length);
  const edgeOf = (i: number, j: number) => table.cells[owner[i]][owner[j]];
  const sees = (sample: number, i: number, j: number) => {
    const cell = edgeOf(i, j);
    if (cell.mask === 'none' || !validity[sample * tokens + i] || !validity[sample * tokens + j]) return false;
    if (!allowed(i, j, sample)) return false;
    return cell.mask === 'full' || (j <= i && i - j < (cell.window ?? Number.POSITIVE_INFINITY));
  };
  for (let sample = 0; sample < batch; sample++)
    for (let head = 0; head < heads; head++)
      rowTokens.forEach((i, row) => {
        const kv = Math.floor(head / (heads / kvHeads));
        const q = ((sample * rows + row) * heads + head) * D;
        const at = (j: number) => ((sample * keyTokens.length + keyRow.get(j)!) * kvHeads + kv) * D;
        const seen = keyTokens.filter((j) => sees(sample, i, j));
        if (seen.length === 0) return;
        const dot = (a: ArrayLike<number>, x: number, b: ArrayLike<number>, y: number) => {
          let sum = 0;
          for (let d = 0; d < D; d++) sum += a[x + d] * b[y + d];
          return sum;
        };
        const products = seen.map((j) => scale * dot(query, q, key, at(j)));
        const scores = seen.map((j, n) => score(products[n], i, j, head, sample));
        const most = Math.max(...scores);
        const total = scores.reduce((sum, score) => sum + Math.exp(score - most), 0);
        const weights = scores.map((score) => Math.exp(score - most) / total);
        logSumExp[(sample * heads + head) * rows + row] = most + Math.log(total);
        live[(sample * heads + head) * rows + row] = 1;
        seen.forEach((j, n) => {
          for (let d = 0; d < D; d++) output[q + d] += weights[n] * value[at(j) + d];
        });
        if (problem.lossBlocks && !problem.lossBlocks.includes(blocks[owner[i]].name)) return;
        const delta = dot(dOutput, q, output, q);
        seen.forEach((j, n) => {
          const cell = edgeOf(i, j);
          const slope = scale * derivative(products[n], i, j, head, sample);
          const dScore = slope * weights[n] * (dot(dOutput, q, value, at(j)) - delta);
          for (let d = 0; d < D; d++) {
            dQuery[q + d] += dScore * key[at(j) + d];
            dKey[at(j) + d] += cell.keyGradient * dScore * query[q + d];
            dValue[at(j) + d] += cell.valueGradient * weights[n] * dOutput[q + d];
          }
        });
      });
  return { output, logSumExp, live, dQuery, dKey, dValue };
}
