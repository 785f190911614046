import type { ChunkShape } from './action-tokenizer.ts';

/** An alphabet covers the coefficients of at least this share of the columns, a column being one dimension of a chunk. */
const USUAL_SHARE = 0.95;
/** Coefficients of other columns widen it up to those of a column that stays at this normalised value; beyond, they are clamped. */
const OUTLYING = 1.5;

/**
 * The smallest and the largest symbol of FAST: those of the quantised coefficients, frequency first, of chunks of these
 * shapes, without outliers, and of all values up to `covers`. @throws Error if the vocabulary has no room for them
 */
export function alphabetOf(
  coefficients: readonly Float64Array[],
  shapes: readonly ChunkShape[],
  { scale, covers, vocabularySize }: Readonly<Record<'scale' | 'covers' | 'vocabularySize', number>>,
): { minimum: number; maximum: number } {
  const extents = coefficients.flatMap((quantised, i) => {
    const own = new Array<number>(shapes[i].dimension).fill(0);
    quantised.forEach((value, index) => {
      own[index % own.length] = Math.max(own[index % own.length], Math.abs(value));
    });
    return own;
  });
  const longest = shapes.reduce((most, { horizon }) => Math.max(most, horizon), 0);
  // A row of the basis has norm 1, so a coefficient is at most the norm of its column of values.
  const reachOf = (value: number) => roundHalfToEven(scale * value * Math.sqrt(longest));
  const usual = extents.sort((a, b) => a - b)[Math.ceil(USUAL_SHARE * extents.length) - 1];
  const clamp = Math.max(usual, Math.min(reachOf(OUTLYING), Math.floor((vocabularySize - 1) / 2)));
  let [minimum, maximum] = covers > 0 ? [-reachOf(covers), reachOf(covers)] : [Infinity, -Infinity];
  for (const quantised of coefficients)
    for (const value of quantised) {
      minimum = Math.min(minimum, Math.max(value, -clamp));
      maximum = Math.max(maximum, Math.min(value, clamp));
    }
  const symbols = maximum - minimum + 1;
  if (symbols <= vocabularySize) return { minimum, maximum };
  throw new Error(
    `FastTokenizer.fit: quantised coefficients run from ${minimum} to ${maximum}, ${symbols} symbols for a vocabulary of ${vocabularySize}; normalise the actions to [-1, 1], lower the scale or allow a larger vocabulary`,
  );
}

/** The nearest integer; a tie goes to the even one, as in NumPy's `around`. */
export function roundHalfToEven(value: number): number {
  const up = Math.round(value);
  return up - value === 0.5 && up % 2 !== 0 ? up - 1 : up;
}
