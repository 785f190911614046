/** Chunks of actions on their way from noise: those that a denoising objective draws, learns from and samples. */
import { InputError } from '../../../engine/files/errors.ts';
import { type Random, streams, type Tensor, tensor } from '../../../engine/index.ts';
import { meanSquaredError } from '../../../kernels/index.ts';
import type { ModelConfiguration } from '../configuration.ts';
import { type Inputs, type InputTensors, repeated, type TrainingBatch } from '../inputs.ts';
import { countElements, isReal, maskInputs, masksOf } from './chunk.ts';
import type { Acting, Reference } from './objective.ts';
import type { Process } from './process.ts';

/** Copies of a chunk draw from streams that are so far apart. */
const STREAMS_OF_A_COPY = 16;

/** A step of sampling. */
export interface SamplingStep {
  /** Its name in latencies. */
  readonly part: string;
  /** The chunks before it [chunks, horizon, actionDimension], and the time of each. */
  readonly x: Tensor;
  readonly times: Float64Array;
  /** The chunks after it. */
  advance(prediction: Tensor): Tensor;
}

export class NoisyChunks {
  readonly meaning: string;
  readonly baseline;

  constructor(
    private readonly name: string,
    private readonly process: Process,
    private readonly configuration: ModelConfiguration,
    private readonly copies = 1,
  ) {
    this.meaning = `mean squared error of the ${process.predicts} (normalised actions)`;
    this.baseline = {
      name: `best constant ${process.predicts}`,
      measure: (reference: Reference, batch: TrainingBatch) => constantLoss(process, reference, batch),
    };
  }

  /** Every copy of a chunk is an example of its own: [batch * copies, horizon, actionDimension]. */
  inputs({ batch, actions, noise, time, actionValid, realDimensions }: TrainingBatch): Inputs {
    const { name, process, copies, configuration } = this;
    if (!actions || !noise || !time) throw new InputError(`the ${name} loss needs actions, noise and time`);
    const { horizon, actionDimension } = configuration;
    const shape = [batch * copies, horizon, actionDimension];
    return {
      ...process.inputs(name, { actions: repeated(actions, batch, copies), noise, time }, shape),
      ...maskInputs(
        name,
        {
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
      const times = this.process.drawTimes(random(streams.time + copy * STREAMS_OF_A_COPY), examples, first);
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
    return countElements(this.name, inputs, 'noise');
  }

  noise(inputs: InputTensors): { noisy: Tensor; target: Tensor } {
    return this.process.noise(this.name, inputs);
  }

  /** prediction, target [chunks, horizon, actionDimension] -> the loss [], and the prediction by its name */
  loss(prediction: Tensor, target: Tensor, inputs: InputTensors) {
    const loss = meanSquaredError(prediction, target, masksOf(this.name, inputs));
    return { loss, [this.process.predicts]: prediction };
  }

  /** Chunks [chunks * horizon * actionDimension] from the noise, one after each of so many steps. */
  async sample(
    { device, noise, steps, onState }: Pick<Acting, 'device' | 'noise' | 'steps' | 'onState'>,
    chunks: number,
    run: (step: SamplingStep) => Promise<Tensor>,
  ): Promise<Float32Array> {
    const { process, configuration } = this;
    const times = process.samplingTimes(steps);
    let x = tensor(device, noise(), [chunks, configuration.horizon, configuration.actionDimension]);
    for (const [i, time] of times.entries()) {
      const before = x;
      x = await run({
        part: `${process.step} ${i + 1}`,
        ...{ x: before, times: new Float64Array(chunks).fill(time) },
        advance: (prediction) => process.advance(before, prediction, i, steps),
      });
      before.dispose();
      if (onState) onState(await x.read());
    }
    const actions = await x.read();
    x.dispose();
    return actions;
  }
}

function constantLoss(process: Process, { meanChunk }: Reference, batch: TrainingBatch) {
  const { actions, noise } = batch;
  const size = meanChunk.length;
  const copies = noise!.length / actions!.length;
  let [squares, count] = [0, 0];
  noise!.forEach((value, i) => {
    const element = Math.floor(i / (size * copies)) * size + (i % size);
    if (!isReal(batch, element)) return;
    squares += process.constantError(value, actions![element], meanChunk[i % size]) ** 2;
    count += 1;
  });
  return { loss: squares / count, count };
}
