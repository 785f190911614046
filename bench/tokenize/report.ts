/** `insula tokenize report`: every kind of action tokenizer on the same held-out chunks, tokens beside error. */
import {
  type ActionChunk,
  type ActionTokenizer,
  BinActionTokenizer,
  FastTokenizer,
  StrideTokenizer,
  StringActionTokenizer,
} from '../../tokenizers/index.ts';

/** Every kind of tokenizer with its usual settings, FAST at three scales, fitted to the training chunks. */
export const reportedTokenizers = (train: readonly ActionChunk[]): [string, ActionTokenizer][] => [
  ['naive, 256 bins', new BinActionTokenizer()],
  ['naive, every 5th step', new StrideTokenizer(new BinActionTokenizer())],
  ...[5, 10, 20].map((scale): [string, ActionTokenizer] => [
    `FAST, scale ${scale}`,
    FastTokenizer.fit(train, { scale }),
  ]),
  ['string, 4 decimals', new StringActionTokenizer()],
];

export type ReportRow = ReturnType<typeof reportRows>[number];

/** Rows of held-out chunks of `rate` control steps a second; `compression` is the tokens of the first row, divided by those of a row. */
export function reportRows(
  tokenizers: readonly (readonly [string, ActionTokenizer])[],
  heldOut: readonly ActionChunk[],
  rate: number,
) {
  const rows = tokenizers.map(([name, tokenizer]) => measure(name, tokenizer, heldOut, rate));
  return rows.map((row) => ({ ...row, compression: rows[0].tokensPerChunk.mean / row.tokensPerChunk.mean }));
}

/** One way to write the chunks as tokens: its length and its error. */
function measure(name: string, tokenizer: ActionTokenizer, chunks: readonly ActionChunk[], rate: number) {
  const { horizon, dimension } = chunks[0];
  const counts = new Array<number>(tokenizer.vocabularySize).fill(0);
  const squares = new Float64Array(dimension);
  const lengths: number[] = [];
  let [largest, zeros] = [0, 0];
  const clampings = chunks.map((chunk) => tokenizer.clamping(chunk));
  for (const chunk of chunks) {
    const ids = tokenizer.encode(chunk);
    lengths.push(ids.length);
    for (const id of ids) counts[id]++;
    if (tokenizer instanceof FastTokenizer)
      zeros += tokenizer.coefficients(chunk).filter((value) => value === 0).length;
    tokenizer.decode(ids, chunk).forEach((value, index) => {
      const error = Math.abs(value - chunk.data[index]);
      squares[index % dimension] += error ** 2;
      largest = Math.max(largest, error);
    });
  }
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const steps = chunks.length * horizon;
  const sum = (name: 'clamped' | 'total') => clampings.reduce((sum, own) => sum + own[name], 0);
  const used = counts.filter((count) => count > 0);
  return {
    name,
    vocabularySize: tokenizer.vocabularySize,
    tokensPerChunk: { mean: tokens / chunks.length, least: Math.min(...lengths), most: Math.max(...lengths) },
    // Tokens for one second of control.
    tokensPerSecond: (tokens / steps) * rate,
    // The quantised coefficients of FAST that are zero; the numbers (coefficients of FAST) that were clamped.
    zeroShare: tokenizer instanceof FastTokenizer ? zeros / (steps * dimension) : null,
    clampedShare: sum('clamped') / sum('total'),
    // In normalised units: [-1, 1] is the usual range of a dimension.
    error: {
      rootMeanSquare: Math.sqrt(squares.reduce((a, b) => a + b) / (steps * dimension)),
      largest,
      perDimension: Array.from(squares, (sum) => Math.sqrt(sum / steps)),
    },
    // The number of times that each id was written; in bits, the cost of a token for a predictor that sees no context.
    use: {
      ...{ counts, distinct: used.length },
      entropy: used.reduce((sum, count) => sum - (count / tokens) * Math.log2(count / tokens), 0),
    },
  };
}
