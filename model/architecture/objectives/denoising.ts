/**
 * Denoising of a block of noisy actions, by flow matching or diffusion: an affine map makes rows of the actions, the transformer runs
 * them, and another affine map reads the prediction from the final hidden states. In acting, each sampling step runs the blocks that see
 * the noisy actions; all others run once.
 */
import type { ParameterSet, Random, Tensor } from '../../../engine/index.ts';
import { reshape } from '../../../kernels/index.ts';
import { type BlockSettings, blockNamed, type ModelConfiguration, timeBlock } from '../configuration.ts';
import { type Inputs, type InputTensors, inputNamed, type TrainingBatch } from '../inputs.ts';
import { Linear } from '../layers.ts';
import { isCopiedWhole } from '../sequence.ts';
import { FlowTime } from '../time.ts';
import { NoisyChunks } from './noisy-chunks.ts';
import type { Acting, Begun, LossResult, Objective, Pass } from './objective.ts';
import { processes } from './process.ts';
import { notDecodable, samplingBlocks, targetsBefore } from './running.ts';
import { type DenoisingSettings, maximumDelayOf } from './settings.ts';

export class Denoising implements Objective {
  readonly name: string;
  readonly weight: number;
  readonly meaning: string;
  readonly layers: readonly Linear[];
  readonly conditioning: readonly FlowTime[];
  readonly blocks: readonly string[];
  readonly acts: 'chunk' | undefined;
  readonly obstacle: string | null;
  readonly makes: readonly string[];
  readonly continues: boolean;
  readonly baseline;
  private readonly block: BlockSettings;
  private readonly chunks: NoisyChunks;
  private readonly time: FlowTime;

  constructor(
    settings: DenoisingSettings,
    private readonly configuration: ModelConfiguration,
  ) {
    const { kind, name, weight, block } = settings;
    this.name = name;
    this.weight = weight;
    this.block = blockNamed(configuration, block);
    this.chunks = new NoisyChunks(name, processes[kind], configuration, this.block.repeats, maximumDelayOf(settings));
    this.continues = this.chunks.continues;
    this.meaning = this.chunks.meaning;
    this.baseline = this.chunks.baseline;
    this.blocks = [block];
    this.makes = [block];
    this.obstacle = notDecodable(configuration, targetsBefore(configuration, this.makes));
    this.acts = this.obstacle ? undefined : 'chunk';
    const { weights } = this.block;
    const { width } = configuration.experts[weights];
    const { actionDimension } = configuration;
    this.layers = [
      new Linear(weights, 'action_in_proj', { outputs: width, inputs: actionDimension }),
      new Linear(weights, 'action_out_proj', { outputs: actionDimension, inputs: width }),
    ];
    this.time = new FlowTime(configuration, this.block, processes[kind].embed);
    this.conditioning = [this.time];
  }

  inputs(batch: TrainingBatch): Inputs {
    return { ...this.chunks.inputs(batch), ...this.time.inputs(batch.time!, this.chunks.delaysOf(batch)) };
  }

  draw(random: (stream: number) => Random, examples: number, first: number) {
    return this.chunks.draw(random, examples, first);
  }

  count(inputs: Inputs): number {
    return this.chunks.count(inputs);
  }

  begin(values: ParameterSet, inputs: InputTensors): Begun & { kept: Record<string, Tensor> } {
    const { noisy, target } = this.chunks.noise(inputs);
    const begun = this.beginFrom(values, noisy, inputs);
    return { ...begun, kept: { noisy, target, ...begun.kept } };
  }

  loss({ values, inputs, rows }: Pass, { noisy, target, ...kept }: Readonly<Record<string, Tensor>>): LossResult {
    const prediction = this.predict(values, rows(this.block.name), noisy.shape[0]);
    return { ...this.chunks.loss(prediction, target, inputs), noisy, target, ...kept };
  }

  /** Blocks that do not depend on the noisy actions run once, as the prefix. */
  async act(acting: Acting): Promise<Float32Array> {
    const { configuration, block, chunks, time } = this;
    const { batch } = acting.observation;
    const blocks = samplingBlocks(configuration, block);
    const running = configuration.blocks.filter(({ name }) => blocks.suffix.includes(name));
    using session = acting.open(blocks);
    if (blocks.prefix.length > 0) await session.prefix(() => {});
    return await chunks.sample(acting, batch, ({ part, x, times, clean, advance }) =>
      session.suffix(
        part,
        time.inputs(times, clean > 0 ? times.map(() => clean) : null, running),
        ({ values, inputs, run }) => {
          const rows = run(this.beginFrom(values, x, inputs));
          return advance(this.predict(values, rows(block.name), batch));
        },
      ),
    );
  }

  /** First rows of the noisy block, and its time, from noisy [chunks, horizon, actionDimension] at the times of the inputs. */
  private beginFrom(values: ParameterSet, noisy: Tensor, inputs: InputTensors) {
    const { configuration, block } = this;
    const { rows, token, condition } = this.time.run(values, this.layers[0].run(values, noisy), inputs);
    const [chunks, , width] = rows.shape;
    const [batch] = inputNamed(inputs, 'validity').shape;
    const joined = (own: Tensor) => (chunks === batch ? own : reshape(own, [batch, own.size / (batch * width), width]));
    const ofTime = token && {
      [timeBlock(configuration)!.name]: isCopiedWhole(configuration, block) ? token : joined(token),
    };
    const kept: Record<string, Tensor> = condition ? { condition } : {};
    const conditions: Begun['conditions'] = condition ? { [block.weights]: condition } : {};
    return { rows: { [block.name]: joined(rows), ...ofTime }, conditions, kept };
  }

  /** hidden, the rows of the block -> the prediction [chunks, horizon, actionDimension] */
  private predict(values: ParameterSet, hidden: Tensor, chunks: number): Tensor {
    const prediction = this.layers[1].run(values, hidden);
    const { horizon, actionDimension } = this.configuration;
    return hidden.shape[0] === chunks ? prediction : reshape(prediction, [chunks, horizon, actionDimension]);
  }
}
