/** A study as one HTML page: its question, its table, curves over steps and over seconds, and what is missing. */
import { html, Markup } from '../../model/report/markup.ts';
import { lineColour, page, table } from '../../model/report/page.ts';
import { colour, type Layer, plot, quantitative, verticalTitle } from '../../model/report/plot.ts';
import { treeText } from '../measure/provenance.ts';
import type { SavedRun } from './saved.ts';
import type { Study, Variant } from './study.ts';
import { cellsOf, legend, type StudyTable } from './table.ts';

interface StudyPage {
  readonly study: Study;
  /** The command as typed. */
  readonly command: string;
  readonly runs: readonly SavedRun[];
  readonly results: StudyTable;
  /** Files of runs that are not finished. */
  readonly missing: readonly string[];
}

/** Losses above this multiple of the baseline's are not drawn. */
const CEILING = 1.5;
const DASH = [5, 4];

export async function studyPage({ study, command, runs, results, missing }: StudyPage): Promise<string> {
  const { title, question, remark, variants } = study;
  const { head, lines } = cellsOf(results);
  // A row in one line is wider than the page.
  const stacked = (text: string) =>
    html`${text.split(/ (?=\()|[,;] /).map((part, i) => (i === 0 ? part : html`<br>${part}`))}`;
  const columns = head.map((name, i) => (i === 0 ? { name } : { name: stacked(name), kind: 'number' as const }));
  const named = (name: string) => html`<span style="display:block;min-width:8rem">${name}</span>`;
  const rows = lines.map(([name, ...cells]) => [named(name), ...cells.map(stacked)]);
  const drawn = results.objectives.flatMap(({ name, title }) =>
    (['step', 'seconds'] as const).map(async (axis) => {
      const figure = await curves(variants, runs, name, axis);
      return html`<figure><figcaption>Held-out ${title} over ${axis === 'step' ? 'steps' : axis}</figcaption>${figure}</figure>\n`;
    }),
  );
  const key = variants.map((variant) => {
    const { name, dash } = lineOf(variants, variant);
    const path = `<path d="M0,4H22" stroke="var(--${name})" stroke-width="2" stroke-dasharray="${dash.join(' ')}"/>`;
    return html`<li><svg class="swatch" aria-hidden="true" viewBox="0 0 22 8">${new Markup(path)}</svg> ${variant.name}</li>`;
  });
  const all = (of: (run: SavedRun) => unknown) => [...new Set(runs.map(of))].join('; ');
  const facts: [string, string][] = [
    ['Command', command],
    ['Each run', all(({ settings: own, scenes }) => `${own.steps} steps of ${own.batch} examples, ${scenes} scenes`)],
    ['Start', all(({ settings, start }) => `${settings.from}, SHA-256 ${start.slice(0, 16)}`)],
    ['Data', all(({ settings }) => settings.data ?? 'the built-in world')],
    ['Adapter', all(({ adapter }) => adapter.description)],
    ['Version', all(treeText)],
    ['Finished', `${all(({ date }) => date.slice(0, 10))}: ${runs.length} runs`],
    ['Missing', missing.join(', ') || 'none'],
  ];
  const terms = (pairs: readonly (readonly [string, string])[]) =>
    html`<dl class="facts">${pairs.map(([name, words]) => html`<dt>${name}</dt><dd>${words}</dd>`)}</dl>`;
  const small = (text: string) => html`<p class="small">${text}</p>\n`;
  const read = `A line is a run. Dotted: the predictor that does not look; what is above the frame is worse than ${CEILING} times that. Seconds are those of training with its measurements.`;
  return page(title, html`<h1>${title}</h1>\n<p>${question}</p>`, [
    { id: 'table', title: 'Table', body: html`${table(columns, rows)}\n${[remark, ...legend].map(small)}` },
    { id: 'variants', title: 'Variants', body: terms(variants.map(({ name, meaning }) => [name, meaning])) },
    {
      id: 'curves',
      title: 'Curves',
      body: html`<ul class="key inline">${key}</ul>\n${small(read)}<div class="losses">${await Promise.all(drawn)}</div>`,
    },
    { id: 'runs', title: 'Runs', body: terms(facts) },
  ]);
}

/** The line of a variant; a variant beside another has the colour of that. */
function lineOf(variants: readonly Variant[], { name, beside }: Variant): { name: string; dash: number[] } {
  const first = variants.filter((own) => own.beside === undefined).findIndex((own) => own.name === (beside ?? name));
  return { name: lineColour(first), dash: beside === undefined ? [] : DASH };
}

function curves(
  variants: readonly Variant[],
  runs: readonly SavedRun[],
  loss: string,
  axis: 'step' | 'seconds',
): Promise<Markup> {
  const size = { width: 300, height: 200, margins: { left: 44, right: 12, top: 28, bottom: 40 } };
  const lines = runs.flatMap(({ variant, heldOut }) => {
    const values = heldOut.flatMap((row) => (loss in row.losses ? [{ x: row[axis], y: row.losses[loss] }] : []));
    return values.length > 0 ? [{ variant: variants.find(({ name }) => name === variant)!, values }] : [];
  });
  const baselines = runs.flatMap(({ baselines: own }) => own[loss] ?? []);
  const highest = Math.max(...lines.flatMap(({ values }) => values.map(({ y }) => y)));
  const top = Math.min(1.05 * highest, ...baselines.map((value) => CEILING * value));
  const title = axis === 'step' ? 'training step' : 'seconds of training';
  const x = quantitative('x', { nice: false, zero: true }, { tickCount: 4, grid: false, title });
  const vertical = { tickCount: 4, domain: false, ticks: false, ...verticalTitle('loss', size.margins.left) };
  const y = quantitative('y', { domain: [0, top], nice: false }, vertical);
  const layers = lines.map(({ variant, values }): Layer => {
    const { name, dash } = lineOf(variants, variant);
    const mark = { type: 'line', color: colour(name), strokeWidth: 1.4, strokeDash: dash, clip: true };
    return { data: { values }, mark, encoding: { x, y } };
  });
  const rule = { type: 'rule', color: colour('muted'), strokeDash: [1, 3], clip: true };
  layers.push({ data: { values: baselines.slice(0, 1).map((value) => ({ y: value })) }, mark: rule, encoding: { y } });
  return plot(`Held-out ${loss} loss over ${axis}`, size, layers);
}
