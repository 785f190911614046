/**
 * Sampling of chunks: the prefix runs once and leaves its keys and values in a cache; then the suffix, the blocks of
 * the action expert, runs once for each Euler step from noise (t = 1) to actions (t = 0).
 */
import { type Device, persistentTensor, type Tensor, tensor, withoutTape } from '../../engine/index.ts';
import { eulerStep, writeTokens } from '../../kernels/index.ts';
import {
  type Inputs,
  type ObservationBatch,
  observationInputs,
  sequenceInputs,
  tensorsOf,
  timeInputs,
} from '../architecture/inputs.ts';
import type { Model } from '../architecture/model.ts';

/** Keys and values of every layer [batch, capacity, kvHeads, headDimension]; the suffix overwrites rows after the prefix. */
export class KeyValueCache implements Disposable {
  private readonly layers: { key: Tensor; value: Tensor }[];

  constructor(model: Model, batch: number, capacity: number) {
    const { depth, kvHeads, headDimension } = model.configuration;
    const make = (name: string) =>
      persistentTensor(model.device, [batch, capacity, kvHeads, headDimension], 'f32', name);
    this.layers = Array.from({ length: depth }, () => ({ key: make('key cache'), value: make('value cache') }));
  }

  /** Stores the rows from `start` on, and returns all rows to attend to. */
  at(start: number): (layer: number, key: Tensor, value: Tensor) => { key: Tensor; value: Tensor } {
    return (layer, key, value) => {
      const cached = this.layers[layer];
      writeTokens(cached.key, key, start);
      writeTokens(cached.value, value, start);
      return cached;
    };
  }

  /** Stores the rows of the prefix, and returns them alone to attend to, because the rows after them do not exist yet. */
  prefix(): (layer: number, key: Tensor, value: Tensor) => { key: Tensor; value: Tensor } {
    const write = this.at(0);
    return (layer, key, value) => {
      write(layer, key, value);
      return { key, value };
    };
  }

  dispose(): void {
    for (const { key, value } of this.layers) {
      key.dispose();
      value.dispose();
    }
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The backbone blocks that the action expert reads, and its own blocks, which run at every Euler step. */
function prefixAndSuffix(model: Model): { prefix: string[]; suffix: string[] } {
  const { blocks, edges } = model.configuration;
  const suffix = blocks.filter((block) => block.weights === 'expert').map((block) => block.name);
  const read = new Set(edges.filter((edge) => suffix.includes(edge.query)).map((edge) => edge.key));
  const prefix = blocks
    .filter((block) => block.weights === 'backbone' && read.has(block.name))
    .map((block) => block.name);
  return { prefix, suffix };
}

/** Called after each part of a policy call with its name and duration; every part then waits for the adapter. */
export type OnLatency = (part: string, milliseconds: number) => void;

/** Runs each part of a policy call as a step without a tape, and reports its duration. */
export function partRunner(device: Device, onLatency?: OnLatency) {
  return async <T>(part: string, work: () => T): Promise<T> => {
    const begin = performance.now();
    const result = withoutTape(device, () => device.step(work));
    if (onLatency) {
      await device.finish();
      onLatency(part, performance.now() - begin);
    }
    return result;
  };
}

export interface SamplingOptions {
  /** Number of Euler steps; 10 by default. */
  steps?: number;
  onLatency?: OnLatency;
  /** Called with the partly denoised chunks after each Euler step. */
  onState?: (state: Float32Array) => void;
}

/** Samples normalised chunks [batch, horizon, actionDimension] from noise of that shape, which alone determines them. */
export async function sampleActions(
  model: Model,
  observation: ObservationBatch,
  noise: Float32Array,
  options: SamplingOptions = {},
): Promise<Float32Array> {
  const { steps = 10, onLatency, onState } = options;
  const { device, configuration } = model;
  const { batch } = observation;
  const { prefix, suffix } = prefixAndSuffix(model);
  const length = (names: readonly string[]) => names.reduce((sum, name) => sum + model.block(name).length, 0);
  const start = length(prefix);
  using cache = new KeyValueCache(model, batch, start + length(suffix));
  const timed = partRunner(device, onLatency);
  const inputs = (...groups: Inputs[]) => tensorsOf(device, Object.assign({}, ...groups));
  const embedded = await timed(
    'images and language',
    () => model.embed(inputs(observationInputs(configuration, observation, prefix)), prefix)!,
  );
  const prefixInputs = sequenceInputs(configuration, observation, prefix);
  await timed('prefix', () => {
    model.run(inputs(prefixInputs), prefix, [embedded, null], { cache: cache.prefix() });
  });
  embedded.dispose();
  const shape = [batch, configuration.horizon, configuration.actionDimension];
  const suffixInputs = {
    ...observationInputs(configuration, observation, suffix),
    ...sequenceInputs(configuration, observation, suffix, prefix),
  };
  let x = tensor(device, noise, shape);
  for (let i = 0; i < steps; i++) {
    const times = new Float64Array(batch).fill(1 - i / steps);
    const next = await timed(`Euler step ${i + 1}`, () => {
      const own = inputs(suffixInputs, timeInputs(configuration, times));
      const { input, condition } = model.embedActions(x, own);
      const { hidden } = model.run(own, suffix, [null, input], {
        condition,
        cached: prefix,
        cache: cache.at(start),
      });
      return eulerStep(x, model.velocity(hidden[1]!), -1 / steps);
    });
    x.dispose();
    x = next;
    if (onState) onState(await x.read());
  }
  const actions = await x.read();
  x.dispose();
  return actions;
}
