/** The sections of a training run's report. */
import { counted } from '../../engine/files/errors.ts';
import type { ObjectiveDescription } from '../architecture/objectives/index.ts';
import type { Image } from '../data/dataset.ts';
import { encodePng } from '../data/index.ts';
import { rates } from './acting-sections.ts';
import { attentionFigure, attentionInWords } from './attention-figure.ts';
import { chunkPlots, type LossFigure, lossCeiling, lossFigure, TRAINING_BINS } from './figures.ts';
import { formatNumber, formatPercent, formatRatio, formatSeconds, formatTimes, html, type Markup } from './markup.ts';
import { barTable, lineColour, lineEntry, type Section, table } from './page.ts';
import type { LossPoint, ReportData } from './report-data.ts';
import { wilsonInterval } from './wilson.ts';

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

interface Loss extends LossFigure {
  title: string;
  than: ObjectiveDescription['baseline'];
}

type Measured = Pick<ReportData, 'objectives' | 'curves'>;

/** The losses that were measured, in the order of the objectives. */
function losses({ objectives, curves: { training, heldOut, baselines } }: Measured): Loss[] {
  const all = objectives.map(({ name, title, meaning, baseline }, index): Loss => {
    const known = (points: LossPoint[]) =>
      points.flatMap(({ step, losses }) => (losses[name] === undefined ? [] : [{ x: step, y: losses[name] }]));
    return {
      title,
      label: `${capitalised(title)} over training steps`,
      unit: meaning,
      colour: lineColour(index),
      training: known(training),
      heldOut: known(heldOut),
      baseline: baseline === null ? undefined : baselines[name],
      than: baseline,
    };
  });
  return all.filter((loss) => loss.training.length + loss.heldOut.length > 0);
}

export const capitalised = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);

/** The results in a few large figures. */
export function glance(data: ReportData): Markup {
  const entries: [string, string][] = [];
  for (const { title, heldOut, baseline, than } of losses(data)) {
    const last = heldOut.at(-1);
    if (!last) continue;
    entries.push(
      baseline === undefined
        ? [formatNumber(last.y), `held-out ${title}`]
        : [formatTimes(last.y / baseline), `held-out ${title}, relative to the ${than}`],
    );
  }
  const { openLoop, closedLoop } = data;
  if (openLoop) {
    const { oneSample, meanOfEight, bestConstant } = openLoop;
    const what = meanOfEight === null ? '' : ' of the mean of 8 samples';
    const ratio = formatTimes((meanOfEight ?? oneSample) / bestConstant);
    entries.push([ratio, `open-loop error${what}, relative to the best constant chunk`]);
  }
  if (closedLoop && closedLoop.episodes.length > 0) {
    const { count, of } = rates(closedLoop)[0];
    const { low, high } = wilsonInterval(count, of);
    const interval = `${formatPercent(low)} to ${formatPercent(high)}`;
    entries.push([`${count} of ${of}`, `closed-loop episodes succeeded (95 % interval ${interval})`]);
  }
  const total = sum(data.phases.map(({ seconds }) => seconds));
  if (total > 0) entries.push([formatSeconds(total), 'from start to report']);
  return html`<dl class="glance">${entries.map(([value, words]) => html`<div><dt>${words}</dt><dd>${value}</dd></div>`)}</dl>`;
}

export async function lossSection(data: Measured): Promise<Section | undefined> {
  const shown = losses(data);
  if (shown.length === 0) return undefined;
  const figures = await Promise.all(
    shown.map(async (loss) => {
      const { title, heldOut, baseline, than } = loss;
      const last = heldOut.at(-1);
      let compared = '';
      if (last && baseline !== undefined)
        compared = `, ${formatTimes(last.y / baseline, `the ${formatNumber(baseline)} of the ${than}`)}`;
      const words =
        last &&
        html`<p class="small">Held out, at step ${formatNumber(last.x)}: ${formatNumber(last.y)}${compared}.</p>`;
      return html`<div><figure><figcaption>${capitalised(title)}</figcaption>${await lossFigure(loss)}</figure>${words}</div>`;
    }),
  );
  const { training } = data.curves;
  const sentences: string[] = [];
  const last = training.at(-1);
  if (last && last.seconds > 0) {
    const rate = formatRatio(last.step / last.seconds);
    sentences.push(
      `${formatNumber(last.step)} ${last.step === 1 ? 'step' : 'steps'} in ${formatSeconds(last.seconds)}, ${rate} steps a second.`,
    );
  }
  const size = Math.ceil(training.length / TRAINING_BINS);
  if (size > 1)
    sentences.push(
      `The training line is the mean of every ${size} points of the log, its band their lowest to highest.`,
    );
  for (const loss of shown) {
    const ceiling = lossCeiling(loss);
    const highest = loss.training.reduce((most, { y }) => Math.max(most, y), 0);
    if (highest <= ceiling) continue;
    sentences.push(
      `Early ${loss.title} above the frame is drawn at its top edge; the highest was ${formatNumber(highest)}.`,
    );
  }
  return {
    id: 'losses',
    title: 'Losses',
    body: html`<p>${sentences.join(' ')}</p>\n<div class="losses">${figures}</div>`,
  };
}

export function attentionSection(attention: NonNullable<ReportData['attention']>): Section {
  const rows = attentionInWords(attention).map(({ query, words }) => [query, words]);
  return {
    id: 'attention',
    title: 'Attention table',
    body: html`${attentionFigure(attention)}${attention.history && html`<p>${attention.history}</p>`}\n${table([{ name: 'queries of' }, { name: 'see' }], rows)}`,
  };
}

/** The data URL of an image as a PNG. */
export function pictureUrl(image: Image): string {
  let binary = '';
  for (const byte of encodePng(image)) binary += String.fromCharCode(byte);
  return `data:image/png;base64,${btoa(binary)}`;
}

/** The image as a PNG inside a data URL. */
export const picture = (image: Image, description: string): Markup =>
  html`<img src="${pictureUrl(image)}" width="${image.width}" height="${image.height}" alt="${description}">`;

export async function chunkSection(data: ReportData): Promise<Section | undefined> {
  const { chunks } = data;
  if (!chunks || chunks.samples.length === 0) return undefined;
  const { horizon, rate } = data.data;
  const plots = await chunkPlots(chunks, horizon, rate);
  const several = chunks.samples.some(({ mean }) => mean !== null);
  const samples = chunks.samples.map(({ instruction, image, validSteps }, i) => {
    const words = instruction === undefined ? 'no instruction' : `“${instruction}”`;
    const end =
      validSteps < horizon
        ? `The episode ends after ${validSteps} of ${counted(horizon, 'step')} (shaded from there).`
        : '';
    return html`<div class="sample">
<header>${image ? picture(image, `Camera image of held-out sample ${i + 1}`) : undefined}<div><p>${words}</p><p class="small">${end}</p></div></header>
<div class="plots">${plots[i].map(({ name, figure }) => html`<figure><figcaption>${name} (${chunks.unit})</figcaption>${figure}</figure>`)}</div>
</div>\n`;
  });
  return {
    id: 'chunks',
    title: 'Predicted chunks',
    body: html`<p>Held-out observations. Actions (${chunks.unit}) over the ${formatNumber(horizon / rate)} s of the chunk; a dimension has the same axis in every sample.</p>
<ul class="key inline">${lineEntry('demonstrated', 'demonstrated')}${several ? lineEntry('mean', 'mean of 8 samples') : ''}${lineEntry('predicted', several ? 'one sample' : 'predicted')}</ul>
${samples}`,
  };
}

export function runSection(data: ReportData): Section {
  const { name, episodes, heldOut, rate, horizon, missing } = data.data;
  const facts: [string, string | Markup][] = [
    ['Command', html`<code>${data.command}</code>`],
    ['System', `${data.system}, preset ${data.preset}, seed ${data.seed}`],
    ...(data.settings && data.settings.length > 0
      ? [['Settings', html`<code>${data.settings.join(' ')}</code> (others have their defaults)`] as [string, Markup]]
      : []),
    ['Adapter', data.adapter],
    ['Data', `${name}, ${formatNumber(episodes)} ${episodes === 1 ? 'episode' : 'episodes'}`],
    ['Held out', heldOut],
    ['Chunk', `${counted(horizon, 'step')} at ${formatNumber(rate)} Hz, ${formatNumber(horizon / rate)} s`],
  ];
  if (missing.length > 0) facts.push(['Missing', missing.join(', ')]);
  const bars = (
    columns: string[],
    rows: { label: string; value: number }[],
    format: (value: number) => string,
    whole: string,
  ) => {
    const total = format(sum(rows.map(({ value }) => value)));
    const shown = rows.map((row) => ({ ...row, texts: [format(row.value)] }));
    return rows.length > 0 ? barTable(columns, shown, `${total} ${whole}`) : undefined;
  };
  const parameters = data.parameters.map(({ group, count }) => ({ label: group, value: count }));
  const phases = data.phases.map(({ name, seconds }) => ({ label: name, value: seconds }));
  return {
    id: 'run',
    title: 'The run',
    body: html`<dl class="facts">${facts.map(([term, value]) => html`<dt>${term}</dt><dd>${value}</dd>`)}</dl>
<div class="columns">
${bars(['parameter group', 'parameters'], parameters, formatNumber, 'parameters')}
${bars(['phase', 'time'], phases, formatSeconds, 'in all')}
</div>`,
  };
}
