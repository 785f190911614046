/** A run of `insula verify`: every op in every variant, and a training step, beside float64. */
import { release } from 'node:os';
import { reasonOf } from '../../engine/files/errors.ts';
import { isLike, nearest } from '../../engine/files/nearest.ts';
import { type Device, InputError, quote } from '../../engine/index.ts';
import { opOf } from '../kernels/problem.ts';
import { provenance } from '../measure/provenance.ts';
import { runCheck } from './check.ts';
import { type Comparison, ulpBins } from './compare.ts';
import { verifyOptimizer } from './optimizer.ts';
import { verifyTraining } from './training.ts';
import { checksOf } from './variants.ts';

interface VerifyOptions {
  /** Names of ops; `*` stands for any letters. An empty list stands for all. */
  readonly only: readonly string[];
  /** Also every variant of the kernels made for GPUs on a software adapter, which compiles them for minutes. */
  readonly every: boolean;
  onProgress?(what: string, done: number, total: number): void;
}

export type VerifyResult = Awaited<ReturnType<typeof verify>>;

/** @throws InputError if a name of `only` fits no op */
export async function verify(device: Device, { only, every, onProgress }: VerifyOptions) {
  const begin = performance.now();
  const { checks, omitted } = checksOf(device, every);
  const jobs = [
    ...checks.map((check) => ({
      ...{ op: opOf(check.problem), name: check.problem.name, variant: check.variant },
      run: () => runCheck(device, check),
    })),
    { op: 'AdamW', name: 'AdamW', variant: 'shipped', run: () => verifyOptimizer(device) },
    { op: 'training', name: 'training step', variant: 'shipped', run: () => verifyTraining(device) },
  ];
  const isChosen = chosenBy(only, [...new Set(jobs.map(({ op }) => op))]);
  const chosen = jobs.filter(({ op }) => isChosen(op));
  const results: Comparison[] = [];
  const failures: { name: string; variant: string; reason: string }[] = [];
  for (const [done, { name, variant, run }] of chosen.entries()) {
    onProgress?.('verify', done, chosen.length);
    try {
      results.push(...(await run()));
    } catch (error) {
      failures.push({ name, variant, reason: reasonOf(error) });
    }
  }
  onProgress?.('verify', chosen.length, chosen.length);
  return {
    ...{ format: 'insula verify 1' as const, ...provenance(device) },
    platform: `${process.platform} ${release()} ${process.arch}`,
    ...{ floor: device.options.floor === true, limits: limitsOf(device), subgroupSizes: device.subgroupSizes },
    passed: failures.length === 0 && results.every(({ passed }) => passed),
    // Checks of these ops that are left out without --all.
    omitted: omitted.filter(({ problem }) => isChosen(opOf(problem))).length,
    ...{ ulpBins, results, failures, seconds: (performance.now() - begin) / 1000 },
  };
}

function chosenBy(only: readonly string[], ops: readonly string[]): (op: string) => boolean {
  const patterns = only.map((name) => {
    if (ops.some((op) => isLike(name, op))) return name;
    throw new InputError(`--only ${quote(name)}: no op of that name; ${nearest(name, ops)}`);
  });
  return (op) => patterns.length === 0 || patterns.some((pattern) => isLike(pattern, op));
}

/** The limits are properties of their prototype. */
function limitsOf({ limits }: Device): Record<string, number> {
  const values: Record<string, number> = {};
  for (const name in limits) {
    const value = limits[name as keyof GPUSupportedLimits];
    if (typeof value === 'number') values[name] = value;
  }
  return values;
}
