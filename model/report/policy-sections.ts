import { encode } from 'fast-png';
import type { Image } from '../data/dataset.ts';
import { chunkPlots, proportionFigure } from './chunk-figures.ts';
import { formatNumber, formatPercent, formatRatio, html, type Markup } from './markup.ts';
import { barTable, type Section, table } from './page.ts';
import type { ClosedLoop, ReportData } from './report-data.ts';

/** The image as a PNG inside a data URL. */
function picture({ width, height, pixels }: Image, description: string): Markup {
  const png = encode({ width, height, data: pixels, channels: 3 });
  let binary = '';
  for (const byte of png) binary += String.fromCharCode(byte);
  return html`<img src="data:image/png;base64,${btoa(binary)}" width="${width}" height="${height}" alt="${description}">`;
}

/** A value beside a baseline: "0.46 ×". */
export const times = (value: number, baseline: number) => `${formatRatio(value / baseline)} ×`;

/** Success, and where it is known the right object, as counts. */
export function rates({ episodes }: ClosedLoop): { name: string; count: number; of: number }[] {
  const known = episodes.filter(({ rightObject }) => rightObject !== undefined);
  return [
    { name: 'success', count: episodes.filter(({ success }) => success).length, of: episodes.length },
    { name: 'right object', count: known.filter(({ rightObject }) => rightObject).length, of: known.length },
  ].filter(({ of }) => of > 0);
}

export async function chunkSection(data: ReportData): Promise<Section | undefined> {
  const { chunks } = data;
  if (!chunks || chunks.samples.length === 0) return undefined;
  const { horizon, rate } = data.data;
  const plots = await chunkPlots(chunks, horizon, rate);
  const line = (name: string, words: string) =>
    html`<li><svg class="swatch" aria-hidden="true" viewBox="0 0 22 8"><path d="M0,4H22" stroke="var(--${name})" stroke-width="2"/></svg> ${words}</li>`;
  const samples = chunks.samples.map(({ instruction, image, validSteps }, i) => {
    const words = instruction === undefined ? 'no instruction' : `“${instruction}”`;
    const end =
      validSteps < horizon ? `The episode ends after ${validSteps} of ${horizon} steps (shaded from there).` : '';
    return html`<div class="sample">
<header>${image ? picture(image, `Camera image of held-out sample ${i + 1}`) : undefined}<div><p>${words}</p><p class="small">${end}</p></div></header>
<div class="plots">${plots[i].map(({ name, figure }) => html`<figure><figcaption>${name}</figcaption>${figure}</figure>`)}</div>
</div>\n`;
  });
  return {
    id: 'chunks',
    title: 'Predicted chunks',
    body: html`<p>Held-out observations. Actions (${chunks.unit}) over the ${formatNumber(horizon / rate)} s of the chunk; a dimension has the same axis in every sample.</p>
<ul class="key inline">${line('demonstrated', 'demonstrated')}${line('mean', 'mean of 8 samples')}${line('predicted', 'one sample')}</ul>
${samples}`,
  };
}

export function openLoopSection(openLoop: NonNullable<ReportData['openLoop']>): Section {
  const { measure, observations, oneSample, meanOfEight, bestConstant } = openLoop;
  const row = (label: string, value: number) => ({
    label,
    value,
    texts: [formatNumber(value), bestConstant > 0 ? times(value, bestConstant) : ''],
  });
  const rows = [
    row('best constant chunk', bestConstant),
    row('one sample', oneSample),
    row('mean of 8 samples', meanOfEight),
  ];
  return {
    id: 'open-loop',
    title: 'Open loop',
    body: html`<p>Error of predicted chunks on ${formatNumber(observations)} held-out observations: ${measure}.</p>
${barTable(['prediction', 'error', 'relative'], rows)}`,
  };
}

export async function closedLoopSection(closedLoop: ClosedLoop): Promise<Section | undefined> {
  const { episodes, film } = closedLoop;
  if (episodes.length === 0) return undefined;
  const word = (value: boolean | undefined) => (value === undefined ? '' : value ? 'yes' : 'no');
  const rows = episodes.map(({ instruction, success, rightObject, steps }, i) => [
    String(i + 1),
    instruction,
    word(rightObject),
    word(success),
    formatNumber(steps),
  ]);
  const columns = [
    { name: '', kind: 'number' as const },
    { name: 'instruction' },
    { name: 'right object' },
    { name: 'success' },
    { name: 'steps', kind: 'number' as const },
  ];
  const frames = film?.frames.map(
    ({ label, image }) => html`<figure>${picture(image, label)}<figcaption>${label}</figcaption></figure>`,
  );
  return {
    id: 'closed-loop',
    title: 'Closed loop',
    body: html`<figure>${await proportionFigure(rates(closedLoop))}</figure>
${film ? html`<h3>${film.caption}</h3><div class="film">${frames}</div>` : undefined}
<h3>Episodes</h3>
${table(columns, rows)}`,
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
