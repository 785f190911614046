import {
  type ActionChunk,
  type ActionTokenizer,
  BinActionTokenizer,
  FastTokenizer,
  StrideTokenizer,
  StringActionTokenizer,
} from '../../tokenizers/index.ts';
import type { SplitChunks } from './chunks.ts';

/** One way to write the held-out chunks as tokens: its length and its error. */
export interface ReportRow {
  readonly name: string;
  readonly vocabularySize: number;
  readonly tokensPerChunk: { readonly mean: number; readonly least: number; readonly most: number };
  /** Tokens for one second of control. */
  readonly tokensPerSecond: number;
  /** Tokens of the first row, divided by those of this row. */
  readonly compression: number;
  /** Share of quantised coefficients that are zero; null if the tokenizer has none. */
  readonly zeroShare: number | null;
  /** Share of quantised coefficients that lay beyond the alphabet and were clamped; null if the tokenizer has none. */
  readonly clampedShare: number | null;
  /** Errors in normalised units: [-1, 1] is the usual range of a dimension. */
  readonly error: {
    readonly rootMeanSquare: number;
    readonly largest: number;
    /** Root mean square and largest error of each dimension. */
    readonly perDimension: readonly { readonly rootMeanSquare: number; readonly largest: number }[];
  };
  readonly use: TokenUse;
}

interface TokenUse {
  /** The number of times that each id was written. */
  readonly counts: readonly number[];
  readonly distinct: number;
  /** Entropy of the distribution of ids, in bits: the cost of a token for a predictor that sees no context. */
  readonly entropy: number;
  /** The most frequent ids and their meanings. */
  readonly frequent: readonly { readonly id: number; readonly share: number; readonly spells: string }[];
}

interface ReportSettings {
  readonly rate: number;
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
  { heldOut }: Pick<SplitChunks, 'heldOut'>,
  tokenizers: readonly (readonly [string, ActionTokenizer])[],
  rate: number,
): ReportRow[] {
  const rows = tokenizers.map(([name, tokenizer]) => measure(name, tokenizer, heldOut, rate));
  const [first] = rows;
  return rows.map((row) => ({ ...row, compression: first.tokensPerChunk.mean / row.tokensPerChunk.mean }));
}

function measure(name: string, tokenizer: ActionTokenizer, chunks: readonly ActionChunk[], rate: number): ReportRow {
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
    tokensPerSecond: (tokens / steps) * rate,
    compression: 1,
    zeroShare: tokenizer instanceof FastTokenizer ? zeros / (steps * dimension) : null,
    clampedShare: tokenizer instanceof FastTokenizer ? clamped / (steps * dimension) : null,
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

function tokenUse(tokenizer: ActionTokenizer, counts: readonly number[], tokens: number): TokenUse {
  const used = counts.map((count, id) => ({ id, share: count / tokens })).filter(({ share }) => share > 0);
  const frequent = used
    .toSorted((a, b) => b.share - a.share || a.id - b.id)
    .slice(0, FREQUENT)
    .map((one) => ({ ...one, spells: spelling(tokenizer, one.id) }));
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
