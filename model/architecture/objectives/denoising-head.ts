/** Denoising by a head: the transformer runs once, and a small network on its features denoises the chunk again and again. */
import type { ParameterSet, Random, Tensor } from '../../../engine/index.ts';
import { reshape, swish } from '../../../kernels/index.ts';
import { type ModelConfiguration, windowOf } from '../configuration.ts';
import { type Trunk, trunkOf } from '../heads/trunk.ts';
import { floats, type Inputs, type InputTensors, inputNamed, type TrainingBatch } from '../inputs.ts';
import { type Layer, LayerNorm, Linear, parametersOfLayers } from '../layers.ts';
import { NoisyChunks } from './noisy-chunks.ts';
import type { Acting, LossResult, Objective, Pass } from './objective.ts';
import { type Process, processes } from './process.ts';
import { readBlocks, rowCount, rowsOfPass, rowWidth } from './rows.ts';
import { blocksRun, notDecodable, targetsBefore } from './running.ts';
import type { DenoisingHeadSettings } from './settings.ts';

export class DenoisingHead implements Objective {
  readonly name: string;
  readonly weight: number;
  readonly meaning: string;
  readonly layers: readonly Layer[];
  readonly reads: readonly string[];
  readonly blocks: readonly string[];
  readonly acts: 'chunk' | undefined;
  readonly obstacle: string | null;
  readonly makes: readonly string[];
  readonly continues: boolean;
  readonly baseline;
  private readonly chunks: NoisyChunks;
  private readonly process: Process;
  private readonly trunk: Trunk | null;
  private readonly denoiser: Denoiser;

  constructor(
    private readonly settings: DenoisingHeadSettings,
    private readonly configuration: ModelConfiguration,
  ) {
    const { name, weight, rows, trunk, process, width = 256, layers = 3 } = settings;
    this.name = name;
    this.weight = weight;
    this.process = processes[process];
    this.chunks = new NoisyChunks(name, this.process, configuration);
    this.continues = this.chunks.continues;
    this.meaning = this.chunks.meaning;
    this.baseline = this.chunks.baseline;
    const { reads, blocks } = readBlocks(configuration, rows);
    this.reads = reads;
    this.makes = reads;
    this.blocks = blocks;
    this.obstacle = notDecodable(configuration, targetsBefore(configuration, this.makes));
    this.acts = this.obstacle ? undefined : 'chunk';
    const { width: rowSize, group } = rowWidth(configuration, rows);
    const inputs = rowCount(configuration, rows) * rowSize;
    this.trunk = trunk ? trunkOf(group, trunk, inputs, windowOf(configuration)) : null;
    const { horizon, actionDimension } = configuration;
    const sizes = { features: this.trunk?.outputs ?? inputs, elements: horizon * actionDimension, width, layers };
    this.denoiser = new Denoiser(group, sizes);
    this.layers = this.trunk ? [this.trunk, this.denoiser] : [this.denoiser];
  }

  inputs(batch: TrainingBatch): Inputs {
    return { ...this.chunks.inputs(batch), ...this.timeInputs(batch.time!) };
  }

  draw(random: (stream: number) => Random, examples: number, first: number) {
    return this.chunks.draw(random, examples, first);
  }

  count(inputs: Inputs): number {
    return this.chunks.count(inputs);
  }

  loss({ values, inputs, ...pass }: Pass): LossResult {
    const { noisy, target } = this.chunks.noise(inputs);
    const features = this.features(values, rowsOfPass(pass, this.settings.rows));
    const prediction = this.predict(values, features, noisy, inputs);
    return { ...this.chunks.loss(prediction, target, inputs), noisy, target };
  }

  /** One pass of the model, and one of the head for each step. */
  async act(acting: Acting): Promise<Float32Array> {
    const { configuration, settings, chunks } = this;
    const { rows } = settings;
    if (!('block' in rows)) throw new Error(`the ${this.name} loss reads a vision tower, and does not act`);
    const prefix = blocksRun(configuration, this.makes).map(({ name }) => name);
    using session = acting.open({ prefix, suffix: [] });
    const features = await session.prefix((own, values) =>
      this.features(values, own(rows.block, { layer: rows.layer })),
    );
    const actions = await chunks.sample(acting, acting.observation.batch, ({ part, x, times, advance }) =>
      session.head(part, this.timeInputs(times), (values, inputs) =>
        advance(this.predict(values, features, x, inputs)),
      ),
    );
    features.dispose();
    return actions;
  }

  private timeInputs(times: ArrayLike<number>): Inputs {
    const { width } = this.denoiser;
    return { [`${this.name}/timeEmbedding`]: floats(this.process.embed(times, width), [times.length, width]) };
  }

  /** feature_proj f: the rows [batch, rows, width] of control steps, through the trunk if there is one -> [batch, width of the network] */
  private features(values: ParameterSet, rows: Tensor): Tensor {
    const { trunk, denoiser } = this;
    const [batch] = rows.shape;
    const window = windowOf(this.configuration);
    const given = reshape(rows, [batch / window, window, rows.size / batch]);
    const features = trunk ? trunk.run(values, given) : given;
    return denoiser.project(values, reshape(features, [batch, features.size / batch]));
  }

  private predict(values: ParameterSet, features: Tensor, noisy: Tensor, inputs: InputTensors): Tensor {
    const [chunks] = noisy.shape;
    const flat = reshape(noisy, [chunks, noisy.size / chunks]);
    const prediction = this.denoiser.run(values, features, flat, inputNamed(inputs, `${this.name}/timeEmbedding`));
    return reshape(prediction, noisy.shape);
  }
}

interface DenoiserSizes extends Readonly<Record<'features' | 'elements' | 'width' | 'layers', number>> {}

/**
 * A residual MLP, like the diffusion head of Octo (Octo Model Team 2024, arXiv 2405.12213). With z = swish, from the features f of a
 * control step, its noisy chunk x [horizon * actionDimension] and the embedding e [width] of the time of x (`Process.embed`):
 *
 *   h = feature_proj f + action_in_proj x + time_mlp_out z(time_mlp_in e)
 *   h = h + blocks.i.fc2 z(blocks.i.fc1 LayerNorm(h))             for each layer i, of inner width 4 width, epsilon 1e-6
 *   prediction = action_out_proj z(h)                             [horizon * actionDimension], of the shape of the chunk
 *
 * Every map is affine. Its parameters have this name behind `policy_head.denoiser.`; the LayerNorm of layer i is `blocks.i.norm`.
 */
class Denoiser implements Layer {
  readonly parameters;
  readonly width: number;
  private readonly feature: Linear;
  private readonly noisy: Linear;
  private readonly time: readonly [Linear, Linear];
  private readonly blocks: readonly { readonly norm: LayerNorm; readonly up: Linear; readonly down: Linear }[];
  private readonly last: Linear;

  constructor(group: string, { features, elements, width, layers }: DenoiserSizes) {
    const at = 'policy_head.denoiser';
    const linear = (name: string, outputs: number, inputs: number) =>
      new Linear(group, `${at}.${name}`, { outputs, inputs });
    this.width = width;
    this.feature = linear('feature_proj', width, features);
    this.noisy = linear('action_in_proj', width, elements);
    this.time = [linear('time_mlp_in', width, width), linear('time_mlp_out', width, width)];
    this.blocks = Array.from({ length: layers }, (_, i) => ({
      norm: new LayerNorm(group, `${at}.blocks.${i}.norm`, width),
      up: linear(`blocks.${i}.fc1`, 4 * width, width),
      down: linear(`blocks.${i}.fc2`, width, 4 * width),
    }));
    this.last = linear('action_out_proj', elements, width);
    const blocks = this.blocks.flatMap(({ norm, up, down }) => [norm, up, down]);
    this.parameters = parametersOfLayers([this.feature, this.noisy, ...this.time, ...blocks, this.last]);
  }

  /** The part of the features [batch, features] in h: [batch, width] */
  project(values: ParameterSet, features: Tensor): Tensor {
    return this.feature.run(values, features);
  }

  /** projected features [batch, width], noisy [batch, elements], time [batch, width] -> [batch, elements] */
  run(values: ParameterSet, features: Tensor, noisy: Tensor, time: Tensor): Tensor {
    const [first, second] = this.time;
    const inner = first.run(values, time, { activation: 'swish' });
    let h = second.run(values, inner, { residual: this.noisy.run(values, noisy, { residual: features }) });
    for (const { norm, up, down } of this.blocks)
      h = down.run(values, up.run(values, norm.run(values, h), { activation: 'swish' }), { residual: h });
    return this.last.run(values, swish(h));
  }
}
