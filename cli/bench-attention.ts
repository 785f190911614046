/** `insula bench attention`: options in, rows measured, files written, lines for people. */

import { comparisonLines } from '../bench/attention/compare.ts';
import { DEFAULT, type Storage, UNFUSED } from '../bench/attention/rows.ts';
import {
  type AttentionRunOptions,
  attentionRunSchema,
  type BenchResult,
  runAttention,
  type Timer,
} from '../bench/attention/run.ts';
import { benchLines, csv } from '../bench/attention/text.ts';
import { tune } from '../bench/attention/tune.ts';
import { LEAST_ROUNDS } from '../bench/measure/measure.ts';
import { directions } from '../bench/measure/operation-task.ts';
import { readSavedRun } from '../bench/measure/saved-run.ts';
import { openTunedDevice, type Tuning } from '../bench/measure/tuning.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { InputError, openDevice, quote } from '../engine/index.ts';
import { tuningLines } from './bench-tune.ts';
import { flag, list, number, text } from './options.ts';
import type { Progress } from './progress.ts';

export const benchAttentionOptions = {
  shape: list(
    'names: suite, grid, masks, vla-small, smolvla, paligemma, masks-1024, ...; or B=1,T=816+128+50,H=8/1,D=256',
  ),
  mask: list("names: causal, sliding-window:256, documents:4, insulation, ...; or WGSL: 'q - k < 256 && q >= k'"),
  score: text("WGSL for the score: 'score + 0.1 * f32(k - q)'"),
  derivative: text('WGSL for d(score expression) / d(score), required with --score'),
  variant: text('default, unfused, all, or names of kernels; default,unfused unless given'),
  direction: text('forward, backward, both; forward,backward unless given'),
  storage: text('f32, f16, bf16; f32 unless given'),
  rounds: number('rounds that interleave all rows; 20 by default, at least 3'),
  seconds: number('no new round is begun that would end later; 30 by default'),
  timer: text('what rates are made of: gpu (timestamps; default on hardware) or wall'),
  profile: flag('also the GPU time of every dispatch'),
  csv: text('file for the rows as CSV'),
  report: text('file for the rows as one HTML page with figures'),
  out: text('file for the run as JSON'),
  tune: flag('measures every variant at the head dimensions of the shapes, and writes the tuning file of this adapter'),
  compare: text('file of an earlier run: medians as ratios to it'),
};

export interface BenchAttentionOptions {
  shape?: string[];
  mask?: string[];
  score?: string;
  derivative?: string;
  variant?: string;
  direction?: string;
  storage?: string;
  rounds?: number;
  seconds?: number;
  timer?: string;
  profile?: boolean;
  csv?: string;
  report?: string;
  out?: string;
  tune?: boolean;
  tuning?: string;
  compare?: string;
  adapter?: string;
  floor?: boolean;
}

/** @throws InputError where an option is wrong */
export async function benchAttention(
  options: BenchAttentionOptions,
  progress: Progress,
): Promise<{ json: BenchResult | Tuning; lines: string[] }> {
  const chosen = runOptions(options);
  const before =
    options.compare === undefined
      ? null
      : await readSavedRun(options.compare, attentionRunSchema, 'insula bench attention');
  const onProgress = (what: string, done: number, total: number) => progress.count(what, done, total);
  if (options.tune) return tuned(options, chosen, onProgress);
  const { device, tuning } = await openTunedDevice(options, (line) => progress.note(line));
  try {
    const result = await runAttention(device, { ...chosen, tuned: tuning?.attention ?? [] }, onProgress);
    const lines = benchLines(result);
    if (before) lines.push('', ...comparisonLines(before, result));
    if (options.csv !== undefined) await writeFileSafely(options.csv, [csv(result)]);
    if (options.out !== undefined) await writeFileSafely(options.out, [`${JSON.stringify(result, null, 1)}\n`]);
    if (options.report !== undefined) {
      // The figures' library takes half a second to load.
      const { benchReport } = await import('../bench/attention/report.ts');
      await writeFileSafely(options.report, [await benchReport(result)]);
    }
    return { json: result, lines };
  } finally {
    device.close();
  }
}

async function tuned(
  options: BenchAttentionOptions,
  { shapes, directions, storages, rounds, seconds }: AttentionRunOptions,
  onProgress: (what: string, done: number, total: number) => void,
): Promise<{ json: Tuning; lines: string[] }> {
  for (const name of ['mask', 'score', 'variant', 'timer', 'profile', 'csv', 'report', 'out', 'compare'] as const)
    if (options[name] !== undefined) throw new InputError(`--tune does not go with --${name}`);
  const device = await openDevice({ adapter: options.adapter, floor: options.floor });
  try {
    const wanted = {
      shapes,
      directions,
      storages,
      rounds,
      seconds,
      path: options.tuning,
    };
    const { tuning, path } = await tune(device, { ...wanted, onProgress });
    return {
      json: tuning,
      lines: tuningLines(tuning, `written to ${path}; commands on this adapter use it from now on`),
    };
  } finally {
    device.close();
  }
}

function runOptions(options: BenchAttentionOptions): AttentionRunOptions {
  const { shape, mask, score, derivative, rounds = 20, seconds = 30, timer, profile = false } = options;
  if (timer !== undefined && timer !== 'gpu' && timer !== 'wall')
    throw new InputError(`--timer ${quote(timer)}: it is gpu or wall`);
  if (rounds < LEAST_ROUNDS) throw new InputError(`--rounds ${rounds}: quartiles take at least ${LEAST_ROUNDS}`);
  if ((score === undefined) !== (derivative === undefined))
    throw new InputError('--score and --derivative come together: the second is d(score expression) / d(score)');
  return {
    shapes: shape,
    masks: mask,
    score: { score, derivative },
    variants: [...new Set((options.variant ?? `${DEFAULT},${UNFUSED}`).split(','))],
    directions: oneOf('direction', options.direction ?? 'forward,backward', directions),
    storages: oneOf<Storage>('storage', options.storage ?? 'f32', ['f32', 'f16', 'bf16']),
    rounds,
    seconds,
    timer: timer as Timer | undefined,
    profile,
    tuned: [],
  };
}

function oneOf<T extends string>(option: string, value: string, allowed: readonly T[]): T[] {
  return [...new Set(value.split(','))].map((name) => {
    const found = allowed.find((own) => own === name);
    if (!found) throw new InputError(`--${option} ${quote(name)}: there are ${allowed.join(', ')}`);
    return found;
  });
}
