/** Operations that move, turn or sum rows. */
import { byRow, type Many, make, type Numbers, sum } from './numbers.ts';

/** Rows of a table by their ids, times a scale; zeros for an id beyond the table. */
export const embedding = (ids: Numbers, table: Numbers, width: number, scale = 1): Float64Array =>
  make(ids.length * width, (i) => {
    const row = ids[Math.floor(i / width)] * width;
    return row < table.length ? scale * table[row + (i % width)] : 0;
  });

/** Turns the pairs of each head of x [tokens, heads, dimension] by the angles of its token. */
export function rotary(x: Numbers, table: Numbers, heads: number, dimension: number, layout = 'halves'): Float64Array {
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
export function concatenateTokens(parts: Many, batch: number): Float64Array {
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
export function writeTokens(x: Numbers, rows: Numbers, shape: readonly number[], start: number): Float64Array {
  const end = start + (rows.length * shape[1]) / x.length;
  const around = [sliceTokens(x, shape, 0, start), rows, sliceTokens(x, shape, end, shape[1] - end)];
  return concatenateTokens(around, shape[0]);
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

/**
 * The likeliest of the allowed ids of a row of logits, of several the lowest; with a temperature and a number u in [0, 1), the first
 * at which the cumulative softmax over the allowed ids exceeds u.
 */
export function chooseToken(
  logits: Numbers,
  allowed: readonly number[],
  draw?: { readonly u: number; readonly temperature: number },
): number {
  const likeliest = allowed.reduce((best, id) => (logits[id] > logits[best] ? id : best));
  if (!draw) return likeliest;
  const shares = allowed.map((id) => Math.exp((logits[id] - logits[likeliest]) / draw.temperature));
  const total = shares.reduce((sum, share) => sum + share, 0);
  let walked = 0;
  for (const [i, id] of allowed.entries()) {
    walked += shares[i];
    if (walked > draw.u * total) return id;
  }
  return likeliest;
}
