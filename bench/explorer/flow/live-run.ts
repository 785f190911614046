/** `insula train` step by step, to be watched and changed on the way: edges of the attention table are cut, opened or scaled between two steps. */
import { memorySource } from '../../../engine/files/bytes.ts';
import { type Device, InputError, type OnPipeline, quote } from '../../../engine/index.ts';
import { AdamW } from '../../../kernels/index.ts';
import { type BlockInput, type ModelConfiguration, sourceOf } from '../../../model/architecture/configuration.ts';
import type { Inputs } from '../../../model/architecture/inputs.ts';
import { Model } from '../../../model/architecture/model.ts';
import { trainingInputs } from '../../../model/architecture/training-pass.ts';
import type { Dataset, Episode } from '../../../model/data/dataset.ts';
import { type EpisodePart, type Example, wholeEpisodes } from '../../../model/data/index.ts';
import { attentionMaps, picturesOf, tokenTexts } from '../../../model/inspect/attention-maps.ts';
import { type FlowCell, type GradientFlow, gradientFlow } from '../../../model/inspect/gradient-flow.ts';
import { interference } from '../../../model/inspect/interference.ts';
import { lossGradients } from '../../../model/inspect/loss-gradients.ts';
import { Policy } from '../../../model/policy/policy.ts';
import { type System, systemNamed, withSubtask } from '../../../model/systems/index.ts';
import { BatchMaker, type MadeBatch } from '../../../model/training/batches.ts';
import { exampleSampler } from '../../../model/training/co-training.ts';
import type { Losses } from '../../../model/training/history.ts';
import { readOutcome, skipReason } from '../../../model/training/measuring.ts';
import { type PreparedRun, prepareRun, type RunListener } from '../../../model/training/prepare-run.ts';
import { presetNamed } from '../../../model/training/presets.ts';
import { recommendedSettings } from '../../../model/training/recommended.ts';
import { learningRateAt } from '../../../model/training/schedule.ts';
import { begunModel, openStart } from '../../../model/training/start.ts';
import type { ExampleSampler } from '../../../model/training/trainer.ts';
import { TrainingStep } from '../../../model/training/training-step.ts';
import { openVisionLanguageModel } from '../../../model/training/vision-language-file.ts';

/** Factors from 0 to 1 of the gradient that passes edges, named `query/key`, in place of the system's own. */
export type EdgeFactors = Readonly<Record<string, number>>;

export interface LiveSettings {
  /** A file of a vision-language model to begin from, in place of the shipped one of the preset. */
  readonly start: File | null;
  readonly system: string;
  readonly preset: string;
  readonly seed: number;
  readonly batch: number;
}

/** A system as it is trained here: it says the places of things before it acts, if it can say any. Its blocks and edges are those of the run. */
export function trainedSystem(name: string): System {
  const system = systemNamed(name);
  return withSubtask(system, { tokens: 1, dimension: 1 }) ?? system;
}

/** @throws InputError if an edge is named through which the model does not attend */
export function withEdges(configuration: ModelConfiguration, factors: EdgeFactors): ModelConfiguration {
  const left = new Set(Object.keys(factors));
  const edges = configuration.edges.map(({ query, key, edge }) => {
    const name = edgeName(query, key);
    const factor = edge.mask === 'none' || !left.delete(name) ? null : factors[name];
    return { query, key, edge: factor === null ? edge : { ...edge, keyGradient: factor, valueGradient: factor } };
  });
  const [unknown] = left;
  if (unknown !== undefined) throw new InputError(`${quote(unknown)}: this system has no such edge`);
  return { ...configuration, edges };
}

export const edgeName = (query: string, key: string) => `${query}/${key}`;

interface MadeInputs {
  readonly batch: MadeBatch;
  readonly inputs: Inputs;
}

/** A run that is watched. All of its work on the device takes turns with other work there. */
export class LiveRun implements Disposable {
  /** Training steps done. */
  done = 0;
  /** The losses of each step. */
  readonly losses: Losses[] = [];
  /** The data that the run trains on. */
  readonly policy: Policy;
  private readonly maker: BatchMaker;
  private readonly optimizer: AdamW;
  private readonly parts: EpisodePart[];
  private sampler: ExampleSampler<Example>;
  private next: { readonly step: number; readonly made: Promise<MadeInputs> } | null = null;
  private current: { readonly model: Model; readonly step: TrainingStep };
  /** What was measured last with these edges. */
  private measured: GradientFlow['losses'] | null = null;

  private constructor(
    private readonly prepared: PreparedRun,
    private readonly own: Model,
    private readonly onPipeline?: OnPipeline,
  ) {
    const { settings, encoding, configuration, split } = prepared;
    const { weightDecay, maximumNorm } = settings.preset;
    this.policy = new Policy(own, encoding);
    this.maker = new BatchMaker(encoding, configuration, settings);
    this.optimizer = new AdamW(own.parameters, { weightDecay, maximumNorm, seed: settings.seed });
    this.parts = [...split.train];
    this.sampler = exampleSampler(split, settings);
    this.current = this.with(own);
  }

  /**
   * The run of a system with the defaults of `insula train`, from the given vision-language model, or the shipped one of the preset's sizes
   * if there is one.
   *
   * @throws InputError if the system cannot be trained so, or the file holds no such model, or one of other sizes
   */
  static async begin(
    device: Device,
    { preset, start, ...given }: LiveSettings,
    dataset: Dataset,
    onPipeline?: OnPipeline,
  ): Promise<LiveRun> {
    const settings = recommendedSettings({
      ...{ ...given, preset: presetNamed(preset), cotrain: 0 },
      ...(start && { from: start.name }),
    });
    const from = start
      ? await openVisionLanguageModel(memorySource(start, start.name))
      : settings.from === null
        ? undefined
        : await openStart(settings.from);
    try {
      const listener = { note() {} } as unknown as RunListener;
      const prepared = await prepareRun({ settings, dataset, from, listener });
      const model = await begunModel(device, prepared.configuration, settings.seed, from);
      return new LiveRun(prepared, model, onPipeline);
    } finally {
      await from?.close();
    }
  }

  /** The model with the edges that it is trained with now. */
  get model(): Model {
    return this.current.model;
  }

  /** The system's own edges. */
  get configuration(): ModelConfiguration {
    return this.own.configuration;
  }

  /** Other episodes to train on from the next step on. Statistics and action tokens stay those that were fitted first. */
  add(episodes: readonly Episode[]): void {
    this.parts.push(...wholeEpisodes(episodes));
    this.next = null;
    this.sampler = exampleSampler({ ...this.prepared.split, train: this.parts }, this.prepared.settings);
  }

  /** Trains on with these edges: the step is captured anew on the same weights and the same state of the optimizer. */
  async useEdges(factors: EdgeFactors): Promise<void> {
    const configuration = withEdges(this.own.configuration, factors);
    this.measured = null;
    this.current.step.dispose();
    this.current = this.with(new Model(this.own.device, configuration, this.own.parameters));
    await this.prepare();
  }

  /** Captures the step and compiles its kernels. */
  async prepare(): Promise<void> {
    await this.current.step.prepare((await this.nextBatch()).inputs);
  }

  /** One training step. @throws InputError if a loss or a gradient is not finite; then nothing has changed */
  async step(): Promise<Losses> {
    const { steps, preset } = this.prepared.settings;
    const { inputs } = await this.nextBatch();
    const rate = learningRateAt(this.done, { peak: preset.learningRate, warmUpSteps: preset.warmUpSteps, steps });
    let reading: ReturnType<typeof readOutcome> | undefined;
    await this.current.step.run([inputs], rate, (losses) => {
      reading = readOutcome(losses, this.optimizer.gradientNorms);
    });
    const { losses, norms } = await reading!;
    if (!norms.usable)
      throw new InputError(`training step ${this.done + 1} was skipped: ${skipReason([losses], norms)}`);
    this.done += 1;
    this.losses.push(losses);
    return losses;
  }

  /**
   * Gradient norms by loss and part, and cosines between losses, on the batch of the next step; with `reasons` those of every zero. Without
   * them, a zero that is still one keeps the reason that was found for it.
   */
  async gradients(reasons = false) {
    const { inputs } = await this.nextBatch();
    const gradients = await lossGradients(this.model, inputs);
    const { pairs, settings } = await interference(this.model, inputs, { factors: [], gradients });
    const flow = await gradientFlow(this.model, inputs, { reasons, gradients });
    const before = this.measured;
    const reasoned = (loss: string, own: FlowCell, i: number): FlowCell =>
      own.isZero && own.causes === null ? { ...own, causes: before?.[loss][i].causes ?? null } : own;
    const losses = Object.fromEntries(
      Object.entries(flow.losses).map(([loss, cells]) => [loss, cells.map((own, i) => reasoned(loss, own, i))]),
    );
    this.measured = losses;
    const cosines = pairs.map((names, i) => ({ names, cells: settings[0].pairs[i] }));
    return { step: this.done, ...flow, losses, pairs: cosines };
  }

  /** Where the rows look in the first example of the next step: the maps, the picture that the model gets, and its words. */
  async attention() {
    const { inputs, batch } = await this.nextBatch();
    const { configuration } = this.model;
    const maps = await attentionMaps(this.model, inputs);
    const [picture] = picturesOf(configuration, batch, 0);
    const blockOf = (kind: BlockInput) => configuration.blocks.find(({ input }) => input === kind)!;
    const ids = batch.ids[sourceOf(blockOf('prompt'))];
    const rows = Array.from({ length: blockOf('prompt').length }, (_, row) => row).filter((row) => ids.valid[row]);
    const texts = tokenTexts(this.policy.encoding, ids, batch.batch, 0);
    /** The prompt's tokens, each with its row. */
    const words = texts.map((text, i) => ({ text, row: rows[i] }));
    const blocks = { images: blockOf('images').name, prompt: blockOf('prompt').name };
    return { step: this.done, configuration, maps, picture: picture!, words, blocks };
  }

  dispose(): void {
    this.current.step.dispose();
    this.optimizer.dispose();
    this.own.dispose();
  }
  readonly [Symbol.dispose] = this.dispose;

  private with(model: Model) {
    const { settings } = this.prepared;
    return { model, step: new TrainingStep(model, this.optimizer, settings, this.onPipeline) };
  }

  /** The batch of the next step, which is measured, looked at and trained on. */
  private nextBatch(): Promise<MadeInputs> {
    if (this.next?.step !== this.done) {
      const made = this.makeBatch();
      this.next = { step: this.done, made };
      made.catch(() => {
        this.next = null; // so that another try makes it again
      });
    }
    return this.next.made;
  }

  private async makeBatch(): Promise<MadeInputs> {
    const examples = this.sampler.batch(this.done, this.prepared.settings.batch);
    const batch = await this.maker.make(examples, this.done, { use: 'training' });
    return { batch, inputs: trainingInputs(this.own.architecture, batch) };
  }
}

export type LiveGradients = Awaited<ReturnType<LiveRun['gradients']>>;
export type LiveAttention = Awaited<ReturnType<LiveRun['attention']>>;
