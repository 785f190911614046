/** Plain arrays, row by row, and float64 arithmetic: what every oracle of this folder is made of. */
export type Numbers = ArrayLike<number>;
export type Many<T = never> = readonly (Numbers | T)[];

export function make(length: number, at: (i: number) => number): Float64Array {
  const y = new Float64Array(length);
  for (let i = 0; i < length; i++) y[i] = at(i);
  return y;
}

/** term(0) + term(1) + ... + term(count - 1) */
export function sum(count: number, term: (i: number) => number): number {
  let total = 0;
  for (let i = 0; i < count; i++) total += term(i);
  return total;
}

/** x with a function applied to each row of `width` elements. */
export function byRow(x: Numbers, width: number, fn: (row: Float64Array, index: number) => Numbers): Float64Array {
  const y = Float64Array.from(x);
  for (let row = 0; row * width < y.length; row++) y.set(fn(y.slice(row * width, (row + 1) * width), row), row * width);
  return y;
}
