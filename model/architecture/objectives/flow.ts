/** Flow matching: the velocity of actions on a straight path to noise (Lipman et al. 2023, arXiv 2210.02747), and Euler's method back. */
import { InputError } from '../../../engine/files/errors.ts';
import { type ParameterSet, type Random, streams, type Tensor, tensor } from '../../../engine/index.ts';
import { eulerStep, flowInterpolate, meanSquaredError, reshape, sampleTimes } from '../../../kernels/index.ts';
import { type BlockSettings, blockNamed, type ModelConfiguration } from '../configuration.ts';
import { floats, type Inputs, type InputTensors, inputNamed, repeated, type TrainingBatch } from '../inputs.ts';
import { Linear } from '../layers.ts';
import { FlowTime } from '../time.ts';
import { chunkInputs, countElements, isReal, masksOf } from './chunk.ts';
import type { Acting, Begun, LossResult, Objective, Pass, Reference } from './objective.ts';
import { notDecodable, samplingBlocks, targetsBefore } from './running.ts';
import type { FlowSettings } from './settings.ts';

/** Copies of a chunk draw from streams that are so far apart. */
const STREAMS_OF_A_COPY = 16;

export class Flow implements Objective {
  readonly name: string;
  readonly weight: number;
  readonly meaning = 'mean squared error of the velocity (normalised actions)';
  readonly layers: readonly Linear[];
  readonly conditioning: readonly FlowTime[];
  readonly blocks: readonly string[];
  readonly acts: 'chunk' | undefined;
  readonly obstacle: string | null;
  readonly makes: readonly string[];
  readonly baseline = { name: 'best constant velocity', measure: constantVelocityLoss };
  private readonly block: BlockSettings;
  private readonly copies: number;
  private readonly time: FlowTime;

  constructor(
    { name, weight, block }: FlowSettings,
    private readonly configuration: ModelConfiguration,
  ) {
    this.name = name;
    this.weight = weight;
    this.block = blockNamed(configuration, block);
    this.copies = this.block.repeats ?? 1;
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
    this.time = new FlowTime(configuration, this.block);
    this.conditioning = [this.time];
  }

  /** Every copy of a chunk is an example of its own: [batch * copies, horizon, actionDimension]. */
  inputs({ batch, actions, noise, time, actionValid, realDimensions }: TrainingBatch): Inputs {
    if (!actions || !noise || !time) throw new InputError(`the ${this.name} loss needs actions, noise and time`);
    const { copies, configuration } = this;
    const { horizon, actionDimension } = configuration;
    const chunks = batch * copies;
    const shape = [chunks, horizon, actionDimension];
    return {
      [`${this.name}/noise`]: floats(noise, shape),
      [`${this.name}/time`]: floats(Float32Array.from(time), [chunks]),
      ...this.time.inputs(time),
      ...chunkInputs(
        this.name,
        {
          actions: repeated(actions, batch, copies),
          actionValid: actionValid && repeated(actionValid, batch, copies),
          realDimensions:
            realDimensions && realDimensions.length !== actionDimension
              ? repeated(realDimensions, batch, copies)
              : realDimensions,
        },
        shape,
      ),
    };
  }

  /** Copy 0 draws the numbers of a chunk without copies; every other has streams of its own. */
  draw(random: (stream: number) => Random, examples: number, first: number): Pick<TrainingBatch, 'noise' | 'time'> {
    const { copies, configuration } = this;
    const size = configuration.horizon * configuration.actionDimension;
    const noise = new Float32Array(examples * copies * size);
    const time = new Float32Array(examples * copies);
    for (let copy = 0; copy < copies; copy++) {
      const own = new Float32Array(examples * size);
      random(streams.noise + copy * STREAMS_OF_A_COPY).fillNormal(own, first * size);
      const times = sampleTimes(random(streams.time + copy * STREAMS_OF_A_COPY), examples, first);
      for (let example = 0; example < examples; example++) {
        const chunk = example * copies + copy;
        noise.set(own.subarray(example * size, (example + 1) * size), chunk * size);
        time[chunk] = times[example];
      }
    }
    return { noise, time };
  }

  /** The loss is a mean over the real elements of all chunks. */
  count(inputs: Inputs): number {
    return countElements(this.name, inputs);
  }

  begin(values: ParameterSet, inputs: InputTensors): Begun & { kept: Record<string, Tensor> } {
    const [actions, noise, time] = ['actions', 'noise', 'time'].map((own) => inputNamed(inputs, `${this.name}/${own}`));
    const { noisy, target } = flowInterpolate(actions, noise, time);
    const begun = this.beginFrom(values, noisy, inputs);
    return { ...begun, kept: { noisy, target, ...begun.kept } };
  }

  loss({ values, inputs, rows }: Pass, { noisy, target, ...kept }: Readonly<Record<string, Tensor>>): LossResult {
    const velocity = this.velocity(values, rows(this.block.name), noisy.shape[0]);
    return { loss: meanSquaredError(velocity, target, masksOf(this.name, inputs)), noisy, target, velocity, ...kept };
  }

  /** Euler's method from noise (t = 1) to actions (t = 0). Blocks that do not depend on the noisy actions run once. */
  async act({ device, observation, open, noise, steps, onState }: Acting): Promise<Float32Array> {
    const { configuration, block } = this;
    const { horizon, actionDimension } = configuration;
    const blocks = samplingBlocks(configuration, block);
    using session = open(blocks);
    if (blocks.prefix.length > 0) await session.prefix(() => {});
    let x = tensor(device, noise(), [observation.batch, horizon, actionDimension]);
    for (let i = 0; i < steps; i++) {
      const times = new Float64Array(observation.batch).fill(1 - i / steps);
      const next = await session.suffix(`Euler step ${i + 1}`, this.time.inputs(times), ({ values, inputs, run }) => {
        const rows = run(this.beginFrom(values, x, inputs));
        return eulerStep(x, this.velocity(values, rows(block.name), observation.batch), -1 / steps);
      });
      x.dispose();
      x = next;
      if (onState) onState(await x.read());
    }
    const actions = await x.read();
    x.dispose();
    return actions;
  }

  /** noisy [chunks, horizon, actionDimension], at the times of the inputs */
  private beginFrom(values: ParameterSet, noisy: Tensor, inputs: InputTensors) {
    const { name, weights, length } = this.block;
    const { rows, condition } = this.time.run(values, this.layers[0].run(values, noisy), inputs);
    const [chunks, , width] = rows.shape;
    const batch = inputNamed(inputs, 'validity').shape[0];
    const joint = chunks === batch ? rows : reshape(rows, [batch, (chunks / batch) * length, width]);
    const kept: Record<string, Tensor> = condition ? { condition } : {};
    return { rows: { [name]: joint }, conditions: condition ? { [weights]: condition } : {}, kept };
  }

  private velocity(values: ParameterSet, hidden: Tensor, chunks: number): Tensor {
    const velocity = this.layers[1].run(values, hidden);
    const { horizon, actionDimension } = this.configuration;
    return hidden.shape[0] === chunks ? velocity : reshape(velocity, [chunks, horizon, actionDimension]);
  }
}

/** The best constant velocity is the mean of noise - action, and the mean of the noise is 0. */
function constantVelocityLoss({ meanChunk }: Reference, batch: TrainingBatch) {
  const { actions, noise } = batch;
  const size = meanChunk.length;
  const copies = noise!.length / actions!.length;
  let [squares, count] = [0, 0];
  noise!.forEach((value, i) => {
    const element = Math.floor(i / (size * copies)) * size + (i % size);
    if (!isReal(batch, element)) return;
    squares += (value - actions![element] + meanChunk[i % size]) ** 2;
    count += 1;
  });
  return { loss: squares / count, count };
}
