import {
  type ActionChunk,
  type ActionTokenizer,
  BinActionTokenizer,
  FastTokenizer,
  StrideTokenizer,
  StringActionTokenizer,
} from '../../tokenizers/index.ts';

interface ReportSettings {
  readonly scales: readonly number[];
  readonly vocabularySize: number;
  readonly stride: number;
  readonly bins: number;
  readonly decimals: number;
}

const FREQUENT = 8;

/** The tokenizers of the settings, fitted on the training chunks. */
export function reportedTokenizers(
  train: readonly ActionChunk[],
  settings: ReportSettings,
): [string, ActionTokenizer][] {
  const { scales, vocabularySize, stride, bins, decimals } = settings;
  const naive = new BinActionTokenizer({ bins });
  return [
    [`naive, ${bins} bins`, naive],
    [`naive, every ${ordinal(stride)} step`, new StrideTokenizer(naive, stride)],
    ...scales.map((scale): [string, ActionTokenizer] => [
      `FAST, scale ${scale}`,
      FastTokenizer.fit(train, { scale, vocabularySize }),
    ]),
    [`string, ${decimals} decimals`, new StringActionTokenizer({ decimals })],
  ];
}

/** Rows of held-out chunks in the order of the tokenizers; the others are compared with the first. */
export function reportRows(
  heldOut: readonly ActionChunk[],
  tokenizers: readonly (readonly [string, ActionTokenizer])[],
  rate: number,
) {
  const rows = tokenizers.map(([name, tokenizer]) => measure(name, tokenizer, heldOut, rate));
  const [first] = rows;
  return rows.map((row) => ({ ...row, compression: first.tokensPerChunk.mean / row.tokensPerChunk.mean }));
}

export type ReportRow = ReturnType<typeof measure>;

/** One way to write the held-out chunks as tokens: its length and its error. */
function measure(name: string, tokenizer: ActionTokenizer, chunks: readonly ActionChunk[], rate: number) {
  const { horizon, dimension } = chunks[0];
  const counts = new Array<number>(tokenizer.vocabularySize).fill(0);
  const squares = new Float64Array(dimension);
  const largest = new Float64Array(dimension);
  const lengths: number[] = [];
  let zeros = 0;
  let clamped = 0;
  for (const chunk of chunks) {
    const ids = tokenizer.encode(chunk);
    lengths.push(ids.length);
    for (const id of ids) counts[id]++;
    if (tokenizer instanceof FastTokenizer) {
      const { minimum, maximum } = tokenizer;
      for (const value of tokenizer.coefficients(chunk)) {
        if (value === 0) zeros++;
        if (value < minimum || value > maximum) clamped++;
      }
    }
    tokenizer.decode(ids, chunk).forEach((value, index) => {
      const error = Math.abs(value - chunk.data[index]);
      squares[index % dimension] += error ** 2;
      largest[index % dimension] = Math.max(largest[index % dimension], error);
    });
  }
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const steps = chunks.length * horizon;
  return {
    name,
    vocabularySize: tokenizer.vocabularySize,
    tokensPerChunk: {
      mean: tokens / chunks.length,
      least: lengths.reduce((a, b) => Math.min(a, b)),
      most: lengths.reduce((a, b) => Math.max(a, b)),
    },
    // Tokens for one second of control.
    tokensPerSecond: (tokens / steps) * rate,
    // The tokens of the first row, divided by those of this row.
    compression: 1,
    // The quantised coefficients that are zero, and those beyond the alphabet.
    zeroShare: tokenizer instanceof FastTokenizer ? zeros / (steps * dimension) : null,
    clampedShare: tokenizer instanceof FastTokenizer ? clamped / (steps * dimension) : null,
    // In normalised units: [-1, 1] is the usual range of a dimension.
    error: {
      rootMeanSquare: Math.sqrt(squares.reduce((sum, square) => sum + square, 0) / (steps * dimension)),
      largest: Math.max(...largest),
      perDimension: Array.from(squares, (square, d) => ({
        rootMeanSquare: Math.sqrt(square / steps),
        largest: largest[d],
      })),
    },
    use: tokenUse(tokenizer, counts, tokens),
  };
}

/** The number of times that each id was written, and the most frequent ids with their meanings. */
function tokenUse(tokenizer: ActionTokenizer, counts: readonly number[], tokens: number) {
  const used = counts.map((count, id) => ({ id, share: count / tokens })).filter(({ share }) => share > 0);
  const frequent = used
    .toSorted((a, b) => b.share - a.share || a.id - b.id)
    .slice(0, FREQUENT)
    .map((one) => ({ ...one, spells: spelling(tokenizer, one.id) }));
  // In bits: the cost of a token for a predictor that sees no context.
  const entropy = used.reduce((sum, { share }) => sum - share * Math.log2(share), 0);
  return { counts, distinct: used.length, entropy, frequent };
}

/** The meaning of an id: quantised coefficients, a character, or a value. */
function spelling(tokenizer: ActionTokenizer, id: number): string {
  if (tokenizer instanceof StringActionTokenizer)
    return tokenizer.characters[id] === ' ' ? 'space' : tokenizer.characters[id];
  if (tokenizer instanceof StrideTokenizer) return spelling(tokenizer.inner, id);
  if (tokenizer instanceof BinActionTokenizer)
    return tokenizer.decode([id], { horizon: 1, dimension: 1 })[0].toFixed(3);
  if (!(tokenizer instanceof FastTokenizer)) return '';
  const { symbols } = tokenizer.codec.read([id], 10_000);
  const runs: { value: number; times: number }[] = [];
  for (const symbol of symbols) {
    const value = symbol + tokenizer.minimum;
    if (runs.at(-1)?.value === value) runs[runs.length - 1].times++;
    else runs.push({ value, times: 1 });
  }
  return runs.map(({ value, times }) => (times > 1 ? `${value} x ${times}` : `${value}`)).join(', ');
}

function ordinal(number: number): string {
  const [ten, one] = [number % 100, number % 10];
  const end = ten > 10 && ten < 14 ? 'th' : (['th', 'st', 'nd', 'rd'][one] ?? 'th');
  return `${number}${end}`;
}
