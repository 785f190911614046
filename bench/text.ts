/** Results as lines for people. */
import { type AdapterReport, installAdvice } from '../engine/index.ts';
import type { ActResult, EvaluateResult } from './act.ts';
import { describe, formatSeconds } from './progress.ts';
import type { TrainSummary } from './train.ts';

export function deviceLines(adapters: readonly AdapterReport[]): string[] {
  const lines = adapters.flatMap((adapter) => {
    if (!adapter.opens) return [`${adapter.name} (${adapter.backend}): cannot be opened: ${adapter.reason}`];
    const { name, backend, description, software, isDefault, features, limits, subgroupSizes } = adapter;
    const kind = [software ? 'software adapter' : null, isDefault ? 'default' : null].filter((part) => part !== null);
    return [
      `${name} (${backend}${kind.length > 0 ? `, ${kind.join(', ')}` : ''})`,
      `  ${description}`,
      `  features: ${features.join(', ')}`,
      `  limits: ${Object.entries(limits)
        .map(([limit, value]) => `${limit} ${value}`)
        .join(', ')}`,
      ...(subgroupSizes ? [`  subgroups: ${subgroupSizes.join(' to ')} lanes`] : []),
    ];
  });
  return adapters.some((adapter) => adapter.opens) ? lines : [...lines, installAdvice()];
}

export function trainLines(summary: TrainSummary): string[] {
  const { finished, step, heldOut, ratios, openLoop, closedLoop, seconds, checkpoint, report } = summary;
  if (!finished)
    return [`interrupted after step ${step}; go on with the same command and --resume (checkpoint: ${checkpoint})`];
  const lines = [`trained ${step} steps in ${formatSeconds(seconds.train)} on ${summary.adapter}`];
  if (heldOut) {
    const { tokenToUnigram, flowToConstantVelocity } = ratios;
    const parts = [
      ...(tokenToUnigram === undefined
        ? []
        : [`token loss ${tokenToUnigram.toFixed(2)} x that of the unigram predictor`]),
      ...(flowToConstantVelocity === undefined
        ? []
        : [`flow loss ${flowToConstantVelocity.toFixed(2)} x that of the best constant velocity`]),
    ];
    lines.push(`held out: ${describe(heldOut)}: ${parts.join(', ')}`);
  }
  if (openLoop)
    lines.push(
      `open loop: error ${openLoop.oneSampleToConstant.toFixed(2)} x that of the best constant chunk with one sample, ${openLoop.meanOfEightToConstant.toFixed(2)} x with the mean of 8 (${openLoop.measure})`,
    );
  if (closedLoop) lines.push(closedLoopLine(closedLoop));
  lines.push(`checkpoint: ${checkpoint}`);
  if (report) lines.push(`report: ${report}`);
  return lines;
}

export function evaluateLines({ closedLoop, openLoop }: EvaluateResult): string[] {
  if (closedLoop) return [closedLoopLine(closedLoop)];
  if (!openLoop) return [];
  const { observations, oneSampleToConstant, meanOfEightToConstant, measure } = openLoop;
  return [
    `open loop over ${observations} held-out observations: error ${oneSampleToConstant.toFixed(2)} x that of the best constant chunk with one sample, ${meanOfEightToConstant.toFixed(2)} x with the mean of 8 (${measure})`,
  ];
}

function closedLoopLine({
  success,
  rightObject,
  episodes,
}: {
  success: number;
  rightObject: number;
  episodes: number;
}): string {
  const percent = (share: number) => `${Math.round(100 * share)} %`;
  return `closed loop over ${episodes} episodes: success ${percent(success)}, right object ${percent(rightObject)}`;
}

export function actLines({
  episode,
  step,
  instruction,
  demonstrated,
  predicted,
  latency,
  adapter,
}: ActResult): string[] {
  const format = (row: number[] | null) =>
    row ? row.map((value) => value.toFixed(3).padStart(8)).join('') : '  (the episode has ended)';
  const width = predicted[0].length * 8;
  const euler = latency.filter(({ part }) => part.startsWith('Euler'));
  const others = latency.filter(({ part }) => !part.startsWith('Euler'));
  const milliseconds = (value: number) => `${value.toFixed(1)} ms`;
  const times = [
    ...others.map((entry) => `${entry.part} ${milliseconds(entry.milliseconds)}`),
    ...(euler.length > 0
      ? [`${euler.length} Euler steps ${euler.map((entry) => entry.milliseconds.toFixed(1)).join(' ')} ms`]
      : []),
  ];
  return [
    `episode ${episode}, step ${step}${instruction === null ? '' : `: ${instruction}`}`,
    `step  ${'predicted'.padEnd(width)}  demonstrated`,
    ...predicted.map((row, i) => `${String(i).padStart(4)}  ${format(row)}  ${format(demonstrated[i])}`),
    `latency on ${adapter}: ${times.join(', ')}`,
  ];
}
