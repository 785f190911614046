/** Passes over one batch of observations; keys and values of the rows that ran before are in a cache. */
import { type Device, persistentTensor, type Tensor, withoutTape } from '../../engine/index.ts';
import { sliceTokens, writeTokens } from '../../kernels/index.ts';
import { blockNamed, hasKeys, type ModelConfiguration, stepsInSequence } from './configuration.ts';
import {
  expectInputs,
  type Inputs,
  type InputTensors,
  inputNamed,
  type ObservationBatch,
  tensorsOf,
} from './inputs.ts';
import { runSteps } from './interleave.ts';
import type { Cache } from './mixture.ts';
import type { Model } from './model.ts';
import type { OnLatency, RowsReader, Session, SuffixPass } from './objectives/index.ts';
import { blocksNamed, type RunningBlock, sequenceInputs } from './sequence.ts';
import { rowsReader } from './training-pass.ts';

/** Keys and values of every layer [batch, capacity, kvHeads, headDimension]; rows after the prefix are overwritten. */
class KeyValueCache implements Disposable {
  private readonly layers: { key: Tensor; value: Tensor }[];

  constructor(device: Device, { depth, kvHeads, headDimension }: ModelConfiguration, batch: number, capacity: number) {
    const make = (name: string) => persistentTensor(device, [batch, capacity, kvHeads, headDimension], 'f32', name);
    this.layers = Array.from({ length: depth }, () => ({ key: make('key cache'), value: make('value cache') }));
  }

  /** Stores the rows from `start` on, and returns all rows to attend to. */
  at(start: number): Cache {
    return (layer, key, value) => {
      const cached = this.layers[layer];
      if (key.size > 0) writeTokens(cached.key, key, start);
      if (value.size > 0) writeTokens(cached.value, value, start);
      return cached;
    };
  }

  /** Stores the rows of the prefix, and returns them alone to attend to, because the rows after them do not exist yet. */
  prefix(): Cache {
    const write = this.at(0);
    return (layer, key, value) => {
      write(layer, key, value);
      return { key, value };
    };
  }

  [Symbol.dispose](): void {
    for (const { key, value } of this.layers) {
      key.dispose();
      value.dispose();
    }
  }
}

interface SessionOptions {
  /** The blocks that run once, and those that run again and again, in the order of tokens. */
  readonly prefix: readonly string[];
  readonly suffix: readonly string[];
  readonly onLatency?: OnLatency;
}

export class CachedSession implements Session {
  private readonly cache: KeyValueCache;
  private readonly blocks: { readonly prefix: readonly RunningBlock[]; readonly suffix: readonly RunningBlock[] };
  /** Rows of the prefix in the cache. */
  private readonly prefixRows: number;
  /** Those that stay the same in every pass behind the prefix. */
  private suffixInputs: Inputs | null = null;

  constructor(
    private readonly model: Model,
    private readonly observation: ObservationBatch,
    private readonly options: SessionOptions,
  ) {
    const { device, configuration } = model;
    const [prefix, suffix] = [options.prefix, options.suffix].map((names) => blocksNamed(configuration, names));
    this.blocks = { prefix, suffix };
    const rows = (blocks: readonly RunningBlock[]) =>
      blocks.reduce((sum, block) => sum + (hasKeys(block) ? block.length : 0), 0);
    this.prefixRows = rows(prefix);
    const steps = stepsInSequence(configuration);
    const capacity = steps * rows([...prefix, ...suffix]);
    this.cache = new KeyValueCache(device, configuration, observation.batch / steps, capacity);
  }

  async prefix<T>(work: (rows: RowsReader, values: Model['parameters']) => T): Promise<T> {
    const { model, observation } = this;
    const { prefix: blocks } = this.blocks;
    const { parameters: values, architecture, configuration } = model;
    const { blockInputs } = architecture;
    const sequence = sequenceInputs(configuration, observation, blocks);
    // Rows of zeros and learned rows take the size of the batch from the padding mask.
    const own = { ...blockInputs.inputs(observation, blocks), validity: sequence.validity };
    expectInputs(own);
    const embedded = await this.timed(
      'images and language',
      own,
      (inputs) => blockInputs.run(values, inputs, blocks).rows,
    );
    const result = await this.timed('prefix', sequence, (inputs) => {
      const run = runSteps(architecture, values, {
        ...{ inputs: embedded, blocks },
        validity: inputNamed(inputs, 'validity'),
        rotaryTable: inputNamed(inputs, 'rotaryTable'),
        cache: this.cache.prefix(),
      });
      return work(rowsReader(blocks, run), values);
    });
    for (const rows of Object.values(embedded)) rows.dispose();
    return result;
  }

  async suffix<T>(part: string, inputs: Inputs, work: (pass: SuffixPass) => T): Promise<T> {
    const { prefix, suffix: blocks } = this.blocks;
    const { configuration, parameters: values, architecture } = this.model;
    const { blockInputs, mixture } = architecture;
    if (!this.suffixInputs) {
      this.suffixInputs = {
        ...blockInputs.inputs(this.observation, blocks),
        ...sequenceInputs(configuration, this.observation, blocks, prefix),
      };
      expectInputs(this.suffixInputs);
    }
    expectInputs(inputs);
    const own = { ...this.suffixInputs, ...inputs };
    const table = architecture.table([...prefix, ...blocks]);
    return this.timed(part, own, (tensors) => {
      const shared = { table, validity: inputNamed(tensors, 'validity') };
      const rotaryTable = inputNamed(tensors, 'rotaryTable');
      return work({
        values,
        inputs: tensors,
        run: ({ rows: given, conditions }) => {
          const { rows } = blockInputs.run(values, tensors, blocks, given);
          const result = mixture.run(values, {
            ...{ ...shared, rotaryTable, conditions, inputs: rows, blocks, queries: this.options.suffix },
            cache: this.cache.at(this.prefixRows),
          });
          return rowsReader(blocks, result);
        },
        runRow: (row, rows) => {
          const block = blockNamed(configuration, row.block);
          const { hidden } = mixture.run(values, {
            ...{ ...shared, inputs: { [block.weights]: rows }, queries: [row] },
            blocks: [{ ...block, length: 1 }],
            rotaryTable: sliceTokens(rotaryTable, row.first, 1),
            cache: this.cache.at(this.prefixRows + row.first),
          });
          return hidden[block.weights];
        },
      });
    });
  }

  head<T>(part: string, inputs: Inputs, work: (values: Model['parameters'], inputs: InputTensors) => T): Promise<T> {
    expectInputs(inputs);
    return this.timed(part, inputs, (tensors) => work(this.model.parameters, tensors));
  }

  [Symbol.dispose](): void {
    this.cache[Symbol.dispose]();
  }

  /** Runs a part of a policy call as a step without a tape, and reports its duration. */
  private async timed<T>(part: string, inputs: Inputs, work: (tensors: InputTensors) => T): Promise<T> {
    const { device } = this.model;
    const { onLatency } = this.options;
    const begin = performance.now();
    const result = withoutTape(device, () => device.step(() => work(tensorsOf(device, inputs))));
    if (onLatency) {
      await device.finish();
      onLatency(part, performance.now() - begin);
    }
    return result;
  }
}
