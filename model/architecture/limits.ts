/** More than any model and any example has, and few enough that a mistaken or damaged number exhausts neither time nor memory. */
export const MOST_LAYERS = 1000;
export const MOST_TOKENS = 2 ** 17;
