/** The token sequence of a pass: the blocks that run, their rows, padding and positions. */
import { type AttentionTable, attentionTable, type Edge, full, rotaryTable, sequence } from '../../kernels/index.ts';
import { backboneOf } from './backbones/index.ts';
import {
  type BlockSettings,
  blockNamed,
  blocksBefore,
  hasKeys,
  type ModelConfiguration,
  runsThrough,
  sourceOf,
  stepsInSequence,
  tokensPerImage,
} from './configuration.ts';
import { expectLength, floats, type Input, type Inputs, integers, type ObservationBatch } from './inputs.ts';

/** A block that runs in a pass, with its name in the attention table: `action`, and for further copies `action copy 2`, ... */
export interface RunningBlock extends BlockSettings {
  readonly tableName: string;
}

/** The blocks of `names`, in that order, once each. */
export function blocksNamed(configuration: ModelConfiguration, names: readonly string[]): RunningBlock[] {
  return names.map((name) => ({ ...blockNamed(configuration, name), tableName: name }));
}

/**
 * The blocks of a training pass: all that run through an expert, with one entry for each copy. Those of an expert that is copied as a
 * whole are copied together.
 */
export function trainingBlocks({ blocks }: Pick<ModelConfiguration, 'blocks'>): RunningBlock[] {
  const groups: BlockSettings[][] = [];
  for (const block of blocks) {
    if (block.memory) continue;
    const last = groups.at(-1);
    if (last && isCopiedWith(block, last[0]) && isCopiedWhole({ blocks }, block)) last.push(block);
    else groups.push([block]);
  }
  return groups.flatMap((group) =>
    Array.from({ length: group[0].repeats ?? 1 }, (_, copy) =>
      group.map((block) => ({ ...block, tableName: copy === 0 ? block.name : `${block.name} copy ${copy + 1}` })),
    ).flat(),
  );
}

/** The blocks of images that run through no expert. */
export const imagesAsMemory = ({ blocks }: Pick<ModelConfiguration, 'blocks'>): RunningBlock[] =>
  blocks.filter(({ memory }) => memory).map((block) => ({ ...block, tableName: block.name }));

/** Whether a block and another have the same copies: copy r of the one then sees copy r of the other, with the same noise and time. */
const isCopiedWith = ({ weights, repeats = 1 }: BlockSettings, other: BlockSettings): boolean =>
  repeats > 1 && repeats === other.repeats && weights === other.weights;

/** Whether all blocks of the expert of a block are copied with it, so that each copy has rows of its own in all layers. */
export const isCopiedWhole = ({ blocks }: Pick<ModelConfiguration, 'blocks'>, block: BlockSettings): boolean =>
  blocks.every((other) => !runsThrough(other, block.weights) || isCopiedWith(other, block));

/** The blocks of a control step, once for each step of the sequence: `image`, and in further steps `image step 2`, ... */
export function inSequence(
  configuration: Pick<ModelConfiguration, 'history'>,
  blocks: readonly RunningBlock[],
): RunningBlock[] {
  return Array.from({ length: stepsInSequence(configuration) }, (_, step) =>
    blocks.map((block) => ({ ...block, tableName: nameInStep(block.tableName, step) })),
  ).flat();
}

const nameInStep = (name: string, step: number): string => (step === 0 ? name : `${name} step ${step + 1}`);

/**
 * The attention table over the blocks of a control step that run; edges to other blocks are left out. In interleaved history it has
 * every step of the sequence, and the blocks of a step see all of the steps before.
 */
export function tableOf(configuration: ModelConfiguration, blocks: readonly RunningBlock[]): AttentionTable {
  const copies = (name: string) => blocks.filter((block) => block.name === name).map(({ tableName }) => tableName);
  const rows: Record<string, Record<string, Edge>> = {};
  for (const { query, key, edge } of configuration.edges) {
    const keys = copies(key);
    const together = query === key || isCopiedWith(blockNamed(configuration, query), blockNamed(configuration, key));
    copies(query).forEach((row, copy) => {
      const seen = together ? keys[copy] : keys[0];
      if (seen !== undefined) rows[row] = { ...rows[row], [seen]: edge };
    });
  }
  const all = inSequence(configuration, blocks);
  const withoutKeys = all.filter((block) => !hasKeys(block)).map(({ tableName }) => tableName);
  const lengths = all.map(({ tableName, length }) => [tableName, length] as const);
  const inSteps = all.map(({ tableName }, i) => {
    const step = Math.floor(i / blocks.length);
    const before = all.slice(0, step * blocks.length).filter(hasKeys);
    const own = Object.entries(rows[blocks[i % blocks.length].tableName] ?? {});
    return [
      tableName,
      Object.fromEntries([
        ...before.map((key) => [key.tableName, full]),
        ...own.map(([key, edge]) => [nameInStep(key, step), edge]),
      ]),
    ];
  });
  return attentionTable(sequence(lengths, { withoutKeys }), Object.fromEntries(inSteps));
}

/**
 * The table over the blocks of an expert that run, which have queries only, and the memory that they read. Its edges pass the whole
 * gradient: memory.ts stops or scales it before the keys and values, because their weights belong to the reader and are trained.
 */
export function crossTableOf(
  { edges }: ModelConfiguration,
  running: readonly RunningBlock[],
  memory: readonly RunningBlock[],
): AttentionTable {
  const seenBy = (query: string) =>
    memory.filter(({ name }) =>
      edges.some((own) => own.query === query && own.key === name && own.edge.mask !== 'none'),
    );
  const rows = running.map(({ name, tableName }) => [
    tableName,
    Object.fromEntries(seenBy(name).map((key) => [key.tableName, full])),
  ]);
  const lengths = [...running, ...memory].map(({ tableName, length }) => [tableName, length] as const);
  const withoutKeys = running.map(({ tableName }) => tableName);
  return attentionTable(sequence(lengths, { withoutKeys }), Object.fromEntries(rows));
}

/** Rows of an expert that belong to a block, among the blocks of a pass. */
interface RowRange {
  readonly start: number;
  readonly length: number;
  /** Rows of the expert in all. */
  readonly of: number;
  /** The number of equal parts that the rows of the expert consist of; the range is one within each part. */
  readonly parts: number;
}

/** The rows of a block, copies included, among the rows of its expert in a pass. */
export function rowsOf(blocks: readonly BlockSettings[], name: string): RowRange {
  const own = blocks.filter((block) => runsThrough(block, blockNamed({ blocks }, name).weights));
  const copies = own.filter((block) => block.name === name).length;
  const parts = own.every((block) => isCopiedWith(block, own[0])) ? copies : 1;
  let [start, length, of] = [0, 0, 0];
  for (const block of own.slice(0, own.length / parts)) {
    if (block.name === name) length += block.length;
    else if (length === 0) start += block.length;
    of += block.length;
  }
  return { start, length, of: of * parts, parts };
}

/** The padding mask of each block: [batch, length], 1 for real tokens. A block that is missing has no padding. */
type ValidityByBlock = Readonly<Record<string, ArrayLike<number>>>;

export function validityOf(
  configuration: ModelConfiguration,
  { batch, cameraValid, ids, rowValid = {} }: ObservationBatch,
): ValidityByBlock {
  const { blocks, vision } = configuration;
  const byBlock: Record<string, ArrayLike<number>> = {};
  for (const [name, own] of Object.entries(rowValid)) {
    const { length } = blockNamed(configuration, name);
    expectLength(`rowValid/${name}`, own, batch * length, [batch, length]);
    byBlock[name] = own;
  }
  for (const block of blocks) {
    const { name, input, length } = block;
    const own = ids[sourceOf(block)];
    if ((input === 'prompt' || input === 'target') && own) {
      expectLength(`valid ids/${name}`, own.valid, batch * length, [batch, length]);
      byBlock[name] = own.valid;
    }
    if (input !== 'images' || !cameraValid) continue;
    expectLength('cameraValid', cameraValid, batch * vision!.cameras, [batch, vision!.cameras]);
    const perImage = tokensPerImage(vision!);
    byBlock[name] = Uint8Array.from({ length: batch * length }, (_, i) => cameraValid[Math.floor(i / perImage)]);
  }
  return byBlock;
}

/**
 * In each sample the row before the first row of a block, among the rows of its expert in a pass: the last real row of the
 * block before it; row 0 of the first such block where all are padding.
 */
export function lastRowsBefore(
  configuration: ModelConfiguration,
  observation: ObservationBatch,
  blocks: readonly BlockSettings[],
  block: BlockSettings,
): number[] {
  const validity = validityOf(configuration, observation);
  const before = blocksBefore(configuration, block).map(({ name, length }) => {
    const { start } = rowsOf(blocks, name);
    return { start, length, valid: validity[name] };
  });
  return Array.from({ length: observation.batch }, (_, sample) => {
    for (const { start, length, valid } of before)
      for (let row = length - 1; row >= 0; row--) if (!valid || valid[sample * length + row]) return start + row;
    return before.at(-1)!.start;
  });
}

/** [batch, length]: the row before each row of a block, among the rows of its expert in a pass, numbered through the batch. */
export function rowsBefore(
  configuration: ModelConfiguration,
  observation: ObservationBatch,
  blocks: readonly BlockSettings[],
  name: string,
): Uint32Array {
  const block = blockNamed(configuration, name);
  const last = lastRowsBefore(configuration, observation, blocks, block);
  const { start, of } = rowsOf(blocks, name);
  return Uint32Array.from({ length: last.length * block.length }, (_, i) => {
    const sample = Math.floor(i / block.length);
    const row = i % block.length;
    return sample * of + (row === 0 ? last[sample] : start + row - 1);
  });
}

/** The padding mask of blocks in order: [sequences, tokens]. */
export function validityInput(
  configuration: ModelConfiguration,
  observation: ObservationBatch,
  blocks: readonly BlockSettings[],
): Input {
  const { batch } = observation;
  const validity = validityOf(configuration, observation);
  const tokens = blocks.reduce((sum, block) => sum + block.length, 0);
  const joint = new Uint8Array(batch * tokens).fill(1);
  let start = 0;
  for (const { name, length } of blocks) {
    const own = validity[name];
    for (let sample = 0; own && sample < batch; sample++)
      for (let i = 0; i < length; i++) joint[sample * tokens + start + i] = own[sample * length + i] ? 1 : 0;
    start += length;
  }
  const sequences = batch / stepsInSequence(configuration);
  return integers(joint, [sequences, joint.length / sequences]);
}

/**
 * Positions [batch, tokens] of blocks: each starts after the real tokens of the blocks it comes `after`, and of all blocks with keys of
 * the control steps before in its sequence; padding does not advance.
 */
function jointPositions(
  { blocks: all, history }: Pick<ModelConfiguration, 'blocks' | 'history'>,
  blocks: readonly BlockSettings[],
  batch: number,
  validity: ValidityByBlock,
): Int32Array {
  const real = ({ name, length }: BlockSettings, sample: number, i: number) =>
    (validity[name]?.[sample * length + i] ?? 1) ? 1 : 0;
  const count = (counted: readonly BlockSettings[], sample: number) => {
    let sum = 0;
    for (const block of counted) for (let i = 0; i < block.length; i++) sum += real(block, sample, i);
    return sum;
  };
  const positions: number[] = [];
  let start = 0;
  for (let sample = 0; sample < batch; sample++) {
    start = sample % stepsInSequence({ history }) === 0 ? 0 : start + count(all.filter(hasKeys), sample - 1);
    for (const block of blocks) {
      const before = all.filter(({ name }) => block.after.includes(name));
      let position = start + count(before, sample);
      for (let i = 0; i < block.length; i++) {
        positions.push(position);
        position += real(block, sample, i);
      }
    }
  }
  return Int32Array.from(positions);
}

/**
 * Padding mask [sequences, tokens] and rotary table [sequences, rows, headDimension / 2, 2] for the rows of `running`, which attend to
 * themselves and to the `cached` blocks before them; nothing where no block runs. A sequence is a control step, or all of an example in
 * interleaved history. Their names begin with `at`.
 */
export function sequenceInputs(
  configuration: ModelConfiguration,
  observation: ObservationBatch,
  running: readonly BlockSettings[],
  cached: readonly BlockSettings[] = [],
  at = '',
): Inputs {
  if (running.length === 0) return {};
  const { batch } = observation;
  const { headDimension } = configuration;
  const positions = jointPositions(configuration, running, batch, validityOf(configuration, observation));
  const { base } = backboneOf(configuration).rotary;
  const sequences = batch / stepsInSequence(configuration);
  const shape = [sequences, positions.length / sequences, headDimension / 2, 2];
  return {
    [`${at}validity`]: validityInput(configuration, observation, [...cached, ...running]),
    [`${at}rotaryTable`]: floats(rotaryTable(positions, headDimension, { base }), shape),
  };
}
