/** `insula bench attention`: attention variants, masks and directions in the same rounds. */
import { DEFAULT, storages, UNFUSED } from '../bench/attention/rows.ts';
import { type AttentionRun, type AttentionRunOptions, expectCases, runAttention } from '../bench/attention/run.ts';
import { shapesOf } from '../bench/attention/shapes.ts';
import { byShape, factLines, footnotes, legend, numberCells, numberColumns } from '../bench/attention/text.ts';
import { attentionCandidates } from '../bench/attention/tune.ts';
import { choose } from '../bench/measure/choose.ts';
import { directions } from '../bench/measure/operation-task.ts';
import { aligned, digits } from '../bench/measure/table.ts';
import { timers } from '../bench/measure/work.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { InputError, openDevice } from '../engine/index.ts';
import { readTuningFile, tuningPath } from '../kernels/tuning.ts';
import { benchOptions, runBench } from './bench-run.ts';
import { expectFileForFloor, keptTuning } from './bench-tune.ts';
import { type Context, command, type Result } from './command.ts';
import { attentionNotes } from './notes.ts';
import { choice, choices, flag, list, outputFile, text, texts, type ValuesOf } from './options.ts';

const LIMITS = { seconds: 30 };
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
  storage: choices('f32, f16, bf16; f32 by default', storages),
  timer: choice('timer of the rates: gpu (timestamps; default on hardware) or wall', timers, table),
  profile: flag('also the GPU time of every dispatch', table),
  report: outputFile('file for the rows as one HTML page with figures', table),
  tune: flag('measures every variant at the head dimensions of the shapes, and writes the tuning file of this adapter'),
  ...benchOptions(LIMITS, table),
};

export const benchAttention = command({
  options: attentionOptions,
  notes: attentionNotes,
  interruptible: true,
  run: (values, context) => (values.tune ? tuned(values, context) : measured(values, context)),
});

type Values = ValuesOf<typeof attentionOptions>;

async function measured(values: Values, context: Context): Promise<Result> {
  const chosen = attentionRunOptions(values);
  expectCases(chosen);
  return runBench(values, context, {
    command: 'bench attention',
    limits: LIMITS,
    run: (device, budget, tuning) => runAttention(device, { ...chosen, tuned: tuning?.attention ?? [] }, budget),
    lines: attentionLines,
    async write(run) {
      if (values.report === undefined) return;
      // The figures' library takes half a second to load.
      const { attentionPage } = await import('../bench/attention/page.ts');
      await writeFileSafely(values.report, [await attentionPage(run)]);
    },
  });
}

async function tuned(values: Values, { progress, signal }: Context): Promise<Result> {
  const { shapes, directions, storages } = attentionRunOptions(values);
  if (shapes) shapesOf(shapes);
  expectFileForFloor(values.floor, values.tuning);
  const begin = performance.now();
  using device = await openDevice({ adapter: values.adapter, floor: values.floor });
  // A file that cannot be written to is refused before the work.
  await readTuningFile(device, values.tuning ?? tuningPath(device.description), false);
  const places = attentionCandidates(device, { shapes, directions, storages });
  const { rounds, seconds = LIMITS.seconds } = values;
  const onProgress = progress.ofBench('attention');
  if (places.every(({ variants }) => variants.length === 1))
    throw new InputError(
      `bench attention --tune: ${device.description} has one variant worth measuring for each place; --variant all compares the others too`,
    );
  const attention = await choose(device, places, { begin, rounds, seconds, signal, onProgress });
  return keptTuning(device, values.tuning, { attention, matmul: [] });
}

function attentionRunOptions(values: Values): Omit<AttentionRunOptions, 'tuned'> {
  const { shape, mask, score, derivative, variant = [DEFAULT, UNFUSED], timer } = values;
  return {
    ...{ shapes: shape, masks: mask, score: { score, derivative }, variants: [...new Set(variant)], timer },
    directions: values.direction ?? ['forward', 'backward'],
    storages: values.storage ?? ['f32'],
    profile: values.profile ?? false,
  };
}

function attentionLines(run: AttentionRun): string[] {
  const lines = [...run.answer, '', ...factLines(run)];
  const header = ['mask', 'variant', 'direction', 'storage', ...numberColumns];
  for (const { title, rows } of byShape(run)) {
    const cells = rows.map((row) => [row.mask, row.variant, row.direction, row.storage, ...numberCells(row)]);
    lines.push('', title, ...aligned([header, ...cells]));
  }
  const profiled = run.rows.filter(({ dispatches }) => dispatches.length > 0);
  if (profiled.length > 0) lines.push('', 'single dispatches: ms by GPU timestamps, workgroups');
  for (const { name, dispatches } of profiled) {
    const each = dispatches.map(
      ({ label, milliseconds, workgroups }) => `${label} ${digits(milliseconds)} (${workgroups})`,
    );
    lines.push(`  ${name}: ${each.join(', ')}`);
  }
  return [...lines, '', ...legend, ...footnotes(run)];
}
