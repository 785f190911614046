export * from './embedding.ts';
export * from './pad.ts';
export * from './random.ts';
export * from './rms-norm.ts';
