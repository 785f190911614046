/** A run of `insula bench attention`: rows measured in the same rounds as matrix products and the arithmetic roof. */
import { type Device, InputError, tensor, withoutTape } from '../../engine/index.ts';
import { type ExpressionSource, matmul, type VariantChoice } from '../../kernels/index.ts';
import { type Direction, waves } from '../measure/operation-task.ts';
import { limited, type Roof, RoofProbes } from '../measure/roofline.ts';
import { measureRun, type Run, type RunBudget, type Timed } from '../measure/run.ts';
import { changeOf, pairedRatio } from '../measure/statistics.ts';
import { groupBy } from '../measure/table.ts';
import { type DispatchSample, type Timer, Work } from '../measure/work.ts';
import { answerLines, settledBy } from './answer.ts';
import { caseOf, DENSE, defaultMasks, maskNames } from './cases.ts';
import { defaultKernels, keyText, type Row, type RowKey, Rows, type Storage, UNFUSED, variantsOf } from './rows.ts';
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
  readonly timer?: Timer;
  /** Whether to measure the times of single dispatches too. */
  readonly profile: boolean;
  readonly tuned: readonly VariantChoice[];
}

export type AttentionRun = Awaited<ReturnType<typeof runAttention>>;
export type ResultRow = AttentionRun['rows'][number];

/** @throws InputError if a shape, a mask or a score cannot be understood, on whatever adapter */
export function expectCases({ shapes, masks, score }: Pick<AttentionRunOptions, 'shapes' | 'masks' | 'score'>): void {
  for (const shape of shapesOf(shapes ?? ['masks-1024'])) {
    for (const name of [DENSE, ...maskNames(masks ?? [])]) caseOf(name, shape, score);
  }
}

/** @throws InputError if options contradict each other or the device */
export async function runAttention(device: Device, options: AttentionRunOptions, budget: RunBudget) {
  const timestamps = device.features.has('timestamp-query');
  const timer = options.timer ?? (timestamps && !device.software ? 'gpu' : 'wall');
  if (!timestamps && (timer === 'gpu' || options.profile))
    throw new InputError(
      `--${options.profile ? 'profile' : 'timer gpu'}: ${device.description} has no timestamps; leave it out`,
    );
  const { shapes, leftOut } = shapesFor(device, options.shapes);
  if (!options.shapes) leftOut.push('other masks, storage and variants than these: --mask, --storage, --variant');
  const rows = await makeRows(device, options, timer, shapes, leftOut);
  if (rows.length === 0) throw new InputError(`nothing to measure: ${leftOut.join('; ')}`);

  const defaults = rows.map(({ key: { storage: dtype }, shape: { headDimension } }) =>
    defaultKernels(device, options.tuned, dtype, headDimension),
  );
  const sizes = [...new Set(rows.map(({ shape }) => matmulSize(shape)))];
  using probes = new RoofProbes(device, timer);
  const run = await measureRun(device, budget, {
    ...{ command: 'bench attention', options, timer, rows },
    anchors: [...sizes.map((size) => matmulWork(device, size, timer)), ...probes.all.map(({ entrant }) => entrant)],
    settled: settledBy(rows.map(({ key }) => key)),
  });
  const roof = probes.roofOf(run.anchors);
  const measured = run.rows.map((own) => resultRow(own, run, roof));
  if (options.profile) for (const [i, { work }] of run.rows.entries()) measured[i].dispatches = await work.profile();
  return {
    ...{ ...run, rows: measured, answer: answerLines(measured), roof },
    // The kernels that `default` stands for at each storage and head dimension, and the rows that were not measured.
    ...{ defaults: [...new Set(defaults)], leftOut },
  };
}

type MeasuredRow = Row & { readonly timed: Timed };

/** A row with what it is compared with in the same rounds. */
function resultRow(own: MeasuredRow, { rows, anchors }: Run<MeasuredRow>, roof: Roof) {
  const { key, shape, work, timed, flops, bytesMoved, operandBytes, planMilliseconds } = own;
  const other = (change: Partial<RowKey>) => {
    const name = keyText({ ...key, ...change });
    return rows.find((row) => row.work.name === name);
  };
  const dense = other({ mask: DENSE });
  const unfused = other({ variant: UNFUSED, storage: 'f32' });
  const size = matmulSize(shape);
  const product = anchors.find(({ name }) => name === matmulName(size));
  const { repeats, stepBytes, workgroups, dispatches: count, bytes } = work;
  const limits = limited({ flops, bytes: bytesMoved ?? bytes, dispatches: count }, timed.time.median, roof);
  // The first row that differs in the mask alone and has the same live work should take the same time.
  const equal = rows.find(
    (row) => row !== own && keyText({ ...row.key, mask: key.mask }) === timed.name && row.flops === flops,
  );
  const toEqual = equal ? pairedRatio(timed.times, equal.timed.times) : null;
  return {
    ...key,
    ...timed,
    sizes: shapeText(shape),
    ...{ repeats, flops, ...limits },
    // Divided by those of the row that differs by a dense mask only.
    toDense: { time: dense ? ratioOf(timed, dense.timed) : null, work: dense ? flops / dense.flops : null },
    // The time of the same engine's unfused operations, if they were measured, divided by this row's.
    unfusedToThis: unfused ? ratioOf(unfused.timed, timed) : null,
    // Set where a row of equal live work takes another time beyond doubt.
    unequal:
      equal && toEqual && ['slower', 'faster'].includes(changeOf(toEqual))
        ? { mask: equal.key.mask, ...toEqual }
        : null,
    matmul: matmulName(size),
    percentOfMatmul: product ? (100 * limits.gigaflops * product.time.median * 1e6) / (2 * size ** 3) : null,
    // Operands, results and intermediates.
    memoryBytes: operandBytes + stepBytes,
    ...{ planMilliseconds, workgroups, dispatches: [] as DispatchSample[] },
  };
}

/** The median ratio of two rows over the rounds, or of their medians where there are too few. */
function ratioOf(own: Timed, other: Timed): number {
  return pairedRatio(own.times, other.times)?.ratio ?? own.time.median / other.time.median;
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
  leftOut.unshift(
    'all but one sample, one group of at most two heads and 512 tokens of each shape: this is a software adapter',
  );
  return { shapes: chosen.map(smaller), leftOut };
}

async function makeRows(
  device: Device,
  options: AttentionRunOptions,
  timer: Timer,
  shapes: readonly AttentionShape[],
  leftOut: string[],
): Promise<Row[]> {
  const maker = new Rows(device, options.tuned, timer);
  const rows: Row[] = [];
  const known = new Set<string>();
  const refused: { readonly reason: string; readonly mask: string }[] = [];
  for (const shape of shapes) {
    const names = options.masks ? maskNames(options.masks) : defaultMasks(shape);
    const cases = [...new Set([DENSE, ...names])].map((name) => caseOf(name, shape, options.score));
    for (const direction of options.directions)
      for (const storage of options.storages)
        for (const variant of variantsOf(device, options.variants, storage, shape.headDimension))
          for (const of of cases) {
            const key = { shape: shape.name, mask: of.name, variant, direction, storage };
            if (known.has(keyText(key))) continue;
            known.add(keyText(key));
            const made = await maker.make(key, shape, of);
            if (typeof made !== 'string') rows.push(made);
            else refused.push({ reason: `${shape.name}, ${storage}, ${variant}: ${made}`, mask: of.name });
          }
  }
  for (const [reason, own] of groupBy(refused, ({ reason }) => reason))
    leftOut.push(`${reason} (${[...new Set(own.map(({ mask }) => mask))].join(', ')})`);
  return rows;
}

/** Size of a square product with about the FLOPs of dense attention forward: 2 n^3 = 4 B T^2 H D. */
function matmulSize(shape: AttentionShape): number {
  const { batch, heads, headDimension } = shape;
  const size = Math.cbrt(2 * batch * tokensOf(shape) ** 2 * heads * headDimension);
  return Math.min(Math.max(64 * Math.round(size / 64), 256), 4096);
}

const matmulName = (size: number) => `matmul ${size} x ${size} x ${size}`;

function matmulWork(device: Device, size: number, timer: Timer): Work {
  const [a, b] = [0, 1].map((seed) => tensor(device, waves(size * size, seed), [size, size]));
  const run = () => void withoutTape(device, () => matmul(a, b));
  return new Work(device, matmulName(size), { prepare: () => run }, timer);
}
