export * from './attention.ts';
export * from './attention-plan.ts';
export * from './attention-table.ts';
export * from './embedding.ts';
export * from './flow.ts';
export * from './pad.ts';
export * from './random.ts';
export * from './rms-norm.ts';
