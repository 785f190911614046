/** Passes over one batch of observations; keys and values of the rows that ran before are in a cache. */
import { type Device, persistentTensor, withoutTape } from '../../engine/index.ts';
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
import { memoryOfPass, readerInputs, readersOf } from './memory.ts';
import type { Cache, PerExpert } from './mixture.ts';
import type { Model } from './model.ts';
import type { OnLatency, Session } from './objectives/index.ts';
import { blocksNamed, type RunningBlock, sequenceInputs, validityInput } from './sequence.ts';
import { rowsReader, runStages, stageInputs, stagesOf } from './stages.ts';

/** Keys and values of every layer [batch, capacity, kvHeads, headDimension]; rows after the prefix are overwritten. */
function keyValueCache(
  device: Device,
  { depth, kvHeads, headDimension, precision = 'f32' }: ModelConfiguration,
  batch: number,
  capacity: number,
) {
  const make = (name: string) => persistentTensor(device, [batch, capacity, kvHeads, headDimension], precision, name);
  const layers = Array.from({ length: depth }, () => ({ key: make('key cache'), value: make('value cache') }));
  /** Stores the rows from `start` on, and returns all rows to attend to. */
  const at =
    (start: number): Cache =>
    (layer, key, value) => {
      const cached = layers[layer];
      if (key.size > 0) writeTokens(cached.key, key, start);
      if (value.size > 0) writeTokens(cached.value, value, start);
      return cached;
    };
  return {
    at,
    /** Stores the rows of the prefix, and returns them alone to attend to, because the rows after them do not exist yet. */
    prefix: (): Cache => (layer, key, value) => {
      at(0)(layer, key, value);
      return { key, value };
    },
    dispose() {
      for (const { key, value } of layers) {
        key.dispose();
        value.dispose();
      }
    },
  };
}

interface SessionOptions {
  /** The blocks that run once, and those that run again and again, in the order of tokens. */
  readonly prefix: readonly string[];
  readonly suffix: readonly string[];
  readonly onLatency?: OnLatency;
}

export function openSession(model: Model, observation: ObservationBatch, options: SessionOptions): Session {
  const { device, configuration, architecture, parameters: values } = model;
  const { blockInputs, mixture } = architecture;
  const [prefix, suffix] = [options.prefix, options.suffix].map((names) => blocksNamed(configuration, names));
  /** The stages of the prefix. Its memory is what other blocks read by cross-attention. */
  const stages = stagesOf(configuration, prefix, [...prefix, ...suffix]);
  const { memory, running } = stages;
  const readersAmong = (blocks: readonly RunningBlock[]) => readersOf(configuration, blocks, memory);
  const readers = readersAmong(suffix);
  const rowsIn = (blocks: readonly RunningBlock[]) =>
    blocks.reduce((sum, block) => sum + (hasKeys(block) ? block.length : 0), 0);
  const steps = stepsInSequence(configuration);
  const capacity = steps * rowsIn([...running, ...suffix]);
  const cache = keyValueCache(device, configuration, observation.batch / steps, capacity);
  /** Keys and values of the memory, once it ran. */
  let contents: PerExpert<MemoryContents> = {};
  /** The inputs that stay the same in every pass behind the prefix. */
  let suffixInputs: Inputs | null = null;

  /** Runs a part of a policy call as a step without a tape, and reports its duration. */
  const timed = async <T>(part: string, inputs: Inputs, work: (tensors: InputTensors) => T): Promise<T> => {
    const begin = performance.now();
    const result = withoutTape(device, () => device.step(() => work(tensorsOf(device, inputs))));
    if (options.onLatency) {
      await device.finish();
      options.onLatency(part, performance.now() - begin);
    }
    return result;
  };

  return {
    async prefix(work) {
      // Rows of zeros and learned rows take the size of the batch from the padding mask.
      const own = {
        ...blockInputs.inputs(observation, prefix),
        validity: validityInput(configuration, observation, prefix),
      };
      expectInputs(own);
      const first = await timed('images and language', own, (inputs) => {
        const { rows, memory } = blockInputs.run(values, inputs, prefix);
        return { rows, memory };
      });
      const made = await timed('prefix', stageInputs(configuration, observation, stages), (inputs) => {
        const pass = { cache: cache.prefix(), allReaders: readersAmong([...running, ...suffix]) };
        const { result, contents } = runStages(model, inputs, first, stages, pass);
        return { result: work(rowsReader(prefix, result), values), contents };
      });
      contents = made.contents;
      for (const rows of [first.rows, first.memory].flatMap((own) => Object.values(own))) rows.dispose();
      return made.result;
    },

    async suffix(part, inputs, work) {
      if (!suffixInputs) {
        suffixInputs = {
          ...blockInputs.inputs(observation, suffix),
          ...sequenceInputs(configuration, observation, suffix, running),
          ...readerInputs(configuration, observation, readers),
        };
        expectInputs(suffixInputs);
      }
      expectInputs(inputs);
      const table = architecture.table([...running, ...suffix]);
      const prefixRows = rowsIn(running);
      return timed(part, { ...suffixInputs, ...inputs }, (tensors) => {
        const shared = { table, validity: inputNamed(tensors, 'validity') };
        const rotaryTable = inputNamed(tensors, 'rotaryTable');
        const memory = (queries?: readonly RowsOfBlock[]) =>
          memoryOfPass(architecture, tensors, readers, contents, queries);
        return work({
          values,
          inputs: tensors,
          run: ({ rows: given, conditions }) => {
            const { rows } = blockInputs.run(values, tensors, suffix, given);
            const result = mixture.run(values, {
              ...{ ...shared, rotaryTable, conditions, inputs: rows, blocks: suffix, queries: options.suffix },
              ...{ cache: cache.at(prefixRows), memory: memory() },
            });
            return rowsReader(suffix, result);
          },
          runRow: (row, rows) => {
            const block = blockNamed(configuration, row.block);
            const { hidden } = mixture.run(values, {
              ...{ ...shared, inputs: { [block.weights]: rows }, queries: [row] },
              blocks: [{ ...block, length: 1 }],
              rotaryTable: sliceTokens(rotaryTable, row.first, 1),
              ...{ cache: cache.at(prefixRows + row.first), memory: memory([row]) },
            });
            return hidden[block.weights];
          },
        });
      });
    },

    async head(part, inputs, work) {
      expectInputs(inputs);
      return timed(part, inputs, (tensors) => work(values, tensors));
    },

    [Symbol.dispose]() {
      cache.dispose();
      for (const own of Object.values(contents).flat()) {
        own?.key.dispose();
        own?.value.dispose();
      }
    },
  };
}
