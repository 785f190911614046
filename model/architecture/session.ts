/** Passes over one batch of observations; keys and values of the rows that ran before are in a cache. */
import { type Device, persistentTensor, type Tensor, withoutTape } from '../../engine/index.ts';
import { type RowsOfBlock, sliceTokens, writeTokens } from '../../kernels/index.ts';
import { blockNamed, hasKeys, type ModelConfiguration, stepsInSequence } from './configuration.ts';
import type { MemoryContents } from './cross-attention.ts';
import {
  expectInputs,
  type Inputs,
  type InputTensors,
  inputNamed,
  type ObservationBatch,
  tensorsOf,
} from './inputs.ts';
import { memoryOfPass, type Reader, readerInputs, readersOf } from './memory.ts';
import type { Cache, PerExpert } from './mixture.ts';
import type { Model } from './model.ts';
import type { OnLatency, RowsReader, Session, SuffixPass } from './objectives/index.ts';
import { blocksNamed, type RunningBlock, sequenceInputs, validityInput } from './sequence.ts';
import { rowsReader, runStages, type Stages, stageInputs, stagesOf } from './stages.ts';

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
  private readonly blocks: Readonly<Record<'prefix' | 'suffix', readonly RunningBlock[]>>;
  /** Those of the prefix. Its memory is what other blocks read by cross-attention. */
  private readonly stages: Stages;
  /** The experts that read memory: those of the suffix, and all. */
  private readonly readers: Readonly<Record<'suffix' | 'all', readonly Reader[]>>;
  /** Keys and values of the memory, once it ran. */
  private contents: PerExpert<MemoryContents> = {};
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
    this.stages = stagesOf(configuration, prefix, [...prefix, ...suffix]);
    const { memory, running } = this.stages;
    const readers = (blocks: readonly RunningBlock[]) => readersOf(configuration, blocks, memory);
    this.readers = { suffix: readers(suffix), all: readers([...running, ...suffix]) };
    const rows = (blocks: readonly RunningBlock[]) =>
      blocks.reduce((sum, block) => sum + (hasKeys(block) ? block.length : 0), 0);
    this.prefixRows = rows(running);
    const steps = stepsInSequence(configuration);
    const capacity = steps * rows([...running, ...suffix]);
    this.cache = new KeyValueCache(device, configuration, observation.batch / steps, capacity);
  }

  async prefix<T>(work: (rows: RowsReader, values: Model['parameters']) => T): Promise<T> {
    const { model, observation } = this;
    const { prefix: blocks } = this.blocks;
    const { parameters: values, architecture, configuration } = model;
    // Rows of zeros and learned rows take the size of the batch from the padding mask.
    const own = {
      ...architecture.blockInputs.inputs(observation, blocks),
      validity: validityInput(configuration, observation, blocks),
    };
    expectInputs(own);
    const first = await this.timed('images and language', own, (inputs) => {
      const { rows, memory } = architecture.blockInputs.run(values, inputs, blocks);
      return { rows, memory };
    });
    const sequence = stageInputs(configuration, observation, this.stages);
    const { result, contents } = await this.timed('prefix', sequence, (inputs) => {
      const pass = { cache: this.cache.prefix(), allReaders: this.readers.all };
      const { result, contents } = runStages(model, inputs, first, this.stages, pass);
      return { result: work(rowsReader(blocks, result), values), contents };
    });
    this.contents = contents;
    for (const rows of [first.rows, first.memory].flatMap((own) => Object.values(own))) rows.dispose();
    return result;
  }

  async suffix<T>(part: string, inputs: Inputs, work: (pass: SuffixPass) => T): Promise<T> {
    const { suffix: blocks } = this.blocks;
    const { running: prefix } = this.stages;
    const { configuration, parameters: values, architecture } = this.model;
    const { blockInputs, mixture } = architecture;
    if (!this.suffixInputs) {
      this.suffixInputs = {
        ...blockInputs.inputs(this.observation, blocks),
        ...sequenceInputs(configuration, this.observation, blocks, prefix),
        ...readerInputs(configuration, this.observation, this.readers.suffix),
      };
      expectInputs(this.suffixInputs);
    }
    expectInputs(inputs);
    const own = { ...this.suffixInputs, ...inputs };
    const table = architecture.table([...prefix, ...blocks]);
    return this.timed(part, own, (tensors) => {
      const shared = { table, validity: inputNamed(tensors, 'validity') };
      const rotaryTable = inputNamed(tensors, 'rotaryTable');
      const memory = (queries?: readonly RowsOfBlock[]) =>
        memoryOfPass(architecture, tensors, this.readers.suffix, this.contents, queries);
      return work({
        values,
        inputs: tensors,
        run: ({ rows: given, conditions }) => {
          const { rows } = blockInputs.run(values, tensors, blocks, given);
          const result = mixture.run(values, {
            ...{ ...shared, rotaryTable, conditions, inputs: rows, blocks, queries: this.options.suffix },
            ...{ cache: this.cache.at(this.prefixRows), memory: memory() },
          });
          return rowsReader(blocks, result);
        },
        runRow: (row, rows) => {
          const block = blockNamed(configuration, row.block);
          const { hidden } = mixture.run(values, {
            ...{ ...shared, inputs: { [block.weights]: rows }, queries: [row] },
            blocks: [{ ...block, length: 1 }],
            rotaryTable: sliceTokens(rotaryTable, row.first, 1),
            ...{ cache: this.cache.at(this.prefixRows + row.first), memory: memory([row]) },
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
    for (const own of Object.values(this.contents).flat()) {
      own?.key.dispose();
      own?.value.dispose();
    }
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
