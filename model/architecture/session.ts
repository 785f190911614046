/** Passes over one batch of observations, with the keys and values of what ran before in a cache. */
import { type Device, persistentTensor, type Tensor, withoutTape } from '../../engine/index.ts';
import { sliceTokens, writeTokens } from '../../kernels/index.ts';
import { blockNamed, type ModelConfiguration } from './configuration.ts';
import { type Inputs, type InputTensors, inputNamed, type ObservationBatch, tensorsOf } from './inputs.ts';
import type { Model } from './model.ts';
import type { OnLatency, RowsReader, Session, SuffixPass } from './objectives/index.ts';
import { copiesOf, sequenceInputs } from './sequence.ts';
import { rowsReader } from './training-pass.ts';

/** Keys and values of every layer [batch, capacity, kvHeads, headDimension]; rows after the prefix are overwritten. */
export class KeyValueCache implements Disposable {
  private readonly layers: { key: Tensor; value: Tensor }[];

  constructor(device: Device, { depth, kvHeads, headDimension }: ModelConfiguration, batch: number, capacity: number) {
    const make = (name: string) => persistentTensor(device, [batch, capacity, kvHeads, headDimension], 'f32', name);
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

interface SessionOptions {
  /** The blocks that run once, and those that run again and again, in the order of tokens. */
  readonly prefix: readonly string[];
  readonly suffix: readonly string[];
  readonly onLatency?: OnLatency;
}

export class CachedSession implements Session {
  private readonly cache: KeyValueCache;
  private readonly prefixRows: number;
  /** Those that stay the same in every pass behind the prefix. */
  private suffixInputs: Inputs | null = null;

  constructor(
    private readonly model: Model,
    private readonly observation: ObservationBatch,
    private readonly options: SessionOptions,
  ) {
    const { device, configuration } = model;
    const rows = (names: readonly string[]) =>
      names.reduce((sum, name) => sum + blockNamed(configuration, name).length, 0);
    this.prefixRows = rows(options.prefix);
    this.cache = new KeyValueCache(device, configuration, observation.batch, this.prefixRows + rows(options.suffix));
  }

  async prefix<T>(work: (rows: RowsReader, values: Model['parameters']) => T): Promise<T> {
    const { model, observation } = this;
    const { prefix: names } = this.options;
    const { parameters: values, architecture, configuration } = model;
    const sequence = sequenceInputs(configuration, observation, names);
    // Rows of zeros and learned rows take the size of the batch from the padding mask.
    const own = { ...architecture.blockInputs.inputs(observation, names), validity: sequence.validity };
    const embedded = await this.timed(
      'images and language',
      own,
      (inputs) => architecture.blockInputs.run(values, inputs, names).rows,
    );
    const result = await this.timed('prefix', sequence, (inputs) => {
      const run = architecture.mixture.run(values, {
        ...{ inputs: embedded, queries: names, table: architecture.table(names) },
        blocks: copiesOf(configuration, names, false),
        validity: inputNamed(inputs, 'validity'),
        rotaryTable: inputNamed(inputs, 'rotaryTable'),
        cache: this.cache.prefix(),
      });
      return work(rowsReader(model, names, run, false), values);
    });
    for (const rows of Object.values(embedded)) rows.dispose();
    return result;
  }

  async suffix<T>(part: string, inputs: Inputs, work: (pass: SuffixPass) => T): Promise<T> {
    const { model, observation } = this;
    const { prefix, suffix } = this.options;
    const { configuration, parameters: values, architecture } = model;
    this.suffixInputs ??= {
      ...architecture.blockInputs.inputs(observation, suffix),
      ...sequenceInputs(configuration, observation, suffix, { cached: prefix }),
    };
    const own = { ...this.suffixInputs, ...inputs };
    const keys = [...prefix, ...suffix];
    const { mixture, table } = { mixture: architecture.mixture, table: architecture.table(keys) };
    return this.timed(part, own, (tensors) => {
      const shared = { table, validity: inputNamed(tensors, 'validity') };
      return work({
        values,
        inputs: tensors,
        run: ({ rows: given, conditions }) => {
          const { rows } = architecture.blockInputs.run(values, tensors, suffix, given);
          const result = mixture.run(values, {
            ...{ ...shared, conditions, inputs: rows, queries: suffix },
            blocks: copiesOf(configuration, suffix, false),
            rotaryTable: inputNamed(tensors, 'rotaryTable'),
            cache: this.cache.at(this.prefixRows),
          });
          return rowsReader(model, suffix, result, false);
        },
        runRow: (row, rows) => {
          const block = blockNamed(configuration, row.block);
          const { hidden } = mixture.run(values, {
            ...{ ...shared, inputs: { [block.weights]: rows }, queries: [row] },
            blocks: [{ ...block, length: 1 }],
            rotaryTable: sliceTokens(inputNamed(tensors, 'rotaryTable'), row.first, 1),
            cache: this.cache.at(this.prefixRows + row.first),
          });
          return hidden[block.weights];
        },
      });
    });
  }

  dispose(): void {
    this.cache.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
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
