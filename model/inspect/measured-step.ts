/** Training steps on random batches, for `insula bench step` and `insula inspect --step`. */
import type { Device, OnPipeline, ReadyPipeline } from '../../engine/index.ts';
import { AdamW } from '../../kernels/index.ts';
import { type ModelConfiguration, windowOf } from '../architecture/configuration.ts';
import type { Inputs } from '../architecture/inputs.ts';
import { Architecture, Model } from '../architecture/model.ts';
import { trainingInputs } from '../architecture/training-pass.ts';
import { configurationOf, PACKED_QUESTIONS, packedQuestions, type System, systemNamed } from '../systems/index.ts';
import { expectAdapted, expectExperts } from '../training/parameter-rules.ts';
import { presetNamed } from '../training/presets.ts';
import { randomBatch } from '../training/random-batch.ts';
import type { RunSettings } from '../training/run-settings.ts';
import { sayingSystem } from '../training/subtask-fitting.ts';
import { type StepSettings, TrainingStep } from '../training/training-step.ts';

/** Sizes and memory settings of a training step that is measured by itself. */
export interface StepSizes extends StepSettings, Partial<Pick<RunSettings, 'precision' | 'moments'>> {
  readonly preset?: string;
  readonly batch?: number;
  /** Prompt tokens; without images. Default: one image, and a prompt as long as those of the built-in world. */
  readonly prompt?: number;
  /** Number of tokens to be predicted. */
  readonly target?: number;
  readonly horizon?: number;
  readonly depth?: number;
  /** The rank of low-rank adaptation. */
  readonly lora?: number;
  /** The experts that it adapts; default: all. */
  readonly 'lora-on'?: string[];
}

const SEED = 1;
const LEARNING_RATE = 1e-3;
/** Number of batches that alternate, so that padding and attention plans differ from step to step. */
const BATCHES = 4;

/** Questions as long as those about the built-in world, and its classes. */
const PACKED = {
  slots: [
    { prompt: 26, answer: 5 },
    { prompt: 9, answer: 3 },
    { prompt: 9, answer: 3 },
    { prompt: 26, answer: 5 },
    { prompt: 9, answer: 4 },
    { prompt: 17, answer: 32 },
  ],
  classes: { kinds: 9, colours: 9 },
};

/** Tokens of a subtask in words, where a system's recipe has one. */
const SUBTASK_TOKENS = 8;

/**
 * The system of a measured step: of training, with the subtask of its recipe, or the packed questions of pretraining.
 *
 * @throws InputError if there is none of this name
 */
export function measuredSystem(name: string, depth: number): System {
  if (name === PACKED_QUESTIONS) return packedQuestions(PACKED.slots, PACKED.classes, depth);
  const system = systemNamed(name);
  return system.recipe?.subtask ? sayingSystem(system, { tokens: SUBTASK_TOKENS, dimension: 0 }) : system;
}

/** @throws InputError if no system or preset has the name, or if its low-rank adaptation has nothing to train */
export function measuredConfiguration(
  system: string,
  {
    preset: presetName = 'tiny',
    prompt,
    target = 24,
    horizon,
    depth,
    lora: rank,
    'lora-on': loraOn,
    precision,
  }: StepSizes,
): ModelConfiguration {
  const preset = presetNamed(presetName);
  const { image, ...vision } = preset.vision;
  const own = depth ?? preset.depth;
  const value = measuredSystem(system, own);
  const configuration = configurationOf(value, {
    ...preset,
    depth: own,
    vocabulary: preset.vocabulary ?? 512,
    vision: prompt === undefined ? { ...vision, imageHeight: image, imageWidth: image, cameras: 1 } : null,
    promptTokens: prompt ?? 32,
    targetTokens: target,
    horizon: horizon ?? value.recipe?.horizon ?? 10,
    actionDimension: 7,
    stateDimension: 7,
    precision,
  });
  if (rank === undefined) return configuration;
  const all = Object.keys(configuration.experts);
  expectExperts({ system, loraOn: loraOn ?? null }, all);
  const lora = { rank: 1, experts: loraOn ?? all };
  expectAdapted({ system, lora: rank, loraOn }, new Architecture({ ...configuration, lora }));
  return { ...configuration, lora: { ...lora, rank } };
}

/** A captured training step with its model and its optimizer. */
export class MeasuredStep implements Disposable {
  readonly tokens: number;
  readonly parameters: number;
  readonly step: TrainingStep;
  private readonly model: Model;
  private readonly optimizer: AdamW;
  private readonly batches: readonly Inputs[];
  /** Pipelines that were compiled for this step, because no earlier step used them. */
  readonly compiled: ReadyPipeline[] = [];
  private readonly accumulate: number;
  private runs = 0;

  constructor(
    device: Device,
    readonly system: string,
    readonly configuration: ModelConfiguration,
    readonly batch: number,
    settings: StepSizes = {},
    onPipeline?: OnPipeline,
  ) {
    this.accumulate = settings.accumulate ?? 1;
    const steps = this.accumulate * batch * windowOf(configuration);
    this.tokens = steps * configuration.blocks.reduce((sum, { length }) => sum + length, 0);
    this.model = new Model(device, configuration);
    this.model.initialise(SEED);
    this.parameters = [...this.model.parameters].reduce((sum, { size }) => sum + size, 0);
    this.optimizer = new AdamW(this.model.parameters, { weightDecay: 1e-4, maximumNorm: 1, moments: settings.moments });
    this.step = new TrainingStep(this.model, this.optimizer, settings, (pipeline, ...counts) => {
      this.compiled.push(pipeline);
      onPipeline?.(pipeline, ...counts);
    });
    this.batches = Array.from({ length: BATCHES }, (_, i) =>
      trainingInputs(this.model.architecture, randomBatch(configuration, batch, SEED, i)),
    );
  }

  /** Captures the step, so that its list can be read, and compiles nothing. */
  capture(): void {
    this.step.capture(this.batches[0]);
  }

  async run(): Promise<void> {
    const batches = Array.from({ length: this.accumulate }, () => this.batches[this.runs++ % BATCHES]);
    await this.step.run(batches, LEARNING_RATE, () => {});
  }

  dispose(): void {
    this.step.dispose();
    this.optimizer.dispose();
    this.model.dispose();
  }
  readonly [Symbol.dispose] = this.dispose;
}
