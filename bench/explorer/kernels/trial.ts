/** A kernel file, shipped or edited, at work: its ops beside float64, and their times. */
import { type Device, type Kernel, loadedKernels } from '../../../engine/index.ts';
import { kernelCases, operandsOf } from '../../kernels/cases.ts';
import { opOf } from '../../kernels/problem.ts';
import { modelShapeOf } from '../../kernels/shapes.ts';
import { type Roof, RoofProbes, type WorkCounts } from '../../measure/roofline.ts';
import { type Entrant, inRounds } from '../../measure/rounds.ts';
import { pairedRatio, type Ratio, type Spread, spread } from '../../measure/statistics.ts';
import { Work } from '../../measure/work.ts';
import { runCheck } from '../../verify/check.ts';
import type { Comparison } from '../../verify/compare.ts';
import { everyProblem } from '../../verify/ops.ts';
import { verifyOptimizer } from '../../verify/optimizer.ts';
import { sentenceOf } from './edit.ts';

const products = ['linear', 'matmul', 'gatedMlp', 'blockLinear', 'blockSplitLinear'];

/** The ops that a kernel file computes and `insula verify` checks, the one to begin with first. Other files are for reading. */
const opsOfKernel: Readonly<Record<string, readonly string[]>> = {
  'rms-norm': ['rmsNorm'],
  'layer-norm': ['layerNorm'],
  'adaptive-rms-norm': ['adaptiveRmsNorm', 'gatedResidual'],
  activation: ['gelu', 'swish', 'tanh', 'sigmoid', 'relu'],
  rotary: ['rotary', 'rotaryHeads'],
  softmax: ['softmax'],
  embedding: ['embedding'],
  'linear-cross-entropy': ['linearCrossEntropy'],
  losses: ['meanSquaredError', 'l1', 'huber', 'binaryCrossEntropyWithLogits'],
  matmul: products,
  attention: ['attention'],
  adamw: ['AdamW'],
  'rms-norm.registers': ['rmsNorm'],
  'matmul.software': products,
  'attention.software': ['attention'],
  'attention-rows': ['attention'],
  elementwise: ['add', 'subtract', 'multiply', 'scale'],
  reduce: ['sum', 'mean', 'sumRows'],
  cast: ['cast'],
  flow: ['eulerStep', 'flowInterpolate'],
  lstm: ['lstm'],
  'patch-embedding': ['patchEmbedding'],
  pad: ['pad'],
  tokens: ['concatenateTokens', 'sliceTokens'],
  'token-cache': ['writeTokens'],
  random: ['randomUniform'],
};

export const opsOf = (kernel: string): readonly string[] => opsOfKernel[kernel] ?? [];

const probes = ['bandwidth', 'fused-multiply-add', 'launch'];
/** Names of all kernel files, those with an op first. */
export const kernelNames: readonly string[] = [
  ...Object.keys(opsOfKernel),
  ...[...loadedKernels.keys()].filter((name) => !opsOfKernel[name] && !probes.includes(name)).sort(),
];

/** A result of an op, over all sizes that it was computed at. */
export interface Checked {
  readonly tensor: string;
  /** The comparison with the largest error in units of what is allowed. */
  readonly worst: Comparison;
  readonly sizes: number;
  readonly passed: boolean;
}

/** The error of a comparison in units of what is allowed: 1 still passes. */
export const shareOf = ({ error, tolerance, passed }: Comparison): number =>
  tolerance > 0 ? error / tolerance : passed ? 0 : Number.POSITIVE_INFINITY;

/**
 * The op's output and its gradients beside float64, at every size of `insula verify`, with `edited` in place of the shipped kernel.
 *
 * @throws Error if the op does not run on this device in the file that was edited
 */
export async function checkOp(
  device: Device,
  kernel: string,
  op: string,
  edited: Kernel | null,
  signal: AbortSignal,
): Promise<Checked[]> {
  const problems = everyProblem().filter((problem) => opOf(problem) === op);
  const jobs =
    op === 'AdamW'
      ? [() => verifyOptimizer(device)]
      : problems.map((problem) => () => runCheck(device, { problem, variant: 'shipped', storage: 'f32' }));
  const results: Comparison[] = [];
  for (const job of jobs) {
    signal.throwIfAborted();
    results.push(...(await withKernel(device, edited, job)));
  }
  if (idleEntries(device, loadedKernels.get(kernel)!).length === loadedKernels.get(kernel)!.entryPoints.length)
    throw new Error(
      `This adapter computes ${op} in another kernel file, so there is nothing to check or to time of this one.`,
    );
  const titleOf = ({ tensor }: Comparison) => tensor.split(',')[0];
  return [...new Set(results.map(titleOf))].map((tensor) => {
    const own = results.filter((result) => titleOf(result) === tensor);
    const worst = own.reduce((most, result) => (!(shareOf(result) <= shareOf(most)) ? result : most));
    return { tensor, worst, sizes: own.length, passed: own.every(({ passed }) => passed) };
  });
}

/** Entry points that nothing has run on this device so far: an edit of them changed nothing. */
export function idleEntries(device: Device, { name, entryPoints }: Kernel): string[] {
  const ran = device.pipelines.names();
  return entryPoints.filter((entry) => !ran.some((label) => label.startsWith(`${name} ${entry} `)));
}

/** Runs `work` with the kernel, if there is one, in place of the shipped one; its first error, when no other is left for later work. */
async function withKernel<T>(device: Device, edited: Kernel | null, work: () => Promise<T>): Promise<T> {
  try {
    return await device.withKernels(edited ? [edited] : [], work);
  } catch (error) {
    await device.finish().catch(() => {});
    const [, line, column, reason] = /:(\d+):(\d+) error: (.*)/.exec((error as Error).message) ?? [];
    throw reason ? new Error(sentenceOf({ line: Number(line), column: Number(column), reason })) : error;
  }
}

export interface Timing extends WorkCounts {
  readonly direction: 'forward' | 'backward';
  readonly edited: boolean;
  readonly time: Spread;
  /** The time of an edited kernel by that of the shipped one; null for the shipped one. */
  readonly ratio: Ratio | null;
}

export interface Timed {
  /** The op with its sizes. */
  readonly name: string;
  readonly timings: readonly Timing[];
}

/** Rounds enough for an interval of the ratio, and the milliseconds of a sample that keep them within a second. */
export const [ROUNDS, SAMPLE] = [9, 8];
/** More than anything here takes: who has waited enough stops. */
export const SECONDS = 600;

export const ratioText = ({ ratio, low, high }: Ratio): string =>
  `${ratio.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;

/** The op's times forward and backward, the edited kernel and the shipped one in turns, at a size of a model's step. */
export async function timeOp(
  device: Device,
  kernel: string,
  op: string,
  edited: Kernel | null,
  signal: AbortSignal,
): Promise<Timed> {
  // Only rows of the largest model are so long that they are held in registers.
  const model = modelShapeOf(device, device.software ? undefined : kernel === 'rms-norm.registers' ? 'pi' : 'smol');
  const listed = kernelCases(model).find((own) => opOf(own) === op);
  const problem = everyProblem().findLast((own) => opOf(own) === op);
  using operands = listed ? listed.make(device) : operandsOf(device, problem!);
  const pairs = operands.tasks(device).map(({ direction, task }) =>
    (edited ? [null, edited] : [null]).map((own) => {
      const name = `${direction} ${own ? 'edited' : 'shipped'}`;
      return { direction, own, work: new Work(device, name, task, 'wall', SAMPLE) };
    }),
  );
  const entrants = pairs.flatMap((pair) =>
    pair.map(({ own, work }): Entrant => {
      const sample = () => {
        // As many repeats of both: waiting for the end of a sample costs both the same.
        work.repeats = Math.max(...pair.map((each) => each.work.repeats));
        return work.sample();
      };
      return {
        name: work.name,
        start: () => withKernel(device, own, () => work.start()),
        sample: () => withKernel(device, own, sample),
      };
    }),
  );
  const { times } = await inRounds(entrants, { seconds: SECONDS, rounds: ROUNDS, signal });
  signal.throwIfAborted();
  const timings = pairs.flat().map(({ direction, own, work: { flops, bytes, dispatches } }, i): Timing => {
    const ratio = own ? pairedRatio(times[i], times[i - 1]) : null;
    return { direction, edited: own !== null, time: spread(times[i]), ratio, flops, bytes, dispatches };
  });
  // The gradient of an addition is the gradient itself: nothing runs.
  return { name: (listed ?? problem!).name, timings: timings.filter(({ dispatches }) => dispatches > 0) };
}

const roofs = new WeakMap<Device, Roof>();

/** The roof of this adapter, if it was measured since it was opened. */
export const knownRoof = (device: Device): Roof | null => roofs.get(device) ?? null;

/** Measures it in a few rounds. */
export async function measureRoof(device: Device, signal: AbortSignal): Promise<Roof> {
  using probing = new RoofProbes(device);
  const entrants = probing.all.map(({ entrant }) => entrant);
  const { times } = await inRounds(entrants, { seconds: SECONDS, rounds: device.software ? 3 : ROUNDS, signal });
  signal.throwIfAborted();
  const roof = probing.roofOf(entrants.map(({ name }, i) => ({ name, time: spread(times[i]) })));
  roofs.set(device, roof);
  return roof;
}
