/**
 * The operations: each is one `.wgsl` file, mathematics first, and one `.ts` file of the same name. A step of training, captured
 * once and replayed as one list; lengths, masks, seeds and the learning rate are data:
 *
 * ```ts
 * import { backward, captureStep, openDevice, ParameterSet, tensor } from 'insula/engine';
 * import { AdamW, linear, meanSquaredError } from 'insula/kernels';
 *
 * const device = await openDevice();
 * const parameters = new ParameterSet(device, [{ name: 'weight', shape: [8, 32], group: 'all' }]);
 * const optimizer = new AdamW(parameters, { maximumNorm: 1 });
 * const target = tensor(device, new Float32Array(64 * 8).fill(1), [64, 8]);
 * const step = captureStep(device, { x: { shape: [64, 32] }, schedule: { shape: [3] } }, ({ x, schedule }) => {
 *   parameters.zeroGradients();
 *   const loss = meanSquaredError(linear(x, parameters.get('weight')), target);
 *   backward(loss);
 *   optimizer.step(schedule);
 *   return { loss };
 * });
 * const x = new Float32Array(64 * 32).map((_, i) => Math.sin(i));
 * for (let i = 0; i < 100; i++) {
 *   const { loss } = await step.run({ x, schedule: optimizer.nextSchedule(1e-2) });
 *   if (i % 20 === 0) console.log(await loss.read());
 * }
 * console.log(step.list().length, step.stats().arenaBytes);
 * device.close();
 * ```
 */

export { gelu, relu, sigmoid, swish, tanh } from './activation.ts';
export * from './adamw.ts';
export type { Moment, MomentStorage } from './adamw-moments.ts';
export * from './adaptive-rms-norm.ts';
export * from './attention.ts';
export * from './attention-cost.ts';
export * from './attention-expression.ts';
export * from './attention-fill.ts';
export * from './attention-lists.ts';
export * from './attention-masks.ts';
export * from './attention-plan.ts';
export * from './attention-table.ts';
export * from './attention-tiles.ts';
export * from './attention-variants.ts';
export * from './block-linear.ts';
export * from './cast.ts';
export * from './chosen-variants.ts';
export * from './elementwise.ts';
export * from './embedding.ts';
export type { Activation } from './epilogue.ts';
export * from './first-not-finite.ts';
export * from './flow.ts';
export * from './gated-mlp.ts';
export * from './gradient-norms.ts';
export * from './layer-norm.ts';
export * from './linear.ts';
export * from './linear-cross-entropy.ts';
export * from './losses.ts';
export * from './low-rank.ts';
export * from './lstm.ts';
export * from './matmul.ts';
export * from './matmul-variants.ts';
export * from './pad.ts';
export * from './patch-embedding.ts';
export * from './random.ts';
export * from './reduce.ts';
export * from './reshape.ts';
export * from './rms-norm.ts';
export * from './rotary.ts';
export * from './softmax.ts';
export * from './token-cache.ts';
export * from './token-choice.ts';
export * from './tokens.ts';
export * from './weight-average.ts';
