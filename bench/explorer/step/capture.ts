/** A training step captured for its list, and the time of each of its operations. */
import * as v from 'valibot';
import { count } from '../../../engine/files/json-schema.ts';
import type { Device } from '../../../engine/index.ts';
import { MeasuredStep, measuredConfiguration } from '../../../model/inspect/measured-step.ts';
import { arenaTensors } from '../../../model/inspect/step-reading.ts';
import { PACKED_QUESTIONS, systems } from '../../../model/systems/index.ts';

export const stepSystems = [...systems.map(({ name }) => name), PACKED_QUESTIONS];
export const presets = ['nano', 'tiny', 'small'] as const;

export const choiceSchema = v.object({
  system: v.picklist(stepSystems),
  preset: v.picklist(presets),
  batch: count(1, 16),
  depth: count(1, 6),
  /** Activation checkpointing: backward runs every layer again. */
  recompute: v.boolean(),
});
export type StepChoice = v.InferOutput<typeof choiceSchema>;

function make(device: Device, { system, preset, batch, depth, recompute }: StepChoice): MeasuredStep {
  const configuration = measuredConfiguration(system, { preset, depth });
  return new MeasuredStep(device, system, configuration, batch, { recompute });
}

const sum = (numbers: readonly number[]) => numbers.reduce((total, own) => total + own, 0);

/** The list of a step with its sums. Nothing of it is compiled or run, so its times are estimates. */
export type ListedStep = ReturnType<typeof listedStep>;

export function listedStep(device: Device, choice: StepChoice) {
  using measured = make(device, choice);
  measured.capture();
  const [operations, statistics] = [measured.step.list(), measured.step.stats()];
  const flops = operations.map((own) => own.flops ?? 0);
  return {
    ...{ choice, operations, statistics, parameters: measured.parameters, tensors: arenaTensors(operations) },
    ...{ flops: sum(flops), busiest: flops.indexOf(Math.max(...flops)), arenaBytes: sum(statistics.arenaBytes) },
    /** Seconds of each operation by its FLOPs and bytes, on a slow adapter of the device's kind: shares of a step, not times. */
    estimatedTimes: operations.map(({ flops = 0, bytes }) => device.pace.estimate({ flops, bytes })),
  };
}

/** Profiled runs: browsers round the times of a single one to 0.1 ms. */
export const RUNS = 8;

/**
 * GPU seconds of each operation, the mean of several runs; copies and clears are not timed and count 0.
 *
 * @throws the reason of an aborted `signal`, between two runs
 */
export async function measuredTimes(device: Device, choice: StepChoice, signal: AbortSignal): Promise<number[]> {
  using measured = make(device, choice);
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
}
