/** Attention by its definition, pair by pair, forward and backward, with nothing saved. */
import type { Numbers } from './numbers.ts';

type Operands = Readonly<Record<'query' | 'key' | 'value', Numbers>>;
type Sizes = Readonly<Record<'batch' | 'heads' | 'kvHeads' | 'headDimension', number>>;

interface Cell extends Readonly<Record<'keyGradient' | 'valueGradient', number>> {
  readonly mask: 'none' | 'full' | 'causal';
  readonly window?: number;
}

interface Table {
  /** A block with `keys: false` has no rows in key and value. */
  readonly layout: {
    readonly blocks: readonly { readonly name: string; readonly length: number; readonly keys?: boolean }[];
  };
  /** By query block, then by key block. */
  readonly cells: readonly (readonly Cell[])[];
}

export interface AttentionProblem extends Operands, Sizes {
  readonly table: Table;
  readonly scale?: number;
  readonly validity: Numbers;
  readonly queries?: readonly string[];
  readonly lossBlocks?: readonly string[];
  /** Without it there are no gradients. */
  readonly dOutput?: Numbers;
  /** An expression's mask, score and derivative of the score; default: all allowed, the score itself, 1. */
  readonly allowed?: (q: number, k: number, sample: number) => boolean;
  readonly score?: (score: number, q: number, k: number, head: number, sample: number) => number;
  readonly derivative?: AttentionProblem['score'];
  /** Gets the softmax of every query that sees anything: the tokens of the keys that it sees, and their probabilities. */
  readonly onRow?: (sample: number, head: number, query: number, keys: readonly number[], weights: number[]) => void;
}

/** Says whether a table lets the query of token i see the key of token j. */
export function tableSees({ layout, cells }: Table): (i: number, j: number) => boolean {
  const owners = layout.blocks.flatMap(({ length }, block) => Array.from({ length }, () => block));
  return (i, j) => {
    const { mask, window = Number.POSITIVE_INFINITY } = cells[owners[i]][owners[j]];
    return mask === 'full' || (mask === 'causal' && j <= i && i - j < window);
  };
}

/**
 * s_j = score(scale * q . k_j), p = softmax(s), output = sum of p_j v_j; and backward, with g the gradient of the output:
 * dv_j = p_j g, ds_j = p_j (g . v_j - g . output), dq = sum of ds_j k_j, dk_j = ds_j q. An edge multiplies its dk and dv by its factors.
 */
export function attention(problem: AttentionProblem) {
  const { table, batch, heads, kvHeads, headDimension: D, validity, query, key, value, dOutput, lossBlocks } = problem;
  const { allowed = () => true, score = (s: number) => s, derivative = () => 1, scale = 1 / Math.sqrt(D) } = problem;
  const owners = table.layout.blocks.flatMap(({ name, length, keys = true }, block) =>
    Array.from({ length }, () => ({ name, block, keys })),
  );
  const all = owners.map((_, token) => token);
  const rowTokens = all.filter((token) => problem.queries?.includes(owners[token].name) ?? true);
  const keyTokens = all.filter((token) => owners[token].keys);
  const keyRows = new Map(keyTokens.map((token, row) => [token, row]));
  const [tokens, rows] = [all.length, rowTokens.length];
  const [output, dQuery] = [new Float64Array(query.length), new Float64Array(query.length)];
  const [dKey, dValue] = [new Float64Array(key.length), new Float64Array(value.length)];
  const logSumExp = new Float64Array(batch * heads * rows);
  const live = new Uint8Array(batch * heads * rows);
  const edgeOf = (i: number, j: number) => table.cells[owners[i].block][owners[j].block];
  const inTable = tableSees(table);
  const sees = (sample: number, i: number, j: number) =>
    inTable(i, j) && Boolean(validity[sample * tokens + i] && validity[sample * tokens + j]) && allowed(i, j, sample);
  const dot = (a: Numbers, x: number, b: Numbers, y: number) => {
    let sum = 0;
    for (let d = 0; d < D; d++) sum += a[x + d] * b[y + d];
    return sum;
  };
  for (let sample = 0; sample < batch; sample++)
    for (let head = 0; head < heads; head++)
      rowTokens.forEach((i, row) => {
        const q = ((sample * rows + row) * heads + head) * D;
        const kvHead = Math.floor((head * kvHeads) / heads);
        const at = (j: number) => ((sample * keyTokens.length + keyRows.get(j)!) * kvHeads + kvHead) * D;
        const seen = keyTokens.filter((j) => sees(sample, i, j));
        if (seen.length === 0) return;
        const products = seen.map((j) => scale * dot(query, q, key, at(j)));
        const scores = seen.map((j, n) => score(products[n], i, j, head, sample));
        const most = Math.max(...scores);
        const total = scores.reduce((sum, score) => sum + Math.exp(score - most), 0);
        const weights = scores.map((score) => Math.exp(score - most) / total);
        problem.onRow?.(sample, head, i, seen, weights);
        const place = (sample * heads + head) * rows + row;
        logSumExp[place] = most + Math.log(total);
        live[place] = 1;
        seen.forEach((j, n) => {
          for (let d = 0; d < D; d++) output[q + d] += weights[n] * value[at(j) + d];
        });
        if (!dOutput || (lossBlocks && !lossBlocks.includes(owners[i].name))) return;
        const delta = dot(dOutput, q, output, q);
        seen.forEach((j, n) => {
          const { keyGradient, valueGradient } = edgeOf(i, j);
          const slope = scale * derivative(products[n], i, j, head, sample);
          const dScore = slope * weights[n] * (dot(dOutput, q, value, at(j)) - delta);
          for (let d = 0; d < D; d++) {
            dQuery[q + d] += dScore * key[at(j) + d];
            dKey[at(j) + d] += keyGradient * dScore * query[q + d];
            dValue[at(j) + d] += valueGradient * weights[n] * dOutput[q + d];
          }
        });
      });
  return { output, logSumExp, live, dQuery, dKey, dValue };
}
