/** The operations of kernels/ in float64: each formula once more, in loops over plain arrays, sharing no code with any kernel. */
export * from './adamw.ts';
export * from './attention.ts';
export * from './differences.ts';
export * from './elementwise.ts';
export * from './losses.ts';
export * from './lstm.ts';
export * from './norms.ts';
export type { Numbers } from './numbers.ts';
export * from './products.ts';
export * from './rows.ts';
