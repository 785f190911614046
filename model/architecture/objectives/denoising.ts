/**
 * Denoising of a block of noisy actions, by flow matching or diffusion: an affine map makes rows of the actions, the transformer runs
 * them, and another affine map reads the prediction from the final hidden states. In acting, each sampling step runs the blocks that see
 * the noisy actions; all others run once.
 */
import type { ParameterSet, Tensor } from '../../../engine/index.ts';
import { reshape } from '../../../kernels/index.ts';
import { blockNamed, type ModelConfiguration, timeBlock } from '../configuration.ts';
import { type InputTensors, inputNamed } from '../inputs.ts';
import { Linear } from '../layers.ts';
import { isCopiedWhole } from '../sequence.ts';
import { flowTime } from '../time.ts';
import { NoisyChunks } from './noisy-chunks.ts';
import type { Begun, Objective } from './objective.ts';
import { processes } from './process.ts';
import { chunkMaker, samplingBlocks } from './running.ts';
import { type DenoisingSettings, maximumDelayOf } from './settings.ts';

export function denoising(settings: DenoisingSettings, configuration: ModelConfiguration): Objective {
  const { kind, name, weight } = settings;
  const { experts, actionDimension } = configuration;
  const block = blockNamed(configuration, settings.block);
  const { width } = experts[block.weights];
  const chunks = new NoisyChunks(name, processes[kind], configuration, block.repeats, maximumDelayOf(settings));
  const time = flowTime(configuration, block, processes[kind].embed);
  const first = new Linear(block.weights, 'action_in_proj', { outputs: width, inputs: actionDimension });
  const last = new Linear(block.weights, 'action_out_proj', { outputs: actionDimension, inputs: width });

  /** First rows of the noisy block, and its time, from noisy [chunks, horizon, actionDimension] at the times of the inputs. */
  const beginFrom = (values: ParameterSet, noisy: Tensor, inputs: InputTensors) => {
    const { rows, token, condition } = time.run(values, first.run(values, noisy), inputs);
    const [chunks, , width] = rows.shape;
    const [batch] = inputNamed(inputs, 'validity').shape;
    const joined = (own: Tensor) => (chunks === batch ? own : reshape(own, [batch, own.size / (batch * width), width]));
    const ofTime = token && {
      [timeBlock(configuration)!.name]: isCopiedWhole(configuration, block) ? token : joined(token),
    };
    const conditions: Begun['conditions'] = condition ? { [block.weights]: condition } : {};
    return { rows: { [block.name]: joined(rows), ...ofTime }, conditions };
  };
  const predict = (values: ParameterSet, hidden: Tensor, shape: readonly number[]) => {
    const prediction = last.run(values, hidden);
    return hidden.shape[0] === shape[0] ? prediction : reshape(prediction, shape);
  };

  return {
    ...{ name, weight, layers: [first, last], conditioning: [time], blocks: [block.name] },
    ...chunks.ofObjective(),
    ...chunkMaker(configuration, [block.name]),
    inputs: (batch) => ({ ...chunks.inputs(batch), ...time.inputs(batch.time!, chunks.delaysOf(batch)) }),
    begin(values, inputs) {
      const { noisy, target } = chunks.noise(inputs);
      const begun = beginFrom(values, noisy, inputs);
      const condition = begun.conditions[block.weights];
      return { ...begun, kept: { noisy, target, ...(condition && { condition }) } };
    },
    loss({ values, inputs, rows }, { noisy, target, ...kept }) {
      const prediction = predict(values, rows(block.name), noisy.shape);
      return { ...chunks.loss(prediction, target, inputs), noisy, target, ...kept };
    },
    /** Blocks that do not depend on the noisy actions run once, as the prefix. */
    async act(acting) {
      const blocks = samplingBlocks(configuration, block);
      const running = configuration.blocks.filter(({ name }) => blocks.suffix.includes(name));
      using session = acting.open(blocks);
      if (blocks.prefix.length > 0) await session.prefix(() => {});
      return await chunks.sample(acting, acting.observation.batch, ({ part, x, times, clean, advance }) =>
        session.suffix(
          part,
          time.inputs(times, clean > 0 ? times.map(() => clean) : null, running),
          ({ values, inputs, run }) => {
            const rows = run(beginFrom(values, x, inputs));
            return advance(predict(values, rows(block.name), x.shape));
          },
        ),
      );
    },
  };
}
