/** `insula bench step`: training steps of several systems, compared. */
import { LEAST_ROUNDS } from '../bench/measure/measure.ts';
import { readSavedRun } from '../bench/measure/saved-run.ts';
import { openTunedDevice } from '../bench/measure/tuning.ts';
import { runStepBench, stepRunSchema } from '../bench/step/run.ts';
import { comparisonLines, stepLines } from '../bench/step/text.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { nearSystems } from '../model/systems/index.ts';
import { presetNamed } from '../model/training/presets.ts';
import { command } from './command.ts';
import { deviceOptions } from './device.ts';
import { stepNotes } from './notes.ts';
import { choices, number, outputFile, text } from './options.ts';
import { expectSameSizes, expectUsedSizes, measuredSystems, stepSizeOptions } from './step-options.ts';

const DEFAULT_SYSTEMS = ['knowledge-insulation', 'joint-training', 'pi0'];

export const benchStep = command({
  options: {
    system: choices(
      `systems, separated by commas; ${DEFAULT_SYSTEMS.join(',')} by default`,
      measuredSystems,
      {},
      nearSystems,
    ),
    ...stepSizeOptions,
    rounds: number('rounds that interleave the systems; 10 by default, at least 3', LEAST_ROUNDS),
    seconds: number('time limit: no round starts that would exceed it; 60 by default'),
    out: outputFile('file for the run as JSON'),
    compare: text('file of an earlier run: results as ratios to it'),
    ...deviceOptions,
  },
  notes: stepNotes,
  async run(
    { system: systems = DEFAULT_SYSTEMS, rounds = 10, seconds = 60, out, compare, adapter, floor, tuning, ...given },
    { progress },
  ) {
    expectUsedSizes('bench step', systems, given);
    const sizes = { ...given, batch: given.batch ?? presetNamed(given.preset ?? 'tiny').batch };
    const before = compare === undefined ? null : await readSavedRun(compare, stepRunSchema, 'insula bench step');
    if (before) expectSameSizes(compare!, before.sizes, sizes);
    using device = (await openTunedDevice({ adapter, floor, tuning }, (line) => progress.note(line))).device;
    const result = await runStepBench(device, { systems, rounds, seconds, ...sizes }, (what, done, total) =>
      progress.count(what, done, total),
    );
    if (out !== undefined) await writeFileSafely(out, [`${JSON.stringify(result, null, 1)}\n`]);
    const lines = [...stepLines(result), ...(before ? ['', ...comparisonLines(before, result)] : [])];
    return { json: result, lines };
  },
});
