/** What moves, turns or sums rows. */
import { byRow, make, type Numbers, sum } from './numbers.ts';

/** Rows of a table by their ids, times a scale; zeros for an id beyond the table. */
export const embedding = (ids: Numbers, table: Numbers, width: number, scale = 1): Float64Array =>
  make(ids.length * width, (i) => {
    const row = ids[Math.floor(i / width)] * width;
    return row < table.length ? scale * table[row + (i % width)] : 0;
  });

/** Cosine and sine of each position times base^(-2 i / dimension): [positions, dimension / 2, 2] */
export const rotaryTable = (positions: Numbers, dimension: number, base = 10_000): Float64Array =>
  make(positions.length * dimension, (at) => {
    const angle =
      positions[Math.floor(at / dimension)] * base ** (-2 * ((Math.floor(at / 2) % (dimension / 2)) / dimension));
    return at % 2 === 0 ? Math.cos(angle) : Math.sin(angle);
  });

/** Turns the pairs of each head of x [tokens, heads, dimension] by the angles of its token. */
export function rotary(
  x: Numbers,
  table: Numbers,
  heads: number,
  dimension: number,
  layout: 'halves' | 'pairs' = 'halves',
): Float64Array {
  return byRow(x, dimension, (row, index) => {
    const turned = new Float64Array(dimension);
    for (let i = 0; i < dimension / 2; i++) {
      const [first, second] = layout === 'pairs' ? [2 * i, 2 * i + 1] : [i, i + dimension / 2];
      const at = Math.floor(index / heads) * dimension + 2 * i;
      turned[first] = row[first] * table[at] - row[second] * table[at + 1];
      turned[second] = row[second] * table[at] + row[first] * table[at + 1];
    }
    return turned;
  });
}

/** The tokens of each sample of the parts, one part after another. */
export function concatenateTokens(parts: readonly Numbers[], batch: number): Float64Array {
  const samples = Array.from({ length: batch }, (_, b) =>
    parts.flatMap((part) => Array.from(part).slice((b * part.length) / batch, ((b + 1) * part.length) / batch)),
  );
  return Float64Array.from(samples.flat());
}

/** `length` tokens from `start` of each sample of x [batch, tokens, width]. */
export const sliceTokens = (x: Numbers, [batch, tokens]: readonly number[], start: number, length: number) => {
  const width = x.length / (batch * tokens);
  return make(batch * length * width, (i) => {
    const sample = Math.floor(i / (length * width));
    return x[(sample * tokens + start) * width + (i % (length * width))];
  });
};

/** x [batch, tokens, width] with other rows from token `start` on. */
export function writeTokens(
  x: Numbers,
  rows: Numbers,
  [batch, tokens]: readonly number[],
  start: number,
): Float64Array {
  const [sample, written, first] = [x.length / batch, rows.length / batch, (start * x.length) / (batch * tokens)];
  return make(x.length, (i) => {
    const own = (i % sample) - first;
    return own >= 0 && own < written ? rows[Math.floor(i / sample) * written + own] : x[i];
  });
}

/** Rows of `width` elements, widened with zeros or cut. */
export const pad = (x: Numbers, width: number, newWidth: number): Float64Array =>
  make((x.length / width) * newWidth, (i) =>
    i % newWidth < width ? x[Math.floor(i / newWidth) * width + (i % newWidth)] : 0,
  );

export const total = (x: Numbers): number => sum(x.length, (i) => x[i]);

/** The sum of all rows of `width` elements. */
export const sumRows = (x: Numbers, width: number): Float64Array =>
  make(width, (column) => sum(x.length / width, (row) => x[row * width + column]));
