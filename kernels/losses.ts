import {
  type Device,
  emptyTensor,
  formatShape,
  gridFor,
  loadKernel,
  persistentTensor,
  type Tensor,
} from '../engine/index.ts';
import { expectDtype, expectLike, recordOne, sharedDevice } from './operand.ts';

const kernel = await loadKernel(new URL('./losses.wgsl', import.meta.url));
const THREADS = 64;
const SLICES = 32;

/** Which elements of a prediction [B, H, d] count; what is missing counts everything. Masks are u32, 0 or 1. */
export interface LossMasks {
  /** Steps that count: a leading part of the prediction's shape, as [B], [B, H] or [B, H, d]. */
  valid?: Tensor;
  /** Real dimensions of the last axis: [d] for all samples, or [B, d]. */
  dimensions?: Tensor;
}

/**
 * Mean of (prediction - target)^2.
 *
 * For all losses of this file: prediction [B, ..., d], target of its shape, f32 -> [], the sum of w * error over the sum of w,
 * where w = valid * dimensions (see LossMasks); 0 where nothing counts. With full dimensions that is the mean over dimensions and
 * then over valid steps; with samples left out by `valid` [B], the mean over the samples left in. Every step that counts weighs
 * the same, whichever sample it is of. The gradient reaches `prediction` only.
 */
export function meanSquaredError(prediction: Tensor, target: Tensor, masks: LossMasks = {}): Tensor {
  return meanError('meanSquaredError', prediction, target, masks);
}

/** Mean of |prediction - target|; the gradient at 0 is 0. Operands as of meanSquaredError. */
export function l1(prediction: Tensor, target: Tensor, masks: LossMasks = {}): Tensor {
  return meanError('l1', prediction, target, masks);
}

/** Mean of the loss of Huber (1964) with delta 1: quadratic up to an error of 1, linear beyond. Operands as of meanSquaredError. */
export function huber(prediction: Tensor, target: Tensor, masks: LossMasks = {}): Tensor {
  return meanError('huber', prediction, target, masks);
}

/** Mean of -t log(sigmoid(p)) - (1 - t) log(1 - sigmoid(p)) for logits p and labels t in [0, 1]. Operands as of meanSquaredError. */
export function binaryCrossEntropyWithLogits(logit: Tensor, label: Tensor, masks: LossMasks = {}): Tensor {
  return meanError('binaryCrossEntropyWithLogits', logit, label, masks);
}

function meanError(
  op: 'meanSquaredError' | 'l1' | 'huber' | 'binaryCrossEntropyWithLogits',
  prediction: Tensor,
  target: Tensor,
  masks: LossMasks,
): Tensor {
  expectDtype(op, 'prediction', prediction, 'f32');
  expectLike(op, 'target', target, 'f32', prediction.shape);
  const device = sharedDevice(op, prediction, target, ...Object.values(masks).filter((mask) => mask !== undefined));
  const { valid = always(device), dimensions = always(device) } = masks;
  if (masks.valid) checkValid(op, masks.valid, prediction);
  if (masks.dimensions) checkDimensions(op, masks.dimensions, prediction);

  const elements = prediction.size;
  const width = dimensions.shape.at(-1)!;
  const uniform = {
    elements,
    perValid: elements / valid.size || 1,
    perDimensionRow: elements / (dimensions.size / width) || 1,
    dimensions: width,
  };
  const parameters = { THREADS, SLICES, ...(op !== 'meanSquaredError' && { error: op, derivative: op }) };
  const run = (entry: string, bindings: Record<string, Tensor>, workgroups: [number, number], flops: number) =>
    device.dispatch({ kernel, entry, parameters, bindings, uniform, workgroups, flops });
  const operands = { prediction, target_: target, valid, dimension: dimensions };
  const partialSums = emptyTensor(device, [SLICES, 2], 'f32', op);
  const loss = emptyTensor(device, [], 'f32', op);
  const scale = emptyTensor(device, [], 'f32', op);

  run('forwardSlices', { ...operands, partialSums }, [SLICES, 1], 5 * elements);
  device.dispatch({ kernel, entry: 'forward', parameters, bindings: { partialSums, loss, scale }, workgroups: [1] });
  device.currentStep(op).release(partialSums.buffer);
  recordOne(op, [prediction], loss, (dLoss) => {
    const dPrediction = emptyTensor(device, prediction.shape, 'f32', `${op} backward`);
    run('backward', { ...operands, scale, dLoss, dPrediction }, gridFor(elements, THREADS), 4 * elements);
    return [dPrediction];
  });
  return loss;
}

function checkValid(op: string, valid: Tensor, prediction: Tensor): void {
  expectDtype(op, 'valid', valid, 'u32');
  const leading = prediction.shape.slice(0, valid.shape.length);
  if (valid.shape.length === 0 || formatShape(valid.shape) !== formatShape(leading))
    throw new Error(
      `${op}: valid has shape ${formatShape(valid.shape)}; expected a leading part of ${formatShape(prediction.shape)}`,
    );
}

function checkDimensions(op: string, dimensions: Tensor, prediction: Tensor): void {
  expectDtype(op, 'dimensions', dimensions, 'u32');
  const forAll = [prediction.shape.at(-1)];
  const forEach = [prediction.shape[0], ...forAll];
  const found = formatShape(dimensions.shape);
  if (found !== `[${forAll}]` && (prediction.shape.length < 2 || found !== `[${forEach.join(', ')}]`))
    throw new Error(
      `${op}: dimensions has shape ${found}; expected [${forAll}] or [${forEach.join(', ')}] for ${formatShape(prediction.shape)}`,
    );
}

const alwaysOn = new WeakMap<GPUDevice, Tensor>();

/** The mask of one element that lets everything count; it lives as long as its device. */
function always(device: Device): Tensor {
  let one = alwaysOn.get(device.gpu);
  if (!one) {
    one = persistentTensor(device, [1], 'u32', 'losses');
    one.write([1]);
    alwaysOn.set(device.gpu, one);
  }
  return one;
}
