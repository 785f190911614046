/** Results of commands as lines of text. */

import { aligned } from '../bench/measure/table.ts';
import type { LanguageRow } from '../bench/tabletop/language.ts';
import { counted } from '../engine/files/errors.ts';
import type { ObjectiveDescription } from '../model/architecture/objectives/index.ts';
import { openLoopDescription } from '../model/inspect/swapped.ts';
import { type DecodeCounts, decodesText } from '../model/policy/decodes.ts';
import type { ExecutionKind } from '../model/policy/execution.ts';
import { type PartLatency, timesByPart } from '../model/policy/latency.ts';
import { keptShares } from '../model/report/kept-section.ts';
import { formatPercent, formatShare, formatTimes } from '../model/report/markup.ts';
import { swappedParts, swappedText } from '../model/report/swapped-section.ts';
import { skippedLines } from '../model/training/history.ts';
import { averagedWords } from '../model/training/run-settings.ts';
import type { Answered, AskResult } from './asking.ts';
import { describe, formatSeconds } from './progress.ts';
import type { ClosedLoopSummary, OpenLoopSummary, TrainSummary } from './training-summary.ts';

export interface ActResult {
  episode: string;
  step: number;
  instruction: string | null;
  /** The data set's names of the action dimensions. */
  names: readonly string[] | null;
  /** [horizon][dimension] in the units of the data; null for control steps after the end of the episode. */
  demonstrated: (number[] | null)[];
  predicted: number[][];
  /** The subtask that the policy says before it acts, with places in pixels down and across the first camera's picture; null for none. */
  said: { words: string; places: readonly (readonly [number, number])[] } | null;
  /** The answer to --ask, or else the subtask that co-training put before action tokens; null for a policy without either. */
  answer: Answered | null;
  latency: PartLatency[];
  adapter: string;
}

export interface EvaluateResult {
  checkpoint: string;
  system: string;
  /** Decay of the moving average of the weights that acts; null for the weights themselves. */
  ema: number | null;
  /** Chooses the scenes; null without a closed loop. */
  seed: number | null;
  /** Chooses the noise; null for a policy that draws none, and for the open-loop error, which has noise of its own. */
  noiseSeed: number | null;
  /** How chunks were executed: the kind, control steps from one chunk to the next, and those that each took; null without a closed loop. */
  execution: ExecutionKind | null;
  executeSteps: number | null;
  delay: number | null;
  /** One for each task and variation that was evaluated. */
  closedLoop: ClosedLoopSummary[] | null;
  /** How the policy follows other instructions, with --language. */
  language: LanguageRow[] | null;
  openLoop: OpenLoopSummary | null;
  /** Folder of the LeRobot data set of --record. */
  record: string | null;
  adapter: string;
}

/** `resume` is the command that resumes an interrupted run. */
export function trainLines(
  summary: TrainSummary,
  objectives: readonly ObjectiveDescription[],
  resume: string,
): string[] {
  const { settings, finished, step, heldOut, ratios, openLoop, swapped, kept, answers } = summary;
  const { closedLoop, seconds, checkpoint, report } = summary;
  if (!finished) return [`interrupted after step ${step}, saved in ${checkpoint}; resume it with: ${resume}`];
  const steps = summary.resumedAt > 0 ? `steps ${summary.resumedAt + 1} to ${step}` : counted(step, 'step');
  const lines = [
    summary.resumedAt > 0 && summary.resumedAt === step
      ? `all ${counted(step, 'step')} were trained already: measured again on ${summary.adapter}`
      : `trained ${steps} in ${formatSeconds(seconds.train)} on ${summary.adapter}`,
  ];
  lines.push(...skippedLines(summary));
  if (settings.ema !== null) lines.push(averagedWords(settings.ema));
  if (heldOut && Object.keys(heldOut).length > 0) {
    const compared = objectives.flatMap(({ name, title, baseline }) =>
      baseline === null || ratios[name] === undefined
        ? []
        : [`${title} ${formatTimes(ratios[name], `that of the ${baseline}`)}`],
    );
    const beside = compared.length > 0 ? `: ${compared.join(', ')}` : '';
    lines.push(`held out: ${describe(heldOut, objectives)}${beside}`);
  }
  if (openLoop) lines.push(`open loop: ${openLoopText(openLoop)}`);
  if (swapped) lines.push(...swappedLines(swapped, objectives));
  if (kept) lines.push(keptLine(kept));
  if (answers) lines.push(`questions: ${answers.correct} of ${answers.questions} held-out ones answered exactly`);
  if (closedLoop) lines.push(...closedLoopLines([closedLoop]));
  lines.push(`checkpoint: ${checkpoint}`);
  if (report) lines.push(`report: ${report}`);
  return lines;
}

function openLoopText(openLoop: OpenLoopSummary): string {
  const { oneSampleToConstant: one, meanOfEightToConstant: mean, measure, decodes } = openLoop;
  const constant = 'that of the best constant chunk';
  const times =
    mean === null
      ? formatTimes(one, constant)
      : `${formatTimes(one, `${constant} with one sample`)}, ${formatTimes(mean, 'with the mean of 8')}`;
  return `error ${times} (${measure})${afterSemicolon(decodes)}`;
}

const afterSemicolon = (decodes: DecodeCounts | null): string => (decodes ? `; ${decodesText(decodes)}` : '');

export function swappedLines(
  swapped: NonNullable<TrainSummary['swapped']>,
  objectives: readonly ObjectiveDescription[],
): string[] {
  return swappedParts.flatMap(([part, words]) => {
    const ratios = swapped[part];
    if (!ratios) return [];
    const known = [...objectives, openLoopDescription].filter(({ name }) => ratios[name] !== undefined);
    return [`with ${words}: ${known.map(({ name, title }) => `${title} ${swappedText(ratios[name])}`).join(', ')}`];
  });
}

function keptLine(kept: NonNullable<TrainSummary['kept']>): string {
  const parts = keptShares(kept).map(([question, before, after]) => `${question} ${before} and ${after}`);
  return `questions about ${kept.scenes} scenes, right before and after training: ${parts.join(', ')}`;
}

/** A table of kinds of instructions. */
function languageLines(rows: readonly LanguageRow[]): string[] {
  const [{ episodes }] = rows;
  const decodes = rows.flatMap(({ decodes }) => decodes ?? []);
  const sum = (of: keyof DecodeCounts) => decodes.reduce((total, own) => total + own[of], 0);
  const table = rows.map(({ instruction, success, rightObject, original }) => [
    instruction,
    formatShare(success, episodes),
    formatShare(rightObject, episodes),
    original === null ? '' : formatShare(original, episodes),
  ]);
  const head = ['instruction', 'success', 'right object', 'went for the thing that was named before'];
  return [
    `${episodes} scenes for each kind of instruction, shares with 95 % intervals:`,
    ...aligned([head, ...table], 4),
    ...(decodes.length > 0 ? [decodesText({ chunks: sum('chunks'), malformed: sum('malformed') })] : []),
  ];
}

export function evaluateLines(result: EvaluateResult): string[] {
  const { closedLoop, language, openLoop, record } = result;
  const lines = [howEvaluated(result), ...(record === null ? [] : [`recorded as LeRobot 3.0: ${record}`])];
  if (closedLoop) lines.unshift(...closedLoopLines(closedLoop));
  if (language) lines.unshift(...languageLines(language));
  if (openLoop) {
    lines.unshift(`open loop over ${openLoop.observations} held-out observations: ${openLoopText(openLoop)}`);
  }
  return lines;
}

function howEvaluated({
  checkpoint,
  system,
  ema,
  seed,
  noiseSeed,
  execution,
  executeSteps,
  delay,
}: EvaluateResult): string {
  const seeds = Object.entries({ scenes: seed, noise: noiseSeed }).filter(([, own]) => own !== null);
  const parts = [
    ...(ema === null ? [] : [`the moving average of its weights, decay ${ema}`]),
    ...seeds.map(([what, own]) => `${what} of seed ${own}`),
    ...(execution === null
      ? []
      : [
          `${execution}, a new chunk every ${counted(executeSteps!, 'control step').replace(/^1 /, '')}`,
          `delay ${delay}`,
        ]),
  ];
  return [`policy: ${checkpoint} (${system})`, ...parts].join(', ');
}

/** A line for each result; the meaning of their rates stands in the line of a single result, else below. */
function closedLoopLines(results: readonly ClosedLoopSummary[]): string[] {
  const counted = (share: number, of: number) => formatShare(Math.round(share * of), of);
  const lines = results.map(({ scenes, success, rightObject, stageScore, decodes, episodes }) => {
    const named = scenes === 'place, simple' && results.length === 1 ? '' : ` (${scenes})`;
    return `closed loop${named} over ${episodes} episodes: success ${counted(success, episodes)}; right object ${counted(rightObject, episodes)}; stages ${formatPercent(stageScore)}${afterSemicolon(decodes)}`;
  });
  const measures = [...new Set(results.map(({ measure }) => measure))];
  return results.length === 1 ? [`${lines[0]} (${measures[0]})`] : [...lines, ...measures];
}

export function actLines(result: ActResult): string[] {
  const { episode, step, instruction, names, said, answer, demonstrated, predicted, latency, adapter } = result;
  return [
    `episode ${episode}, step ${step}${instruction === null ? '' : `: ${instruction}`}`,
    ...(said ? [`says ${saidText(said)}`] : []),
    ...(answer ? answerLines(answer) : []),
    ...(predicted[0].length > WIDE
      ? dimensionLines(predicted, demonstrated, names)
      : stepLines(predicted, demonstrated)),
    `latency on ${adapter}: ${latencyOf(latency)}`,
  ];
}

function saidText({ words, places }: NonNullable<ActResult['said']>): string {
  const points = places.map(([down, across]) => `x ${across.toFixed(1)}, y ${down.toFixed(1)}`);
  const pointing = points.length > 0 ? [`that it acts at ${points.join(', then ')} (pixels)`] : [];
  return [...pointing, ...(words === '' ? [] : [`“${words}”`])].join(' and ') || 'nothing';
}

export const askLines = (result: AskResult): string[] => [
  result.about,
  ...answerLines(result),
  `answered on ${result.adapter}`,
];

function answerLines({ question, answer, places, size, picture }: Answered): string[] {
  const place = (pixels: number[]) => {
    const [top, left, bottom, right] = pixels.map((value) => value.toFixed(1));
    return pixels.length === 2 ? `x ${left}, y ${top}` : `x ${left} to ${right}, y ${top} to ${bottom}`;
  };
  return [
    `${question}: ${answer.trim() || '(no answer)'}`,
    ...places.map(
      ({ label, pixels }) =>
        `  ${label || 'place'}: ${place(pixels)} of ${size?.[1]} x ${size?.[0]} pixels${isInside(pixels, size!) ? '' : ', outside of the picture'}`,
    ),
    ...(picture === null ? [] : [`${places.length > 0 ? 'drawn into' : 'no place to draw:'} ${picture}`]),
  ];
}

const isInside = (pixels: number[], size: readonly number[]) =>
  pixels.every((value, i) => value >= 0 && value <= size[i % 2]);

/** Actions with more dimensions are listed by dimension, not by control step. */
const WIDE = 14;

function stepLines(predicted: number[][], demonstrated: (number[] | null)[]): string[] {
  const format = (row: number[] | null) =>
    row ? row.map((value) => value.toFixed(3).padStart(8)).join('') : '  (the episode has ended)';
  return [
    `step  ${'predicted'.padEnd(predicted[0].length * 8)}  demonstrated`,
    ...predicted.map((row, i) => `${String(i).padStart(4)}  ${format(row)}  ${format(demonstrated[i])}`),
  ];
}

function dimensionLines(
  predicted: number[][],
  demonstrated: (number[] | null)[],
  names: readonly string[] | null,
): string[] {
  const real = demonstrated.filter((row) => row !== null);
  const last = real.length - 1;
  const rows = predicted[0].map((_, d) => {
    const difference = real.reduce((sum, row, i) => sum + Math.abs(row[d] - predicted[i][d]), 0) / real.length;
    const numbers = [predicted[0][d], predicted[last][d], real[0][d], real[last][d], difference];
    return [names?.[d] ?? String(d), ...numbers.map((value) => value.toFixed(3))];
  });
  const head = [
    'dimension',
    'predicted, first',
    `step ${last}`,
    'demonstrated, first',
    `step ${last}`,
    'mean difference',
  ];
  return aligned([head, ...rows], 1);
}

/** Numbered parts are joined into one entry: "10 x Euler step 7.1 ms". */
function latencyOf(latency: ActResult['latency']): string {
  const times = timesByPart(latency);
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const parts = [...times].map(([name, own]) => {
    const count = own.length > 1 ? `${own.length} x ` : '';
    return `${count}${name} ${(sum(own) / own.length).toFixed(1)} ms`;
  });
  return `${parts.join(', ')}; ${sum([...times.values()].flat()).toFixed(1)} ms in all`;
}
