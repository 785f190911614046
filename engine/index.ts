/// <reference lib="esnext.disposable" preserve="true" />
export * from './adapters.ts';
export { DeviceLostError, OutOfMemoryError } from './async-errors.ts';
export type { Dispatch } from './commands.ts';
export { Device } from './device.ts';
export type { DeviceOptions } from './device-options.ts';
export { InputError, quote } from './files/errors.ts';
export * from './files/safetensors.ts';
export {
  byteLength,
  type TensorArray,
  type TensorEntry,
  type TensorType,
  tensorArrays,
} from './files/safetensors-header.ts';
export * from './files/safetensors-writer.ts';
export { type GradientSum, gradientSum, zeroGradients } from './gradients.ts';
export { gridFor } from './grid.ts';
export { type Kernel, loadedKernels, loadKernel, type Parameters, parseKernel, specialise } from './kernel.ts';
export { freeMachineBytes } from './machine-memory.ts';
export { ALIGNMENT, type BufferRange, roundUp } from './memory.ts';
export { openDevice } from './open.ts';
export { type Arena, ParameterSet, type ParameterSpecification, parameter } from './parameters.ts';
export { planningDevice } from './planning.ts';
export type { DispatchTime, DispatchWork } from './profile.ts';
export { philox, Random, randomStream, streams } from './random.ts';
export { recompute } from './recompute.ts';
export type { Phase } from './recorder.ts';
export type { ListedBinding, ListedOperation, StepStatistics } from './replay.ts';
export { joinNumbers, readPieces, SplitTensor, writePieces } from './split-tensor.ts';
export { type CapturedStep, type CaptureOptions, captureStep, type StepInput } from './step.ts';
export { type BackwardRule, backward, observeOps, record, stopGradient, withoutTape } from './tape.ts';
export * from './tensor.ts';
export type { OnPipeline, ReadyPipeline } from './warm-up.ts';
