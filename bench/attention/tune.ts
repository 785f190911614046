/** The variants of attention's kernels, and `insula bench attention --tune`, which chooses among them alone. */
import { type Device, tensor } from '../../engine/index.ts';
import {
  type AttentionEntry,
  attention,
  attentionEntries,
  attentionVariants,
  useAttentionVariants,
  type VariantKey,
} from '../../kernels/index.ts';
import { type Candidates, type ChooseOptions, choose } from '../measure/choose.ts';
import type { Task } from '../measure/measure.ts';
import { type Direction, taskOf } from '../measure/operation-task.ts';
import { keepTuning, readTuningFile, type Tuning, tuningPath } from '../measure/tuning.ts';
import { denseCase } from './cases.ts';
import { type Storage, waves } from './rows.ts';
import { type AttentionShape, shapesOf, shapeText, tokensOf } from './shapes.ts';

/** Measured unless --shape says otherwise: less than a minute's work. */
const HARDWARE_SHAPES = ['B=4,T=1024,H=8,D=64', 'B=4,T=1024,H=8,D=128', 'B=4,T=1024,H=8/1,D=256'];
const SOFTWARE_SHAPES = ['B=1,T=128,H=2/1,D=64', 'B=1,T=128,H=2/1,D=128', 'B=1,T=128,H=2/1,D=256'];

export interface AttentionPlaces {
  /** As --shape. */
  readonly shapes?: readonly string[];
  readonly directions: readonly Direction[];
  readonly storages: readonly Storage[];
}

/** Of the first shape of each head dimension. */
export function attentionCandidates(
  device: Device,
  { shapes: written, directions, storages }: AttentionPlaces,
): Candidates<VariantKey>[] {
  const shapes = shapesOf(written ?? (device.software ? SOFTWARE_SHAPES : HARDWARE_SHAPES));
  const entries = attentionEntries.filter((entry) =>
    directions.some((direction) => direction === 'both' || (direction === 'forward') === (entry === 'forward')),
  );
  const first = shapes.filter((shape, i) => shapes.findIndex((own) => own.headDimension === shape.headDimension) === i);
  return first.flatMap((shape) =>
    storages.flatMap((dtype) =>
      entries.map((entry) => {
        const key = { entry, dtype, headDimension: shape.headDimension };
        const task = (variant: string) => taskFor(device, shape, key, variant);
        return { key, variants: attentionVariants(device, key), sizes: shapeText(shape), task };
      }),
    ),
  );
}

/**
 * Measures and writes the file; choices of other places that it holds stay.
 *
 * @throws InputError where the file is another adapter's, or cannot be written
 */
export async function tune(
  device: Device,
  { path = tuningPath(device.description), ...options }: AttentionPlaces & ChooseOptions & { readonly path?: string },
): Promise<{ tuning: Tuning; path: string }> {
  await readTuningFile(device, path, false);
  const attention = await choose(device, attentionCandidates(device, options), options);
  return { tuning: await keepTuning(device, path, { attention, matmul: [] }), path };
}

/** One kernel alone, as far as operands' wishes allow: both backward kernels come with delta. */
function taskFor(device: Device, shape: AttentionShape, key: VariantKey & { dtype: Storage }, variant: string): Task {
  const { batch, heads, kvHeads, headDimension } = shape;
  const { entry, dtype } = key;
  const operand = (rows: number, seed: number, storage: Storage) => {
    const size = [batch, tokensOf(shape), rows, headDimension];
    return tensor(device, waves(batch * tokensOf(shape) * rows * headDimension, seed), size, { dtype: storage });
  };
  const [query, keyTensor, value] = [operand(heads, 1, dtype), operand(kvHeads, 2, dtype), operand(kvHeads, 3, dtype)];
  const wants = (own: AttentionEntry) => entry === own;
  query.wantsGradient = wants('backwardQuery');
  keyTensor.wantsGradient = value.wantsGradient = wants('backwardKeyValue');
  const { table } = denseCase(shape, {});
  return taskOf(
    device,
    entry === 'forward' ? 'forward' : 'backward',
    () => attention(query, keyTensor, value, { table }),
    operand(heads, 4, 'f32'),
    () => useAttentionVariants(device, [{ ...key, variant }]),
  );
}
