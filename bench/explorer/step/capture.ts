/** A training step captured for its list, and the time of each of its operations. */
import type { Device, ListedOperation, StepStatistics } from '../../../engine/index.ts';
import { MeasuredStep, measuredConfiguration } from '../../../model/inspect/measured-step.ts';
import { PACKED_QUESTIONS, systems } from '../../../model/systems/index.ts';

export const stepSystems = [...systems.map(({ name }) => name), PACKED_QUESTIONS];

export interface StepChoice {
  readonly system: string;
  readonly preset: string;
  readonly batch: number;
  readonly depth: number;
  /** Activation checkpointing: backward runs every layer again. */
  readonly recompute: boolean;
}

export interface ListedStep {
  readonly operations: readonly ListedOperation[];
  readonly statistics: StepStatistics;
  readonly parameters: number;
  readonly flops: number;
  readonly arenaBytes: number;
}

function make(device: Device, { system, preset, batch, depth, recompute }: StepChoice): MeasuredStep {
  const configuration = measuredConfiguration(system, { preset, depth });
  return new MeasuredStep(device, system, configuration, batch, { recompute });
}

/** Captures the step; nothing of it is compiled or run. */
export function listedStep(device: Device, choice: StepChoice): ListedStep {
  const measured = make(device, choice);
  try {
    measured.capture();
    const [operations, statistics] = [measured.step.list(), measured.step.stats()];
    const flops = operations.reduce((sum, { flops = 0 }) => sum + flops, 0);
    const arenaBytes = statistics.arenaBytes.reduce((sum, bytes) => sum + bytes, 0);
    return { operations, statistics, parameters: measured.parameters, flops, arenaBytes };
  } finally {
    measured.dispose();
  }
}

/** Seconds of each operation by its FLOPs and bytes, on a slow adapter of the device's kind: shares of a step, not times. */
export function estimatedTimes(device: Device, operations: readonly ListedOperation[]): number[] {
  return operations.map(({ flops = 0, bytes }) => device.pace.estimate({ flops, bytes }));
}

/** Profiled runs: browsers round the times of a single one to 0.1 ms. */
export const RUNS = 8;

/**
 * GPU seconds of each operation, the mean of several runs; copies and clears are not timed and count 0.
 *
 * @throws the reason of an aborted `signal`, between two runs
 */
export async function measuredTimes(device: Device, choice: StepChoice, signal: AbortSignal): Promise<number[]> {
  const measured = make(device, choice);
  try {
    await measured.run();
    await device.finish();
    const operations = measured.step.list();
    const sums = operations.map(() => 0);
    const dispatches = operations.flatMap(({ grid }, i) => (grid ? [i] : []));
    for (let run = 0; run < RUNS; run++) {
      signal.throwIfAborted();
      const times = await device.profile(() => measured.run());
      times.forEach(({ nanoseconds }, i) => {
        sums[dispatches[i]] += nanoseconds / 1e9 / RUNS;
      });
    }
    return sums;
  } finally {
    measured.dispose();
  }
}
