/** A run of `insula bench attention`: rows measured in the same rounds as matrix products and the arithmetic roof. */
import * as v from 'valibot';
import { type Device, InputError, tensor, withoutTape } from '../../engine/index.ts';
import { type ExpressionSource, matmul, type VariantChoice } from '../../kernels/index.ts';
import { type Measured, type MeasureOptions, measure, spreadSchema, type Task } from '../measure/measure.ts';
import { type Direction, directions } from '../measure/operation-task.ts';
import { provenance } from '../measure/provenance.ts';
import { arithmeticProbe } from '../measure/roofline.ts';
import { savedRunSchema } from '../measure/saved-run.ts';
import { caseOf, DENSE, defaultMasks, denseCase, maskNames } from './cases.ts';
import {
  DEFAULT,
  defaultKernels,
  type Row,
  type RowKey,
  Rows,
  type Storage,
  storages,
  UNFUSED,
  variantsOf,
} from './rows.ts';
import { type AttentionShape, shapesOf, shapeText, smaller, suite, tokensOf } from './shapes.ts';

export interface AttentionRunOptions {
  /** Values of --shape; by default a few of the suite, smaller ones on a software adapter. */
  readonly shapes?: readonly string[];
  /** Values of --mask; by default those that suit the shape. */
  readonly masks?: readonly string[];
  readonly score: ExpressionSource;
  readonly variants: readonly string[];
  readonly directions: readonly Direction[];
  readonly storages: readonly Storage[];
  readonly rounds: number;
  readonly seconds: number;
  readonly timer?: Timer;
  /** Whether to measure the times of single dispatches too. */
  readonly profile: boolean;
  readonly tuned: readonly VariantChoice[];
}

const timers = ['gpu', 'wall'] as const;
/** The times that rates and ratios are computed from: GPU timestamps, or the time from submission to end. */
export type Timer = (typeof timers)[number];

const FORMAT = 'insula bench attention 1' as const;

const times = { wall: spreadSchema, gpu: v.nullable(spreadSchema) };
const rowSchema = v.object({
  ...{ shape: v.string(), mask: v.string(), variant: v.string() },
  ...{ direction: v.picklist(directions), storage: v.picklist(storages) },
  /** Name of the matrix product that the row is compared with. */
  matmul: v.string(),
  ...times,
});
const anchorSchema = v.object({ name: v.string(), ...times });
export const attentionRunSchema = v.pipe(
  savedRunSchema(FORMAT, rowSchema, {
    timer: v.picklist(timers),
    matmuls: v.pipe(v.array(anchorSchema), v.readonly()),
  }),
  v.check(({ timer, rows, matmuls }) => timer === 'wall' || [...rows, ...matmuls].every(({ gpu }) => gpu), 'GPU times'),
);
/** The part of an earlier run that a later one is compared with. */
export type SavedAttentionRun = v.InferOutput<typeof attentionRunSchema>;

export type BenchResult = Awaited<ReturnType<typeof runAttention>>;
export type ResultRow = BenchResult['rows'][number];

/** @throws InputError if a shape, a mask or a score cannot be understood, on whatever adapter */
export function expectCases({ shapes, masks, score }: Pick<AttentionRunOptions, 'shapes' | 'masks' | 'score'>): void {
  for (const shape of shapesOf(shapes ?? ['masks-1024'])) {
    denseCase(shape, score);
    for (const name of maskNames(masks ?? [])) caseOf(name, shape, score);
  }
}

/** Measures the rows and reports progress to `onProgress`. @throws InputError if options contradict each other or the device */
export async function runAttention(
  device: Device,
  options: AttentionRunOptions,
  onProgress?: MeasureOptions['onProgress'],
) {
  const begin = performance.now();
  const timestamps = device.features.has('timestamp-query');
  const timer = options.timer ?? (timestamps && !device.software ? 'gpu' : 'wall');
  if (!timestamps && (timer === 'gpu' || options.profile))
    throw new InputError(
      `--${options.profile ? 'profile' : 'timer gpu'}: ${device.description} has no timestamps; leave it out`,
    );
  const { shapes, leftOut } = shapesFor(device, options.shapes);
  if (!options.shapes) leftOut.push('other masks, storage and variants than these: --mask, --storage, --variant');
  const rows = await makeRows(device, options, shapes, leftOut);
  if (rows.length === 0) throw new InputError(`nothing to measure: ${leftOut.join('; ')}`);

  const defaults = rows
    .filter(({ key }) => key.variant === DEFAULT)
    .map(({ key: { storage: dtype }, shape: { headDimension } }) =>
      defaultKernels(device, options.tuned, dtype, headDimension),
    );
  const sizes = [...new Set(rows.map(({ shape }) => matmulSize(shape)))];
  const roof = arithmeticProbe(device);
  const tasks = [...rows.map(({ task }) => task), ...sizes.map((size) => matmulTask(device, size)), roof.task];
  const { rounds, seconds } = options;
  const wanted = { rounds, seconds, timestamps: timer === 'gpu' || options.profile, onProgress };
  const measured = await measure(device, tasks, wanted);
  const milliseconds = ({ wall, gpu }: Measured) => (timer === 'gpu' ? gpu! : wall).median;
  /** A known amount of arithmetic, measured in the same rounds. */
  const anchor = (name: string, flops: number, own: Measured) => {
    const { wall, gpu } = own;
    return { name, wall, gpu, gigaflops: flops / milliseconds(own) / 1e6 };
  };
  const matmuls = sizes.map((size, i) => anchor(matmulName(size), 2 * size ** 3, measured[rows.length + i]));
  const roofAnchor = anchor(roof.name, roof.flops, measured.at(-1)!);
  const time = (wanted: RowKey) => {
    const at = rows.findIndex(({ key }) => keyText(key) === keyText(wanted));
    return at < 0 ? null : { milliseconds: milliseconds(measured[at]), flops: rows[at].flops };
  };
  return {
    format: FORMAT,
    ...provenance(device),
    options,
    timer,
    seconds: (performance.now() - begin) / 1000,
    rows: rows.map(({ key, shape, flops, bytesMoved, operandBytes }, i) => {
      const { wall, gpu, repeats, stepBytes, workgroups, dispatchTimes: dispatches } = measured[i];
      const own = milliseconds(measured[i]);
      const dense = time({ ...key, mask: DENSE })!;
      const unfused = time({ ...key, variant: UNFUSED, storage: 'f32' });
      const product = matmuls.find(({ name }) => name === matmulName(matmulSize(shape)))!;
      const gigaflops = flops / own / 1e6;
      return {
        ...key,
        sizes: shapeText(shape),
        ...{ wall, gpu, repeats, flops, gigaflops },
        // Divided by those of the row that differs by a dense mask only.
        toDense: { time: own / dense.milliseconds, work: flops / dense.flops },
        // The time of the same engine's unfused operations, if they were measured, divided by this row's.
        unfusedToThis: unfused && unfused.milliseconds / own,
        matmul: product.name,
        percentOfMatmul: (100 * gigaflops) / product.gigaflops,
        percentOfRoof: (100 * gigaflops) / roofAnchor.gigaflops,
        // Operands, results and intermediates.
        memoryBytes: operandBytes + stepBytes,
        ...{ bytesMoved, workgroups, dispatches },
      };
    }),
    matmuls,
    roof: roofAnchor,
    // The form and the kernels that `default` stands for at each storage and head dimension, and the rows that were not measured.
    ...{ defaults: [...new Set(defaults)], leftOut },
  };
}

export function keyText({ shape, mask, variant, direction, storage }: RowKey): string {
  return [shape, mask, variant, direction, storage].join(' | ');
}

/** The shapes of --shape; without it a few of the suite, and lines about the shapes that are left out. */
function shapesFor(device: Device, named?: readonly string[]): { shapes: AttentionShape[]; leftOut: string[] } {
  if (named) return { shapes: shapesOf(named), leftOut: [] };
  const chosen = shapesOf([
    device.software ? 'masks-1024,paligemma-b1' : 'masks-1024,masks-4096,vla-small,smolvla,paligemma',
  ]);
  const rest = Object.values(suite)
    .flat()
    .filter(({ name }) => !chosen.some((shape) => shape.name === name));
  const leftOut = [`shapes ${rest.map(({ name }) => name).join(', ')}: name them by --shape, or all by --shape suite`];
  if (!device.software) return { shapes: chosen, leftOut };
  leftOut.unshift('all but one sample and one group of at most two heads of each shape: this is a software adapter');
  return { shapes: chosen.map(smaller), leftOut };
}

async function makeRows(
  device: Device,
  options: AttentionRunOptions,
  shapes: readonly AttentionShape[],
  leftOut: string[],
): Promise<Row[]> {
  const maker = new Rows(device, options.tuned);
  const rows: Row[] = [];
  const known = new Set<string>();
  const without = new Map<string, Set<string>>();
  for (const shape of shapes) {
    const names = options.masks ? maskNames(options.masks) : defaultMasks(shape);
    const others = [...new Set(names)].filter((name) => name !== DENSE);
    const cases = [denseCase(shape, options.score), ...others.map((name) => caseOf(name, shape, options.score))];
    for (const direction of options.directions)
      for (const storage of options.storages)
        for (const variant of variantsOf(device, options.variants, storage, shape.headDimension))
          for (const of of cases) {
            const key = { shape: shape.name, mask: of.name, variant, direction, storage };
            if (known.has(keyText(key))) continue;
            known.add(keyText(key));
            const made = await maker.make(key, shape, of);
            if (typeof made !== 'string') rows.push(made);
            else {
              const reason = `${shape.name}, ${storage}, ${variant}: ${made}`;
              without.set(reason, (without.get(reason) ?? new Set()).add(of.name));
            }
          }
  }
  for (const [reason, masks] of without) leftOut.push(`${reason} (${[...masks].join(', ')})`);
  return rows;
}

/** Size of a square product with about the FLOPs of dense attention forward: 2 n^3 = 4 B T^2 H D. */
function matmulSize(shape: AttentionShape): number {
  const { batch, heads, headDimension } = shape;
  const size = Math.cbrt(2 * batch * tokensOf(shape) ** 2 * heads * headDimension);
  return Math.min(Math.max(64 * Math.round(size / 64), 256), 4096);
}

const matmulName = (size: number) => `matmul ${size} x ${size} x ${size}`;

function matmulTask(device: Device, size: number): Task {
  const numbers = Float32Array.from({ length: size * size }, (_, i) => Math.sin(i));
  const [a, b] = [0, 1].map(() => tensor(device, numbers, [size, size]));
  return { prepare: () => () => void withoutTape(device, () => matmul(a, b)) };
}
