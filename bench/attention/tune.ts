/** `insula bench attention --tune`: every variant of every kernel beside each other, and the best of them into the adapter's file. */
import { type Device, tensor } from '../../engine/index.ts';
import {
  type AttentionEntry,
  attention,
  attentionEntries,
  attentionVariants,
  useAttentionVariants,
  type VariantKey,
} from '../../kernels/index.ts';
import { type MeasureOptions, measure, type Spread, type Task } from '../measure.ts';
import { provenance } from '../provenance.ts';
import {
  readTuningFile,
  TUNING_FORMAT,
  type TunedChoice,
  type Tuning,
  tuningPath,
  writeAdapterFile,
} from '../tuning.ts';
import { denseCase } from './cases.ts';
import { type Direction, type Storage, taskOf, waves } from './rows.ts';
import { type AttentionShape, shapesOf, shapeText, tokensOf } from './shapes.ts';
import { aligned, digits } from './text.ts';

/** Measured unless --shape says otherwise: less than a minute's work. */
const HARDWARE_SHAPES = ['B=4,T=1024,H=8,D=64', 'B=4,T=1024,H=8,D=128', 'B=4,T=1024,H=8/1,D=256'];
const SOFTWARE_SHAPES = ['B=1,T=128,H=2/1,D=64', 'B=1,T=128,H=2/1,D=128', 'B=1,T=128,H=2/1,D=256'];

export interface TuneOptions {
  /** As --shape. */
  readonly shapes?: readonly string[];
  readonly directions: readonly Direction[];
  readonly storages: readonly Storage[];
  readonly rounds: number;
  readonly seconds: number;
  /** The file to write; default the one that is kept for the adapter. */
  readonly path?: string;
}

/**
 * Measures and writes the file. The first shape of each head dimension is measured; choices for others that the file holds stay.
 *
 * @throws InputError where the file is another adapter's, or cannot be written
 */
export async function tune(
  device: Device,
  options: TuneOptions,
  onProgress?: MeasureOptions['onProgress'],
): Promise<{ tuning: Tuning; path: string }> {
  const path = options.path ?? tuningPath(device.description);
  const before = await readTuningFile(device, path, false);
  const { directions, storages } = options;
  const shapes = shapesOf(options.shapes ?? (device.software ? SOFTWARE_SHAPES : HARDWARE_SHAPES));
  const entries = attentionEntries.filter((entry) =>
    directions.some((direction) => direction === 'both' || (direction === 'forward') === (entry === 'forward')),
  );
  const first = shapes.filter((shape, i) => shapes.findIndex((own) => own.headDimension === shape.headDimension) === i);
  const keys = first.flatMap((shape) =>
    storages.flatMap((dtype) =>
      entries.map((entry) => ({ shape, key: { entry, dtype, headDimension: shape.headDimension } })),
    ),
  );
  const candidates = keys.flatMap(({ shape, key }) =>
    attentionVariants(device, key).map((variant) => ({ shape, key, variant })),
  );
  const tasks = candidates.map(({ shape, key, variant }) => taskFor(device, shape, key, variant));
  const { rounds, seconds } = options;
  const measured = await measure(device, tasks, { rounds, seconds, timestamps: false, onProgress });

  const { commit, date } = provenance(device);
  const chosen = keys.map(({ shape, key }): TunedChoice => {
    const own = candidates.flatMap((candidate, i) =>
      candidate.key === key ? [{ variant: candidate.variant, wall: measured[i].wall }] : [],
    );
    const milliseconds = Object.fromEntries(own.map(({ variant, wall }) => [variant, wall.median]));
    return { ...key, variant: best(own), milliseconds, sizes: shapeText(shape), date, commit };
  });
  const same = (a: VariantKey) => (b: VariantKey) =>
    a.entry === b.entry && a.dtype === b.dtype && a.headDimension === b.headDimension;
  const kept = (before?.attention ?? []).filter(
    (choice) => !chosen.some(same(choice)) && attentionVariants(device, choice).includes(choice.variant),
  );
  const tuning: Tuning = { format: TUNING_FORMAT, adapter: device.description, attention: [...kept, ...chosen] };
  await writeAdapterFile(path, tuning);
  return { tuning, path };
}

/** The shipped variant, which comes first, unless another is faster by more than both spreads. */
export function best(measured: readonly { readonly variant: string; readonly wall: Spread }[]): string {
  const [shipped, ...others] = measured;
  const faster = others.filter(({ wall }) => wall.upperQuartile < shipped.wall.lowerQuartile);
  return [shipped, ...faster].sort((a, b) => a.wall.median - b.wall.median)[0].variant;
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

export function tuneLines({ attention }: Tuning, path: string): string[] {
  const rows = attention.map(({ entry, dtype, headDimension, variant, sizes, milliseconds }) => [
    entry,
    dtype,
    String(headDimension),
    variant,
    Object.entries(milliseconds)
      .map(([name, median]) => `${name} ${digits(median)}`)
      .join(', '),
    sizes,
  ]);
  return [
    ...aligned([['kernel', 'storage', 'D', 'chosen', 'ms of each variant, delta included', 'measured at'], ...rows]),
    `written to ${path}; commands on this adapter use it from now on, unless --tuning names another file`,
  ];
}
