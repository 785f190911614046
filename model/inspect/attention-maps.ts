/**
 * Where the rows of a model look: the probabilities of its attention, computed once more on the host in float64 from the queries and
 * keys that the model made, with the table, the padding and the grouped heads of the pass. Runs in a browser, too.
 */
import { InputError } from '../../engine/files/errors.ts';
import { withoutTape } from '../../engine/index.ts';
import { attention } from '../../kernels/reference/attention.ts';
import {
  type BlockSettings,
  blockNamed,
  type ModelConfiguration,
  patchesPerImage,
} from '../architecture/configuration.ts';
import type { AttentionRun } from '../architecture/cross-attention.ts';
import { type Ids, type Inputs, type TrainingBatch, tensorsOf } from '../architecture/inputs.ts';
import type { Model } from '../architecture/model.ts';
import { mapped } from '../architecture/records.ts';
import { trainingBlocks } from '../architecture/sequence.ts';
import { trainingPass } from '../architecture/training-pass.ts';
import type { Image } from '../data/dataset.ts';
import type { Encoding } from '../policy/encoding.ts';

/**
 * By query block and key block: the probability of each row of the key block, as a mean over the rows of the query block that see
 * anything. A row's probabilities have the sum 1, over all key blocks of the joint sequence; those by which it reads memory have a
 * sum of 1 of their own.
 */
export type BlockMaps = Readonly<Record<string, Readonly<Record<string, Float64Array>>>>;

export interface AttentionMaps {
  /** By layer, then by head. */
  readonly layers: readonly (readonly BlockMaps[])[];
}

export interface AttentionMapOptions {
  /** The number of the sequence in the batch: of a control step, or of an example in interleaved history. */
  readonly sequence?: number;
  /** By query block: the only row whose probabilities are wanted, from 0. */
  readonly rows?: Readonly<Record<string, number>>;
}

/** Maps that are being filled. */
type Filled = Record<string, Record<string, Float64Array>>;

/** An attention of a layer whose queries, keys and values, and padding mask, are on their way to the host. */
interface ReadRun extends Pick<AttentionRun, 'table' | 'queries'> {
  readonly layer: number;
  readonly numbers: Promise<Float32Array[]>;
  readonly mask: Promise<Uint32Array>;
  readonly sequences: number;
}

/**
 * The maps of a training pass, from `trainingInputs`; acting attends in the same way. Copies of a block have none of their own: the first
 * one stands for all.
 *
 * @throws InputError if a row is asked for that its block does not have
 */
export async function attentionMaps(
  model: Model,
  inputs: Inputs,
  { sequence = 0, rows = {} }: AttentionMapOptions = {},
): Promise<AttentionMaps> {
  const { device, configuration } = model;
  expectRows(configuration, rows);
  const runs: ReadRun[] = [];
  // The reads begin while the step runs, and the step ends before their numbers are there: the device is free for other work.
  withoutTape(device, () =>
    device.step(() => {
      const onAttention = (layer: number, { table, queries, validity, query, key, value }: AttentionRun) => {
        const numbers = Promise.all([query, key, value].map((tensor) => tensor.read()));
        runs.push({ layer, table, queries, numbers, mask: validity.read('u32'), sequences: validity.shape[0] });
      };
      trainingPass(model, tensorsOf(device, inputs), { allRows: true, onAttention });
    }),
  );
  const layers = Array.from({ length: configuration.depth }, () =>
    Array.from({ length: configuration.heads }, (): Filled => ({})),
  );
  // A block has maps of its own in the joint sequence, and by each cross-attention.
  for (const run of runs)
    for (const [head, sums] of (await sumsOf(configuration, run, sequence, rows)).entries())
      for (const [query, byKey] of Object.entries(sums)) {
        // The probabilities of a row have the sum 1, and those of all rows as many as there are rows.
        const count = sumOf(Object.values(byKey).map(sumOf));
        const maps = layers[run.layer][head];
        maps[query] = { ...maps[query], ...mapped(byKey, (own) => own.map((sum) => sum / count)) };
      }
  return { layers };
}

const sumOf = (values: ArrayLike<number>) => Array.from(values).reduce((sum, value) => sum + value, 0);

/** By head, query block and key block: the probabilities of an attention, summed over the rows of the query block. */
async function sumsOf(
  configuration: ModelConfiguration,
  { table, queries, numbers, mask, sequences }: ReadRun,
  sequence: number,
  rows: NonNullable<AttentionMapOptions['rows']>,
): Promise<Filled[]> {
  const { heads, kvHeads, headDimension } = configuration;
  const copies = trainingBlocks(configuration).filter(({ name, tableName }) => name !== tableName);
  const own = <T extends Float32Array | Uint32Array>(all: T) => {
    const size = all.length / sequences;
    return all.subarray(sequence * size, (sequence + 1) * size) as T;
  };
  const [query, key, value] = (await numbers).map(own);
  const sums = Array.from({ length: heads }, (): Filled => ({}));
  const owners = table.layout.blocks.flatMap((block) => Array.from({ length: block.length }, () => block));
  attention({
    ...{ table, batch: 1, heads, kvHeads, headDimension, query, key, value, validity: own(await mask) },
    queries: queries.map((given) => (typeof given === 'string' ? given : given.block)),
    onRow(_, head, token, keys, weights) {
      const { name, start } = owners[token];
      if (rows[name] !== undefined && rows[name] !== token - start) return;
      if (copies.some(({ tableName }) => name.startsWith(tableName))) return;
      sums[head][name] ??= {};
      keys.forEach((seen, i) => {
        const { name: keyName, start: keyStart, length } = owners[seen];
        sums[head][name][keyName] ??= new Float64Array(length);
        sums[head][name][keyName][seen - keyStart] += weights[i];
      });
    },
  });
  return sums;
}

function expectRows(configuration: ModelConfiguration, rows: Readonly<Record<string, number>>): void {
  for (const [name, row] of Object.entries(rows)) {
    const { block } = mappedBlock(configuration, name);
    if (!(row >= 0 && row < block.length))
      throw new InputError(`block '${name}' has rows 0 to ${block.length - 1}, and no row ${row}`);
  }
}

/** The mean over heads, or the maps of one head. @throws InputError if there is no such layer or head */
export function mapsAt({ layers }: AttentionMaps, layer: number, head: number | null = null): BlockMaps {
  if (!layers[layer])
    throw new InputError(`there is no layer ${layer}: the model has layers 0 to ${layers.length - 1}`);
  const heads = layers[layer];
  if (head !== null && !heads[head])
    throw new InputError(`there is no head ${head}: the model has heads 0 to ${heads.length - 1}`);
  if (head !== null) return heads[head];
  return mapped(heads[0], (byKey, query) =>
    mapped(byKey, (own, key) =>
      own.map((_, row) => heads.reduce((sum, maps) => sum + maps[query][key][row], 0) / heads.length),
    ),
  );
}

/** The share of a query block's attention that falls on each key block. */
export const sharesOf = (maps: BlockMaps): Record<string, Record<string, number>> =>
  mapped(maps, (byKey) => mapped(byKey, sumOf));

/** A map over the patches of one picture, row by row. */
export interface PatchMap {
  readonly down: number;
  readonly across: number;
  readonly values: Float64Array;
}

/** Why no map lies over a picture; null where maps do. */
export function noPictureMaps({ vision }: Pick<ModelConfiguration, 'vision'>): string | null {
  if (!vision) return 'this model sees no pictures';
  return vision.resampler
    ? 'the rows of a picture are those of a resampler, which mixes its patches: they have no place in the picture'
    : null;
}

/**
 * The part of a map over a block of images that lies over each camera's picture.
 *
 * @throws InputError if the rows of a picture have no place in it
 */
export function patchMaps({ vision }: Pick<ModelConfiguration, 'vision'>, map: Float64Array): PatchMap[] {
  const reason = noPictureMaps({ vision });
  if (!vision || reason) throw new InputError(reason!);
  const size = patchesPerImage(vision);
  const [down, across] = [vision.imageHeight / vision.patch, vision.imageWidth / vision.patch];
  return Array.from({ length: vision.cameras }, (_, i) => ({
    ...{ down, across },
    values: map.slice(i * size, (i + 1) * size),
  }));
}

/** The pictures of a control step as the model sees them, one for each camera; null where the camera is absent. */
export function picturesOf(
  { vision }: Pick<ModelConfiguration, 'vision'>,
  { images, cameraValid }: Pick<TrainingBatch, 'images' | 'cameraValid'>,
  step: number,
): (Image | null)[] {
  if (!vision || !images) return [];
  const { imageHeight: height, imageWidth: width, cameras } = vision;
  const size = height * width * 3;
  return Array.from({ length: cameras }, (_, i) => {
    const slot = step * cameras + i;
    if (cameraValid && !cameraValid[slot]) return null;
    const pixels = Uint8Array.from(images.subarray(slot * size, (slot + 1) * size), (value) =>
      Math.round(127.5 * (Math.min(1, Math.max(-1, value)) + 1)),
    );
    return { width, height, pixels };
  });
}

/**
 * The text of each real token of a control step's block; a token that is no text is its number in the vocabulary, and so are all without
 * an encoding.
 */
export function tokenTexts(encoding: Encoding | null, { ids, valid }: Ids, batch: number, step: number): string[] {
  const length = ids.length / batch;
  const special = new Map(Object.entries(encoding?.text.special ?? {}).map(([name, id]) => [id, `<${name}>`]));
  const texts = new Set(encoding?.textIds);
  return Array.from({ length }, (_, i) => step * length + i).flatMap((at) => {
    if (!valid[at]) return [];
    const id = ids[at];
    return [special.get(id) ?? (texts.has(id) ? encoding!.decodeText([id]) : `<${id}>`)];
  });
}

/** A block of a sequence by its name in a map: `image`, or in a later control step of interleaved history `image step 2`. */
export interface MappedBlock {
  readonly block: BlockSettings;
  /** The control step in its sequence, from 0. */
  readonly step: number;
}

export function mappedBlock({ blocks }: Pick<ModelConfiguration, 'blocks'>, name: string): MappedBlock {
  const [base, step = '1'] = name.split(/ step (?=\d+$)/);
  return { block: blockNamed({ blocks }, base), step: Number(step) - 1 };
}
