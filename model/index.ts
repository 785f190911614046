/**
 * Vision-language-action models: architectures, named systems, data, training and policies. A model of one's own is a configuration: its
 * experts, its blocks in the order of tokens, who attends to whom, and its losses. Here the state is a token of an action expert that is
 * insulated from the backbone. One training step on a random batch, then a chunk of actions:
 *
 * ```ts
 * import { openDevice } from 'insula/engine';
 * import { AdamW, causal, full, insulated } from 'insula/kernels';
 * import { act, Model, type ModelConfiguration, randomBatch, trainingInputs, TrainingStep } from 'insula/model';
 *
 * const given = { language: full };
 * const attention = {
 *   language: given,
 *   target: { ...given, target: causal },
 *   state: { language: insulated, state: full },
 *   action: { language: insulated, state: full, action: full },
 * };
 * const configuration: ModelConfiguration = {
 *   backbone: 'gemma',
 *   vocabulary: 256,
 *   experts: { backbone: { width: 64, hidden: 128 }, expert: { width: 32, hidden: 64, adaptive: true } },
 *   depth: 2, heads: 4, kvHeads: 1, headDimension: 16,
 *   vision: null,
 *   horizon: 8, actionDimension: 7, stateDimension: 7,
 *   blocks: [
 *     { name: 'language', input: 'prompt', weights: 'backbone', length: 16, after: [] },
 *     { name: 'target', input: 'target', weights: 'backbone', length: 12, after: ['language'] },
 *     { name: 'state', input: 'state', weights: 'expert', length: 1, after: ['language'] },
 *     { name: 'action', input: 'noisyActions', weights: 'expert', length: 8, after: ['language', 'state'] },
 *   ],
 *   edges: Object.entries(attention).flatMap(([query, row]) => Object.entries(row).map(([key, edge]) => ({ query, key, edge }))),
 *   objectives: [
 *     { kind: 'nextToken', name: 'token', weight: 1 },
 *     { kind: 'flow', name: 'flow', weight: 1, block: 'action' },
 *   ],
 * };
 * const device = await openDevice();
 * const model = new Model(device, configuration);
 * model.initialise(0);
 * const step = new TrainingStep(model, new AdamW(model.parameters, { maximumNorm: 1 }));
 * const batch = randomBatch(configuration, 4, 0);
 * const losses: Promise<Float32Array>[] = [];
 * await step.run([trainingInputs(model.architecture, batch)], 1e-3, ({ token, flow }) => losses.push(token.read(), flow.read()));
 * console.log('losses', ...(await Promise.all(losses)));
 * const actions = await act(model, batch, { noise: new Float32Array(4 * 8 * 7) });
 * console.log(actions!.length, 'normalised numbers');
 * device.close();
 * ```
 *
 * `systemTables` shows who attends to whom, and `withTable` changes it; `attentionMaps` measures how much, and `gradientFlow` and
 * `interference` what the losses send to which weights.
 * `trainingPass` is the forward pass alone, `configurationOf` makes the configuration of a named system, and `prepareRun` and `runTraining`
 * are `insula train`. `preparePretraining` and `runPretraining` are `insula pretrain`, and `openStart('tiny')` opens a shipped model.
 * `openPublicPolicy` reads a pi0 or pi0.5 of openpi or LeRobot, and `writeLeRobotPolicy` writes one for LeRobot.
 */

export type { Backbone, BackboneName, BackboneVariant } from './architecture/backbones/index.ts';
export { loadLlama } from './architecture/backbones/llama-weights.ts';
export * from './architecture/configuration.ts';
export * from './architecture/inputs.ts';
export { Architecture, Model } from './architecture/model.ts';
export * from './architecture/objectives/index.ts';
export { type TrainingPass, trainingInputs, trainingPass } from './architecture/training-pass.ts';
export type * from './data/dataset.ts';
export * from './data/index.ts';
export { withTable } from './inspect/attention-file.ts';
export * from './inspect/attention-maps.ts';
export * from './inspect/gradient-flow.ts';
export * from './inspect/interference.ts';
export * from './inspect/layer-probes.ts';
export * from './inspect/linear-probe.ts';
export { lossGradients, type ModelPart, partsOf } from './inspect/loss-gradients.ts';
export * from './inspect/step-reading.ts';
export * from './inspect/subject.ts';
export * from './inspect/swapped.ts';
export * from './inspect/system-tables.ts';
export { type ActOptions, act, type SamplingOptions } from './policy/acting.ts';
export type { DecodeCounts } from './policy/decodes.ts';
export { Encoding, type EncodingSettings, type RawObservation } from './policy/encoding.ts';
export * from './policy/execution.ts';
export { Policy } from './policy/policy.ts';
export { PolicySession } from './policy/session.ts';
export * from './systems/index.ts';
export * from './training/augmentation.ts';
export * from './training/checkpoint.ts';
export * from './training/deltas.ts';
export type { Losses, RunHistory } from './training/history.ts';
export * from './training/image-questions.ts';
export { leRobotType, writeLeRobotPolicy } from './training/lerobot-policy.ts';
export { type MemoryGiven, type MemoryPlan, memoryPlan } from './training/memory-plan.ts';
export * from './training/named-images.ts';
export type { Pack, PackedQuestion, PackSource, Thing } from './training/packs.ts';
export { type PreparedRun, prepareRun, type RunListener, type RunOptions } from './training/prepare-run.ts';
export { type Preset, presetNamed, presets } from './training/presets.ts';
export {
  type PretrainingResult,
  preparePretraining,
  pretrainingSettings,
  runPretraining,
} from './training/pretrain.ts';
export { openPublicPolicy, type PublicPolicyOptions } from './training/public-policy.ts';
export * from './training/question-file.ts';
export { randomBatch } from './training/random-batch.ts';
export { type RunResult, runTraining, type TrainOptions } from './training/run.ts';
export { type RunSettings, runSettings } from './training/run-settings.ts';
export { beginFrom, openPublicStart, openStart, type Start } from './training/start.ts';
export * from './training/tokenizer-chunks.ts';
export { Trainer } from './training/trainer.ts';
export { type LossTensors, type StepSettings, TrainingStep } from './training/training-step.ts';
export * from './training/vision-language-file.ts';
