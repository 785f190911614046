/** The token sequence of a pass: the blocks that run, their rows, padding and positions. */
import { type AttentionTable, attentionTable, type Edge, rotaryTable, sequence } from '../../kernels/index.ts';
import { backboneOf } from './backbones/index.ts';
import {
  type BlockSettings,
  blockNamed,
  blocksBefore,
  type ModelConfiguration,
  sourceOf,
  tokensPerImage,
} from './configuration.ts';
import { expectLength, floats, type Inputs, integers, type ObservationBatch } from './inputs.ts';

/** The blocks of `names`, in that order, with one entry for each copy of a repeated block. */
export function copiesOf(
  configuration: ModelConfiguration,
  names: readonly string[],
  repeated: boolean,
): BlockSettings[] {
  return names
    .map((name) => blockNamed(configuration, name))
    .flatMap((block) => Array.from({ length: repeated ? (block.repeats ?? 1) : 1 }, () => block));
}

/** The name of a copy in the attention table: copy 0 has the name of its block. */
const nameOfCopy = (name: string, copy: number): string => (copy === 0 ? name : `${name} copy ${copy + 1}`);

/** The named blocks in the attention table: `action`, `action copy 2`, ... */
export function tableNames(configuration: ModelConfiguration, names: readonly string[], repeated: boolean): string[] {
  const counts = new Map<string, number>();
  return copiesOf(configuration, names, repeated).map(({ name }) => {
    const copy = counts.get(name) ?? 0;
    counts.set(name, copy + 1);
    return nameOfCopy(name, copy);
  });
}

/** The attention table over the named blocks; edges to other blocks are left out. */
export function tableOf(
  configuration: ModelConfiguration,
  names: readonly string[],
  { repeated = false }: { repeated?: boolean } = {},
): AttentionTable {
  const blocks = copiesOf(configuration, names, repeated);
  const own = tableNames(configuration, names, repeated);
  const copies = (name: string) => own.filter((_, i) => blocks[i].name === name);
  const rows: Record<string, Record<string, Edge>> = {};
  for (const { query, key, edge } of configuration.edges) {
    const keys = copies(key);
    copies(query).forEach((row, copy) => {
      // Copies see themselves, and of other blocks that are repeated the first copy.
      const seen = query === key ? keys[copy] : keys[0];
      if (seen !== undefined) rows[row] = { ...rows[row], [seen]: edge };
    });
  }
  return attentionTable(sequence(own.map((name, i) => [name, blocks[i].length] as const)), rows);
}

/** Rows of an expert that belong to a block, among the blocks of a pass. */
export interface RowRange {
  readonly start: number;
  readonly length: number;
  /** Rows of the expert in all. */
  readonly of: number;
}

/** The rows of a block, copies included, among the rows of its expert in a pass over `names`. */
export function rowsOf(
  configuration: ModelConfiguration,
  names: readonly string[],
  name: string,
  repeated: boolean,
): RowRange {
  let [start, length, of] = [0, 0, 0];
  const { weights } = blockNamed(configuration, name);
  for (const block of copiesOf(configuration, names, repeated)) {
    if (block.weights !== weights) continue;
    if (block.name === name) length += block.length;
    else if (length === 0) start += block.length;
    of += block.length;
  }
  return { start, length, of };
}

/** The padding mask of each block: [batch, length], 1 for real tokens. A block that is missing has no padding. */
export type ValidityByBlock = Readonly<Record<string, ArrayLike<number>>>;

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
 * In each sample the row before the first row of a block, among the rows of its expert in a pass over `names`: the last real row of the
 * block before it; row 0 of the first such block where all are padding.
 */
export function lastRowsBefore(
  configuration: ModelConfiguration,
  observation: ObservationBatch,
  names: readonly string[],
  block: BlockSettings,
  repeated: boolean,
): number[] {
  const validity = validityOf(configuration, observation);
  const before = blocksBefore(configuration, block).map(({ name, length }) => {
    const { start } = rowsOf(configuration, names, name, repeated);
    return { start, length, valid: validity[name] };
  });
  return Array.from({ length: observation.batch }, (_, sample) => {
    for (const { start, length, valid } of before)
      for (let row = length - 1; row >= 0; row--) if (!valid || valid[sample * length + row]) return start + row;
    return before.at(-1)!.start;
  });
}

/** [batch, length]: the row before each row of a block, among the rows of its expert in a pass over `names`, numbered through the batch. */
export function rowsBefore(
  configuration: ModelConfiguration,
  observation: ObservationBatch,
  names: readonly string[],
  name: string,
  repeated: boolean,
): Uint32Array {
  const block = blockNamed(configuration, name);
  const last = lastRowsBefore(configuration, observation, names, block, repeated);
  const { start, of } = rowsOf(configuration, names, name, repeated);
  return Uint32Array.from({ length: last.length * block.length }, (_, i) => {
    const sample = Math.floor(i / block.length);
    const row = i % block.length;
    return sample * of + (row === 0 ? last[sample] : start + row - 1);
  });
}

/** The padding mask of blocks in order: [batch, tokens]. */
export function jointValidity(blocks: readonly BlockSettings[], batch: number, validity: ValidityByBlock): Uint8Array {
  const tokens = blocks.reduce((sum, block) => sum + block.length, 0);
  const joint = new Uint8Array(batch * tokens).fill(1);
  let start = 0;
  for (const { name, length } of blocks) {
    const own = validity[name];
    for (let sample = 0; own && sample < batch; sample++)
      for (let i = 0; i < length; i++) joint[sample * tokens + start + i] = own[sample * length + i] ? 1 : 0;
    start += length;
  }
  return joint;
}

/** Positions [batch, tokens] of blocks: each starts after the real tokens of the blocks it comes `after`; padding does not advance. */
export function jointPositions(
  all: readonly BlockSettings[],
  blocks: readonly BlockSettings[],
  batch: number,
  validity: ValidityByBlock,
): Int32Array {
  const real = ({ name, length }: BlockSettings, sample: number, i: number) => {
    const own = validity[name];
    return own ? (own[sample * length + i] ? 1 : 0) : 1;
  };
  const positions: number[] = [];
  for (let sample = 0; sample < batch; sample++)
    for (const block of blocks) {
      let position = 0;
      for (const before of all)
        if (block.after.includes(before.name))
          for (let i = 0; i < before.length; i++) position += real(before, sample, i);
      for (let i = 0; i < block.length; i++) {
        positions.push(position);
        position += real(block, sample, i);
      }
    }
  return Int32Array.from(positions);
}

/** Padding mask and rotary table for the rows of `names`, which attend to themselves and to the `cached` blocks before them. */
export function sequenceInputs(
  configuration: ModelConfiguration,
  observation: ObservationBatch,
  names: readonly string[],
  { cached = [], repeated = false }: { cached?: readonly string[]; repeated?: boolean } = {},
): Inputs {
  const { batch } = observation;
  const { headDimension, blocks } = configuration;
  const validity = validityOf(configuration, observation);
  const keys = [...copiesOf(configuration, cached, false), ...copiesOf(configuration, names, repeated)];
  const joint = jointValidity(keys, batch, validity);
  const positions = jointPositions(blocks, copiesOf(configuration, names, repeated), batch, validity);
  const { base } = backboneOf(configuration).rotary;
  return {
    validity: integers(joint, [batch, joint.length / batch]),
    rotaryTable: floats(rotaryTable(positions, headDimension, { base }), [
      batch,
      positions.length / batch,
      headDimension / 2,
      2,
    ]),
  };
}
