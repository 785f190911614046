/** Chunks of actions between noise and actions: a denoising objective draws them, learns from them and samples them. */
import { InputError } from '../../../engine/files/errors.ts';
import { type Random, streams, type Tensor, tensor } from '../../../engine/index.ts';
import { meanSquaredError } from '../../../kernels/index.ts';
import type { ModelConfiguration } from '../configuration.ts';
import { expectLength, floats, type Inputs, type InputTensors, repeated, type TrainingBatch } from '../inputs.ts';
import { countElements, isReal, maskInputs, masksOf } from './chunk.ts';
import type { Acting, Objective, Reference } from './objective.ts';
import type { Process } from './process.ts';
import { continuationOf } from './real-time-chunking.ts';

/** The distance between the random streams of a copy of a chunk and those of the next copy. */
const STREAMS_OF_A_COPY = 16;

/** A step of sampling. */
interface SamplingStep {
  /** Its name in latencies. */
  readonly part: string;
  /** The chunks before it [chunks, horizon, actionDimension], and the time of each. */
  readonly x: Tensor;
  readonly times: Float64Array;
  /** The number of first actions of every chunk that are clean: given, and at time 0. */
  readonly clean: number;
  /** The chunks after it. */
  advance(prediction: Tensor): Tensor;
}

/** The part of a denoising objective that knows its process, and not what predicts. */
export class NoisyChunks {
  /**
   * Every chunk has `copies` draws of noise and time. Up to `maximumDelay` first actions of a training chunk are clean and have no loss:
   * training-time real-time chunking; see real-time-chunking.ts.
   */
  constructor(
    private readonly name: string,
    private readonly process: Process,
    private readonly configuration: ModelConfiguration,
    private readonly copies = 1,
    private readonly maximumDelay = 0,
  ) {}

  /** The part of an objective that is the same for all that denoise. The loss is a mean over the real elements of all chunks. */
  ofObjective(): Pick<Objective, 'meaning' | 'baseline' | 'continues' | 'draw' | 'count'> {
    const { name, process, configuration } = this;
    return {
      meaning: `mean squared error of the ${process.predicts} (normalised actions)`,
      baseline: {
        name: `best constant ${process.predicts}`,
        measure: (...given) => constantLoss(process, configuration.actionDimension, ...given),
      },
      // A chunk continues another by its velocity.
      continues: process.predicts === 'velocity',
      draw: (...given) => this.draw(...given),
      count: (inputs) => countElements(name, inputs, 'noise'),
    };
  }

  /**
   * Every copy of a chunk is an example of its own: [batch * copies, horizon, actionDimension].
   *
   * @throws InputError if the batch lacks actions, noise, time or delays
   */
  inputs(given: TrainingBatch): Inputs {
    const { batch, actions, noise, time, actionValid, realDimensions } = given;
    const { name, process, copies, configuration } = this;
    if (!actions || !noise || !time) throw new InputError(`the ${name} loss needs actions, noise and time`);
    const { horizon, actionDimension } = configuration;
    const shape = [batch * copies, horizon, actionDimension];
    const valid = actionValid && repeated(actionValid, batch, copies);
    const delays = this.delaysOf(given);
    const delayed = delays && this.delayed(time, delays, valid, shape);
    return {
      ...process.inputs(name, { actions: repeated(actions, batch, copies), noise, time }, shape),
      ...delayed?.inputs,
      ...maskInputs(
        name,
        {
          actionValid: delayed?.valid ?? valid,
          realDimensions:
            realDimensions && realDimensions.length !== actionDimension
              ? repeated(realDimensions, batch, copies)
              : realDimensions,
        },
        shape,
      ),
    };
  }

  /** The number of clean first actions of each chunk; null if training chunks have none. */
  delaysOf({ delays }: TrainingBatch): ArrayLike<number> | null {
    if (this.maximumDelay === 0) return null;
    if (!delays) throw new InputError(`the ${this.name} loss needs a delay for each chunk`);
    return delays;
  }

  /** The time of every action, and the mask of those with a loss. */
  private delayed(
    time: ArrayLike<number>,
    delays: ArrayLike<number>,
    valid: ArrayLike<number> | null,
    [chunks, horizon]: readonly number[],
  ) {
    const { name } = this;
    expectLength(`${name}/time`, time, chunks);
    expectLength(`${name}/delays`, delays, chunks);
    const isClean = (i: number) => i % horizon < delays[Math.floor(i / horizon)];
    const times = Float32Array.from({ length: chunks * horizon }, (_, i) =>
      isClean(i) ? 0 : time[Math.floor(i / horizon)],
    );
    return {
      inputs: { [`${name}/time`]: floats(times, [chunks * horizon]) },
      valid: Uint8Array.from(times, (_, i) => (isClean(i) ? 0 : (valid?.[i] ?? 1))),
    };
  }

  /** Noise, times and delays of examples `first` to `first + examples - 1`. Copy 0 draws what a chunk without copies draws. */
  private draw(
    random: (stream: number) => Random,
    examples: number,
    first: number,
  ): Pick<TrainingBatch, 'noise' | 'time' | 'delays'> {
    const { copies, configuration, maximumDelay } = this;
    const size = configuration.horizon * configuration.actionDimension;
    const noise = new Float32Array(examples * copies * size);
    const time = new Float32Array(examples * copies);
    const delays = new Uint32Array(examples * copies);
    for (let copy = 0; copy < copies; copy++) {
      const own = new Float32Array(examples * size);
      random(streams.noise + copy * STREAMS_OF_A_COPY).fillNormal(own, first * size);
      const ofDelays = random(streams.delay + copy * STREAMS_OF_A_COPY);
      const times = this.process.drawTimes(random(streams.time + copy * STREAMS_OF_A_COPY), examples, first);
      for (let example = 0; example < examples; example++) {
        const chunk = example * copies + copy;
        noise.set(own.subarray(example * size, (example + 1) * size), chunk * size);
        time[chunk] = times[example];
        delays[chunk] = ofDelays.integer(first + example, maximumDelay + 1);
      }
    }
    return { noise, time, ...(maximumDelay > 0 && { delays }) };
  }

  noise(inputs: InputTensors): { noisy: Tensor; target: Tensor } {
    return this.process.noise(this.name, inputs);
  }

  /** prediction, target [chunks, horizon, actionDimension] -> the loss [], and the prediction by its name */
  loss(prediction: Tensor, target: Tensor, inputs: InputTensors) {
    const loss = meanSquaredError(prediction, target, masksOf(this.name, inputs));
    return { loss, [this.process.predicts]: prediction };
  }

  /** Samples chunks [chunks * horizon * actionDimension]: from noise, by `steps` calls of `run`, which returns `advance(prediction)`. */
  async sample(
    { device, noise, steps, onState, previous }: Pick<Acting, 'device' | 'noise' | 'steps' | 'onState' | 'previous'>,
    chunks: number,
    run: (step: SamplingStep) => Promise<Tensor>,
  ): Promise<Float32Array> {
    const { process, configuration, maximumDelay } = this;
    const times = process.samplingTimes(steps);
    const shape = [chunks, configuration.horizon, configuration.actionDimension] as const;
    using continued = previous ? continuationOf(device, previous, shape, maximumDelay) : null;
    let x = tensor(device, continued?.begin(noise()) ?? noise(), shape);
    for (const [i, time] of times.entries()) {
      const before = x;
      x = await run({
        part: `${process.step} ${i + 1}`,
        ...{ x: before, times: new Float64Array(chunks).fill(time), clean: continued?.clean ?? 0 },
        advance: (prediction) => {
          if (!continued) return process.advance(before, prediction, i, steps);
          return continued.paste(process.advance(before, continued.guide(before, prediction, time), i, steps));
        },
      });
      before.dispose();
      if (onState) onState(await x.read());
    }
    const actions = await x.read();
    x.dispose();
    return actions;
  }
}

/** The loss of the best constant prediction, over the elements that the loss counts. */
function constantLoss(process: Process, dimension: number, { meanChunk }: Reference, batch: TrainingBatch) {
  const { actions, noise, delays } = batch;
  const size = meanChunk.length;
  const copies = noise!.length / actions!.length;
  let [squares, count] = [0, 0];
  noise!.forEach((value, i) => {
    const element = Math.floor(i / (size * copies)) * size + (i % size);
    const isClean = (i % size) / dimension < (delays?.[Math.floor(i / size)] ?? 0);
    if (isClean || !isReal(batch, element)) return;
    squares += process.constantError(value, actions![element], meanChunk[i % size]) ** 2;
    count += 1;
  });
  return { loss: squares / count, count };
}
