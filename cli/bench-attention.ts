/** `insula bench attention`: attention variants, masks and directions in the same rounds. */
import { DEFAULT, UNFUSED } from '../bench/attention/rows.ts';
import { type AttentionRunOptions, attentionRunSchema, expectCases, runAttention } from '../bench/attention/run.ts';
import { shapesOf } from '../bench/attention/shapes.ts';
import { benchLines, comparisonLines, csv as csvLines } from '../bench/attention/text.ts';
import { attentionCandidates } from '../bench/attention/tune.ts';
import { choose } from '../bench/measure/choose.ts';
import { LEAST_ROUNDS } from '../bench/measure/measure.ts';
import { directions } from '../bench/measure/operation-task.ts';
import { readSavedRun } from '../bench/measure/saved-run.ts';
import { keepTuning, openTunedDevice, readTuningFile, tuningPath } from '../bench/measure/tuning.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { openDevice } from '../engine/index.ts';
import { tuningLines } from './bench-tune.ts';
import { type Context, command, type Result } from './command.ts';
import { deviceOptions } from './device.ts';
import { attentionNotes } from './notes.ts';
import { choice, choices, flag, list, number, outputFile, text, texts, type ValuesOf } from './options.ts';

/** Options of the table, which --tune does not write. */
const table = { excludes: 'tune' };

const attentionOptions = {
  shape: list(
    'names: suite, grid, masks, vla-small, smolvla, paligemma, masks-1024, ...; or B=1,T=816+128+50,H=8/1,D=256',
  ),
  mask: list(
    "names: causal, sliding-window:256, documents:4, insulation, ...; or WGSL: 'q - k < 256 && q >= k'",
    table,
  ),
  score: text("WGSL for the score: 'score + 0.1 * f32(k - q)'", { ...table, needs: 'derivative' }),
  derivative: text('WGSL for d(score expression) / d(score)', { ...table, needs: 'score' }),
  variant: texts('default, unfused, all, or names of kernels; default,unfused by default', table),
  direction: choices('forward, backward, both; forward,backward by default', directions),
  storage: choices('f32, f16, bf16; f32 by default', ['f32', 'f16', 'bf16']),
  rounds: number('rounds that interleave all rows; 20 by default, at least 3', LEAST_ROUNDS),
  seconds: number('time limit: no round starts that would exceed it; 30 by default'),
  timer: choice('timer of the rates: gpu (timestamps; default on hardware) or wall', ['gpu', 'wall'], table),
  profile: flag('also the GPU time of every dispatch', table),
  csv: outputFile('file for the rows as CSV', table),
  report: outputFile('file for the rows as one HTML page with figures', table),
  out: outputFile('file for the run as JSON', table),
  compare: text('file of an earlier run: medians as ratios to it', table),
  tune: flag('measures every variant at the head dimensions of the shapes, and writes the tuning file of this adapter'),
  ...deviceOptions,
};

export const benchAttention = command({
  options: attentionOptions,
  notes: attentionNotes,
  run: (values, context) => (values.tune ? tuned(values, context) : measured(values, context)),
});

type Values = ValuesOf<typeof attentionOptions>;

async function measured(values: Values, { progress }: Context): Promise<Result> {
  const { compare, csv, out, report, adapter, floor, tuning: named } = values;
  const before =
    compare === undefined ? null : await readSavedRun(compare, attentionRunSchema, 'insula bench attention');
  const chosen = attentionRunOptions(values);
  expectCases(chosen);
  const opened = await openTunedDevice({ adapter, floor, tuning: named }, (line) => progress.note(line));
  using device = opened.device;
  const options = { ...chosen, tuned: opened.tuning?.attention ?? [] };
  const result = await runAttention(device, options, (what, done, total) => progress.count(what, done, total));
  const lines = benchLines(result);
  if (before) lines.push('', ...comparisonLines(before, result));
  if (csv !== undefined) await writeFileSafely(csv, [csvLines(result)]);
  if (out !== undefined) await writeFileSafely(out, [`${JSON.stringify(result, null, 1)}\n`]);
  if (report !== undefined) {
    // The figures' library takes half a second to load.
    const { benchReport } = await import('../bench/attention/report.ts');
    await writeFileSafely(report, [await benchReport(result)]);
  }
  return { json: result, lines };
}

async function tuned(values: Values, { progress }: Context): Promise<Result> {
  const { shapes, directions, storages, rounds, seconds } = attentionRunOptions(values);
  if (shapes) shapesOf(shapes);
  using device = await openDevice({ adapter: values.adapter, floor: values.floor });
  const path = values.tuning ?? tuningPath(device.description);
  await readTuningFile(device, path, false);
  const places = attentionCandidates(device, { shapes, directions, storages });
  const onProgress = (what: string, done: number, total: number) => progress.count(what, done, total);
  const attention = await choose(device, places, { rounds, seconds, onProgress });
  const tuning = await keepTuning(device, path, { attention, matmul: [] });
  const end = `written to ${path}; commands on this adapter use it from now on`;
  return { json: tuning, lines: tuningLines(tuning, end) };
}

function attentionRunOptions(values: Values): AttentionRunOptions {
  const { shape, mask, score, derivative, variant = [DEFAULT, UNFUSED], rounds = 20, seconds = 30 } = values;
  return {
    shapes: shape,
    masks: mask,
    score: { score, derivative },
    variants: [...new Set(variant)],
    directions: values.direction ?? ['forward', 'backward'],
    storages: values.storage ?? ['f32'],
    rounds,
    seconds,
    timer: values.timer,
    profile: values.profile ?? false,
    tuned: [],
  };
}
