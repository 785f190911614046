/// <reference lib="esnext.disposable" preserve="true" />
export * from './adapters.ts';
export { Device, type DeviceOptions, type Dispatch } from './device.ts';
export { InputError, quote } from './files/errors.ts';
export * from './files/safetensors.ts';
export * from './files/safetensors-writer.ts';
export { type GradientSum, gradientSum, zeroGradients } from './gradients.ts';
export { gridFor } from './grid.ts';
export { type Kernel, loadKernel, type Parameters, parseKernel, specialise } from './kernel.ts';
export { type BufferRange, roundUp } from './memory.ts';
export { openDevice } from './open.ts';
export { type Arena, ParameterSet, type ParameterSpecification, parameter } from './parameters.ts';
export type { DispatchTime, DispatchWork } from './profile.ts';
export { philox, Random, randomStream, streams } from './random.ts';
export { recompute } from './recompute.ts';
export type { ListedBinding, ListedOperation, StepStatistics } from './replay.ts';
export { type CapturedStep, type CaptureOptions, captureStep, type StepInput } from './step.ts';
export { type BackwardRule, backward, record, stopGradient, withoutTape } from './tape.ts';
export {
  bytesPerElement,
  type DataType,
  elementCount,
  emptyTensor,
  formatShape,
  type HostData,
  hostTensor,
  persistentTensor,
  type Shape,
  Tensor,
  type TensorData,
  tensor,
  viewTensor,
  zeroTensor,
} from './tensor.ts';
export type { OnPipeline, ReadyPipeline } from './warm-up.ts';
