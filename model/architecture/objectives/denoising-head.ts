/** Denoising by a head: the transformer runs once, and a small network on its features denoises the chunk again and again. */
import type { ParameterSet, Tensor } from '../../../engine/index.ts';
import { reshape, swish } from '../../../kernels/index.ts';
import { type ModelConfiguration, windowOf } from '../configuration.ts';
import { trunkOf } from '../heads/trunk.ts';
import { floats, type Inputs, type InputTensors, inputNamed } from '../inputs.ts';
import { LayerNorm, Linear, parametersOfLayers } from '../layers.ts';
import { NoisyChunks } from './noisy-chunks.ts';
import type { Objective } from './objective.ts';
import { processes } from './process.ts';
import { readBlocks, rowCount, rowsOfPass, rowWidth } from './rows.ts';
import { blocksRun, chunkMaker } from './running.ts';
import type { DenoisingHeadSettings } from './settings.ts';

export function denoisingHead(settings: DenoisingHeadSettings, configuration: ModelConfiguration): Objective {
  const { name, weight, rows, layers = 3 } = settings;
  const { horizon, actionDimension } = configuration;
  const process = processes[settings.process];
  const chunks = new NoisyChunks(name, process, configuration);
  const read = readBlocks(configuration, rows);
  const { width: rowSize, group } = rowWidth(configuration, rows);
  const window = windowOf(configuration);
  const inputs = rowCount(configuration, rows) * rowSize;
  const trunk = settings.trunk ? trunkOf(group, settings.trunk, inputs, window) : null;
  const features = trunk?.outputs ?? inputs;
  const { width = Math.max(4, 2 * Math.ceil(features / 2)) } = settings;
  const sizes = { features, elements: horizon * actionDimension, width, layers };
  const denoiser = denoiserOf(group, sizes);

  const timeInputs = (times: ArrayLike<number>): Inputs => ({
    [`${name}/timeEmbedding`]: floats(process.embed(times, width), [times.length, width]),
  });
  /** feature_proj f: the rows [batch, rows, width] of control steps, through the trunk if there is one -> [batch, width of the network] */
  const featuresOf = (values: ParameterSet, own: Tensor) => {
    const [batch] = own.shape;
    const given = reshape(own, [batch / window, window, own.size / batch]);
    const features = trunk ? trunk.run(values, given) : given;
    return denoiser.project(values, reshape(features, [batch, features.size / batch]));
  };
  const predict = (values: ParameterSet, features: Tensor, noisy: Tensor, inputs: InputTensors) => {
    const [chunks] = noisy.shape;
    const flat = reshape(noisy, [chunks, noisy.size / chunks]);
    const prediction = denoiser.run(values, features, flat, inputNamed(inputs, `${name}/timeEmbedding`));
    return reshape(prediction, noisy.shape);
  };

  return {
    ...{ name, weight, layers: trunk ? [trunk, denoiser] : [denoiser] },
    ...chunks.ofObjective(),
    ...read,
    ...chunkMaker(configuration, read.reads),
    inputs: (batch) => ({ ...chunks.inputs(batch), ...timeInputs(batch.time!) }),
    loss({ values, inputs, ...pass }) {
      const { noisy, target } = chunks.noise(inputs);
      const features = featuresOf(values, rowsOfPass(pass, rows));
      return { ...chunks.loss(predict(values, features, noisy, inputs), target, inputs), noisy, target };
    },
    /** One pass of the model, and one of the head for each step. */
    async act(acting) {
      const prefix = blocksRun(configuration, read.reads).map(({ name }) => name);
      using session = acting.open({ prefix, suffix: [] });
      const features = await session.prefix((own, values) => featuresOf(values, rowsOfPass({ rows: own }, rows)));
      const actions = await chunks.sample(acting, acting.observation.batch, ({ part, x, times, advance }) =>
        session.head(part, timeInputs(times), (values, inputs) => advance(predict(values, features, x, inputs))),
      );
      features.dispose();
      return actions;
    },
  };
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
function denoiserOf(group: string, { features, elements, width, layers }: DenoiserSizes) {
  const at = 'policy_head.denoiser';
  const linear = (name: string, outputs: number, inputs: number) =>
    new Linear(group, `${at}.${name}`, { outputs, inputs });
  const [ofFeatures, ofChunk] = [linear('feature_proj', width, features), linear('action_in_proj', width, elements)];
  const [first, second] = [linear('time_mlp_in', width, width), linear('time_mlp_out', width, width)];
  const blocks = Array.from(
    { length: layers },
    (_, i) =>
      [
        new LayerNorm(group, `${at}.blocks.${i}.norm`, width),
        linear(`blocks.${i}.fc1`, 4 * width, width),
        linear(`blocks.${i}.fc2`, width, 4 * width),
      ] as const,
  );
  const last = linear('action_out_proj', elements, width);
  return {
    parameters: parametersOfLayers([ofFeatures, ofChunk, first, second, ...blocks.flat(), last]),
    /** The part of the features [batch, features] in h: [batch, width] */
    project: (values: ParameterSet, own: Tensor): Tensor => ofFeatures.run(values, own),
    /** projected features [batch, width], noisy [batch, elements], time [batch, width] -> [batch, elements] */
    run(values: ParameterSet, projected: Tensor, noisy: Tensor, time: Tensor): Tensor {
      const inner = first.run(values, time, { activation: 'swish' });
      let h = second.run(values, inner, { residual: ofChunk.run(values, noisy, { residual: projected }) });
      for (const [norm, up, down] of blocks)
        h = down.run(values, up.run(values, norm.run(values, h), { activation: 'swish' }), { residual: h });
      return last.run(values, swish(h));
    },
  };
}
