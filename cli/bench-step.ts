/** `insula bench step`: training steps of systems beside each other. */

import { LEAST_ROUNDS } from '../bench/measure/measure.ts';
import { readSavedRun } from '../bench/measure/saved-run.ts';
import { openTunedDevice } from '../bench/measure/tuning.ts';
import { runStepBench, type StepResult, stepRunSchema } from '../bench/step/run.ts';
import { comparisonLines, stepLines } from '../bench/step/text.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { InputError } from '../engine/index.ts';
import { presetNamed } from '../model/index.ts';
import { type StepSizes, stepSizeOptions } from '../model/inspect/measured-step.ts';
import { number, text } from './options.ts';
import type { Progress } from './progress.ts';

export const benchStepOptions = {
  system: text('systems by name, with commas between; knowledge-insulation,joint-training,pi0 unless given'),
  ...stepSizeOptions,
  rounds: number('rounds that interleave the systems; 10 by default, at least 3', LEAST_ROUNDS),
  seconds: number('no new round is begun that would end later; 60 by default'),
  out: text('file for the run as JSON'),
  compare: text('file of an earlier run: what has changed, as ratios to it'),
};

export interface BenchStepOptions extends StepSizes {
  system?: string;
  rounds?: number;
  seconds?: number;
  out?: string;
  compare?: string;
  adapter?: string;
  floor?: boolean;
  tuning?: string;
}

/** @throws InputError where an option is wrong */
export async function benchStep(
  { system, rounds = 10, seconds = 60, out, compare, ...options }: BenchStepOptions,
  progress: Progress,
): Promise<{ json: StepResult; lines: string[] }> {
  const systems = [...new Set((system ?? 'knowledge-insulation,joint-training,pi0').split(','))];
  const { preset, batch = presetNamed(preset ?? 'tiny').batch, prompt, fast, horizon, depth, recompute } = options;
  const before = compare === undefined ? null : await readSavedRun(compare, stepRunSchema, 'insula bench step');
  if (
    before &&
    JSON.stringify(before.sizes) !== JSON.stringify({ preset, prompt, fast, horizon, depth, recompute, batch })
  )
    throw new InputError(`${compare}: a run at other sizes: ${JSON.stringify(before.sizes)}; give the same options`);
  const { device } = await openTunedDevice(options, (line) => progress.note(line));
  try {
    const sizes = { preset, prompt, fast, horizon, depth, recompute, batch };
    const result = await runStepBench(device, { systems, rounds, seconds, ...sizes }, (what, done, total) =>
      progress.count(what, done, total),
    );
    if (out !== undefined) await writeFileSafely(out, [`${JSON.stringify(result, null, 1)}\n`]);
    return { json: result, lines: [...stepLines(result), ...(before ? ['', ...comparisonLines(before, result)] : [])] };
  } finally {
    device.close();
  }
}
