/** The sections of a report about acting: open loop, while training, in closed loop, and how long it takes. */
import { OPEN_LOOP_MEASURE } from '../training/open-loop.ts';
import { lossFigure, proportionFigure } from './figures.ts';
import { formatNumber, formatPercent, formatTimes, html } from './markup.ts';
import { barTable, lineColour, type Section, table } from './page.ts';
import type { ClosedLoop, ReportData } from './report-data.ts';

/** Success, and the right object if it is known, as counts. */
export function rates({ episodes }: ClosedLoop): { name: string; count: number; of: number }[] {
  const known = episodes.filter(({ rightObject }) => rightObject !== undefined);
  return [
    { name: 'success', count: episodes.filter(({ success }) => success).length, of: episodes.length },
    { name: 'right object', count: known.filter(({ rightObject }) => rightObject).length, of: known.length },
  ].filter(({ of }) => of > 0);
}

export function openLoopSection(openLoop: NonNullable<ReportData['openLoop']>): Section {
  const { measure, observations, oneSample, meanOfEight, bestConstant } = openLoop;
  const row = (label: string, value: number, relative = formatTimes(value / bestConstant)) => ({
    label,
    value,
    texts: [formatNumber(value), bestConstant > 0 ? relative : ''],
  });
  const predictions =
    meanOfEight === null
      ? [row('predicted chunk', oneSample)]
      : [row('one sample', oneSample), row('mean of 8 samples', meanOfEight)];
  return {
    id: 'open-loop',
    title: 'Open loop',
    body: html`<p>Error of predicted chunks on ${formatNumber(observations)} held-out observations: ${measure}.</p>
${barTable(['prediction', 'error', 'relative'], [row('best constant chunk', bestConstant, '1 ×'), ...predictions])}`,
  };
}

/** Acting over training steps: a line of the open-loop error, and all numbers as a table. */
export async function actingSection(rows: NonNullable<ReportData['acting']>): Promise<Section> {
  const figure = await lossFigure({
    ...{ label: 'Open-loop error over training steps', unit: OPEN_LOOP_MEASURE, colour: lineColour(0), training: [] },
    heldOut: rows.map(({ step, openLoop }) => ({ x: step, y: openLoop.oneSample })),
    baseline: rows.at(-1)?.openLoop.bestConstant,
  });
  const isClosed = rows.some(({ closedLoop }) => closedLoop);
  const columns = ['step', 'open-loop error', ...(isClosed ? ['episodes', 'success', 'right object', 'stages'] : [])];
  const cells = rows.map(({ step, openLoop, closedLoop }) => {
    const own = [formatNumber(step), formatNumber(openLoop.oneSample)];
    if (!closedLoop) return own;
    const { episodes, success, rightObject, stageScore } = closedLoop;
    return [...own, formatNumber(episodes), ...[success, rightObject, stageScore].map((share) => formatPercent(share))];
  });
  return {
    id: 'acting',
    title: 'Acting while training',
    body: html`<p>One chunk for each of the held-out observations that are measured during training; the baseline is the best constant chunk.</p>
<figure>${figure}</figure>
${table(
  columns.map((name) => ({ name, kind: 'number' as const })),
  cells,
)}`,
  };
}

export async function closedLoopSection(closedLoop: ClosedLoop): Promise<Section | undefined> {
  const { episodes } = closedLoop;
  if (episodes.length === 0) return undefined;
  const word = (value: boolean | undefined) => (value === undefined ? '' : value ? 'yes' : 'no');
  const rows = episodes.map(({ instruction, outcome = '', success, rightObject, steps }, i) => {
    return [String(i + 1), instruction, outcome, word(rightObject), word(success), formatNumber(steps)];
  });
  const numbers = (name: string) => ({ name, kind: 'number' as const });
  const words = ['instruction', 'outcome', 'right object', 'success'].map((name) => ({ name }));
  return {
    id: 'closed-loop',
    title: 'Closed loop',
    body: html`<figure>${await proportionFigure(rates(closedLoop))}</figure>
<h3>All episodes</h3>
${table([numbers(''), ...words, numbers('control steps')], rows)}`,
  };
}

export function latencySection(latency: NonNullable<ReportData['latency']>): Section {
  const total = latency.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  const rows = latency.map(({ part, milliseconds }) => ({
    label: part,
    value: milliseconds,
    texts: [`${formatNumber(milliseconds)} ms`, total > 0 ? formatPercent(milliseconds / total) : ''],
  }));
  return {
    id: 'latency',
    title: 'Latency',
    body: html`<p>One call of the policy, ${formatNumber(total)} ms in all.</p>\n${barTable(['part', 'time', 'share'], rows)}`,
  };
}
