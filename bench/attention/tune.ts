/** The choices among the variants of attention's kernels, for `insula bench --tune` and `insula bench attention --tune`. */
import { type Device, tensor } from '../../engine/index.ts';
import {
  attention,
  attentionEntries,
  attentionVariants,
  useAttentionVariants,
  type VariantKey,
} from '../../kernels/index.ts';
import { type Candidates, worthMeasuring } from '../measure/candidates.ts';
import { type Direction, taskOf, waves } from '../measure/operation-task.ts';
import type { Task } from '../measure/work.ts';
import { caseOf, DENSE } from './cases.ts';
import { entriesOf, type Storage } from './rows.ts';
import { type AttentionShape, shapesOf, shapeText, tokensOf } from './shapes.ts';

/** The shapes that are measured without --shape; they take less than a minute. */
const HARDWARE_SHAPES = ['B=4,T=1024,H=8,D=64', 'B=4,T=1024,H=8,D=128', 'B=4,T=1024,H=8/1,D=256'];
const SOFTWARE_SHAPES = ['B=1,T=128,H=2/1,D=64', 'B=1,T=128,H=2/1,D=128', 'B=1,T=128,H=2/1,D=256'];

/** The choices to make for attention, at the first shape of each head dimension. */
export function attentionCandidates(
  device: Device,
  {
    shapes: written,
    directions,
    storages,
  }: { shapes?: readonly string[]; directions: readonly Direction[]; storages: readonly Storage[] },
): Candidates<VariantKey>[] {
  const shapes = shapesOf(written ?? (device.software ? SOFTWARE_SHAPES : HARDWARE_SHAPES));
  const entries = attentionEntries.filter((entry) => directions.some((own) => entriesOf(own).includes(entry)));
  const first = shapes.filter((shape, i) => shapes.findIndex((own) => own.headDimension === shape.headDimension) === i);
  return first.flatMap((shape) =>
    storages.flatMap((dtype) =>
      entries.map((entry) => {
        const key = { entry, dtype, headDimension: shape.headDimension };
        const task = (variant: string) => taskFor(device, shape, key, variant);
        return { key, variants: worthMeasuring(attentionVariants(device, key)), sizes: shapeText(shape), task };
      }),
    ),
  );
}

/** The task of one kernel; the gradients that operands want select it, and both backward kernels need delta too. */
function taskFor(device: Device, shape: AttentionShape, key: VariantKey & { dtype: Storage }, variant: string): Task {
  const { batch, heads, kvHeads, headDimension } = shape;
  const { entry, dtype } = key;
  const operand = (rows: number, seed: number, storage: Storage) => {
    const size = [batch, tokensOf(shape), rows, headDimension];
    return tensor(device, waves(batch * tokensOf(shape) * rows * headDimension, seed), size, { dtype: storage });
  };
  const [query, keyTensor, value] = [operand(heads, 1, dtype), operand(kvHeads, 2, dtype), operand(kvHeads, 3, dtype)];
  query.wantsGradient = entry === 'backwardQuery';
  keyTensor.wantsGradient = value.wantsGradient = entry === 'backwardKeyValue';
  const { table } = caseOf(DENSE, shape, {});
  return taskOf(
    device,
    entry === 'forward' ? 'forward' : 'backward',
    () => attention(query, keyTensor, value, { table }),
    operand(heads, 4, 'f32'),
    () => useAttentionVariants(device, [{ ...key, variant }]),
  );
}
