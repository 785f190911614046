/** Memory of a pass: which experts read which blocks by cross-attention, and the keys and values that are made of these blocks. */
import { type ParameterSet, stopGradient, type Tensor } from '../../engine/index.ts';
import { add, concatenateTokens, scale } from '../../kernels/index.ts';
import { type ModelConfiguration, memoryOf, runsThrough } from './configuration.ts';
import type { Memory, MemoryContents, MemoryRows } from './cross-attention.ts';
import { type Inputs, type InputTensors, inputNamed, type ObservationBatch } from './inputs.ts';
import type { PerExpert } from './mixture.ts';
import type { Architecture } from './model.ts';
import { type RunningBlock, validityInput } from './sequence.ts';

/** An expert that reads memory in a pass, its blocks that run, and the blocks that they read. */
export interface Reader {
  readonly expert: string;
  readonly running: readonly RunningBlock[];
  readonly memory: readonly RunningBlock[];
}

/** The experts of the running `blocks` that read memory, each with those of the `available` blocks of memory that it reads. */
export function readersOf(
  configuration: ModelConfiguration,
  blocks: readonly RunningBlock[],
  available: readonly RunningBlock[],
): Reader[] {
  return Object.keys(configuration.experts).flatMap((expert) => {
    const running = blocks.filter((block) => runsThrough(block, expert));
    const names = memoryOf(configuration, expert).map(({ name }) => name);
    const memory = available.filter(({ name }) => names.includes(name));
    return running.length > 0 && memory.length > 0 ? [{ expert, running, memory }] : [];
  });
}

const validityOf = (expert: string) => `memory/${expert}/validity`;

/** The padding mask of each reader: [batch, tokens of its running blocks and its memory]. */
export function readerInputs(
  configuration: ModelConfiguration,
  observation: ObservationBatch,
  readers: readonly Reader[],
): Inputs {
  return Object.fromEntries(
    readers.map(({ expert, running, memory }) => [
      validityOf(expert),
      validityInput(configuration, observation, [...running, ...memory]),
    ]),
  );
}

/** The keys and values of all layers of each expert that reads memory, from the rows [batch, rows, width] of each block of memory. */
export function memoryContents(
  { configuration, mixture }: Architecture,
  values: ParameterSet,
  readers: readonly Reader[],
  rowsByBlock: Readonly<Record<string, Tensor>>,
): PerExpert<MemoryContents> {
  return Object.fromEntries(
    readers.map((reader) => {
      const rows = memoryRows(configuration, reader, rowsByBlock);
      return [reader.expert, mixture.crossAttentionOf(reader.expert)!.contentsOf(values, rows)];
    }),
  );
}

/**
 * The rows [batch, rows, width] that an expert makes the keys and values of its memory from. The gradient factors of an edge scale the
 * gradient that reaches the rows, and not that of the weights of keys and values, which belong to the reader. All blocks of an expert
 * read a block of memory with the same factors (memory-check.ts), so the first edge tells them.
 */
function memoryRows(
  { blocks, edges }: ModelConfiguration,
  { expert, memory }: Reader,
  rowsByBlock: Readonly<Record<string, Tensor>>,
): MemoryRows {
  const own = blocks.filter((block) => runsThrough(block, expert)).map(({ name }) => name);
  const ofMemory = memory.map(({ name }) => ({
    rows: rowsByBlock[name],
    edge: edges.find(({ query, key, edge }) => own.includes(query) && key === name && edge.mask !== 'none')!.edge,
  }));
  const side = (factor: 'keyGradient' | 'valueGradient') => {
    const parts = ofMemory.map(({ rows, edge }) => passing(rows, edge[factor]));
    return parts.length === 1 ? parts[0] : concatenateTokens(parts);
  };
  const key = side('keyGradient');
  return {
    key,
    value: ofMemory.every(({ edge }) => edge.keyGradient === edge.valueGradient) ? key : side('valueGradient'),
  };
}

/** The same rows; only `factor` times the gradient passes through them: s rows + (1 - s) stopGradient(rows). */
function passing(rows: Tensor, factor: number): Tensor {
  if (factor === 1) return rows;
  const stopped = stopGradient(rows);
  return factor === 0 ? stopped : add(scale(rows, factor), scale(stopped, 1 - factor));
}

/** The memory of each reader in a pass. `queries` are the rows that run, by default all rows of its running blocks. */
export function memoryOfPass(
  architecture: Architecture,
  inputs: InputTensors,
  readers: readonly Reader[],
  contents: PerExpert<MemoryContents>,
  queries?: Memory['queries'],
): PerExpert<Memory> {
  return Object.fromEntries(
    readers.map(({ expert, running, memory }): [string, Memory] => [
      expert,
      {
        table: architecture.crossTable(running, memory),
        queries: queries ?? running.map(({ tableName }) => tableName),
        validity: inputNamed(inputs, validityOf(expert)),
        contents: contents[expert],
      },
    ]),
  );
}
