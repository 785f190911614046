export { loadLlama } from './architecture/backbones/llama-weights.ts';
export * from './architecture/configuration.ts';
export * from './architecture/inputs.ts';
export { Architecture, Model } from './architecture/model.ts';
export * from './architecture/objectives/index.ts';
export { type TrainingPass, trainingInputs, trainingPass } from './architecture/training-pass.ts';
export type * from './data/dataset.ts';
export * from './data/index.ts';
export { act, type SamplingOptions } from './policy/acting.ts';
export { Encoding, type EncodingSettings, type RawObservation } from './policy/encoding.ts';
export { type ActOptions, Policy } from './policy/policy.ts';
export * from './systems/index.ts';
export {
  type Checkpoint,
  type CheckpointSettings,
  exportCheckpoint,
  openCheckpoint,
  saveCheckpoint,
} from './training/checkpoint.ts';
export type { Losses, RunHistory } from './training/history.ts';
export { type PreparedRun, prepareRun, type RunListener, type RunOptions } from './training/prepare-run.ts';
export { type Preset, presetNamed, presets } from './training/presets.ts';
export { randomBatch } from './training/random-batch.ts';
export { type RunResult, runTraining, type TrainOptions } from './training/run.ts';
export { type RunSettings, runSettings } from './training/run-settings.ts';
export { Trainer } from './training/trainer.ts';
export { type LossTensors, type StepSettings, TrainingStep } from './training/training-step.ts';
