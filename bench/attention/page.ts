/** A run of `insula bench attention` as one HTML page with a figure and a table for each shape, without scripts or requests. */
import { html, type Markup, shorten } from '../../model/report/markup.ts';
import { page, table } from '../../model/report/page.ts';
import { colour, plot, quantitative } from '../../model/report/plot.ts';
import { digits, groupBy } from '../measure/table.ts';
import { UNFUSED } from './rows.ts';
import type { AttentionRun, ResultRow } from './run.ts';
import { byShape, factLines, footnotes, legend, numberCells, numberColumns } from './text.ts';

const BAR = 20;
/** Columns of the tables; the figures show the quartiles, and a page has no room for all. */
const shown = [...numberColumns.keys()].filter((at) => !['quartiles', 'workgroups'].includes(numberColumns[at]));

export async function attentionPage(run: AttentionRun): Promise<string> {
  const masks = [...new Set(run.rows.map(({ mask }) => mask))];
  const shapes = byShape(run).map(({ title }) => title);
  const title = shorten(`Attention, ${shapes.join('; ')}: ${masks.join(', ')}`, 160);
  const sections = await Promise.all(
    byShape(run).map(async ({ title, rows }, i) => {
      const directions = [...groupBy(rows, ({ direction }) => direction).values()];
      return { id: `shape-${i}`, title, body: html`${await Promise.all(directions.map((own) => part(run, own)))}` };
    }),
  );
  const notes = {
    id: 'notes',
    title: 'How to read it',
    body: html`<p>${legend.join(' ')}</p>\n<ul>${footnotes(run).map((line) => html`<li>${line}</li>\n`)}</ul>`,
  };
  const head = html`<h1>${title}</h1>
${run.answer.map((line) => html`<p>${line.trim()}</p>\n`)}${factLines(run).map((line) => html`<p class="under">${line}</p>\n`)}`;
  return page(title, head, [...sections, notes]);
}

/** One direction of a shape: times as bars, the least time by the roof and the time of its FLOPs in a matrix product as marks. */
async function part({ anchors }: AttentionRun, rows: readonly ResultRow[]): Promise<Markup> {
  const [{ direction, shape, matmul }] = rows;
  const fields = (['variant', 'storage'] as const).filter((field) => new Set(rows.map((row) => row[field])).size > 1);
  const names = rows.map((row) => [row.mask, ...fields.map((field) => row[field])].join(', '));
  const values = rows.map(({ time, leastMilliseconds, percentOfMatmul, variant }, i) => ({
    ...{ i, ms: time.median, fastest: time.lowerQuartile, slowest: time.upperQuartile, roof: leastMilliseconds },
    ...(percentOfMatmul !== null && { product: (time.median * percentOfMatmul) / 100 }),
    unfused: variant === UNFUSED,
  }));
  const longest = Math.max(...values.map(({ slowest }) => slowest));
  const x = quantitative('ms', { domain: [0, longest * 1.02] }, { title: 'milliseconds', tickCount: 6 });
  const y = {
    field: 'i',
    type: 'ordinal',
    axis: {
      ...{ title: null, grid: false, ticks: false, labelLimit: 1000 },
      labelExpr: `${JSON.stringify(names.map((name) => shorten(name, 34)))}[datum.value]`,
    },
  };
  const bars = (unfused: boolean) => ({
    data: { values: values.filter((value) => value.unfused === unfused) },
    mark: { type: 'bar', color: colour(unfused ? 'stop' : 'bar'), height: { band: 0.7 } },
    encoding: { x, y },
  });
  const ticks = (field: string, name: string, thickness: number) => ({
    data: { values: values.filter((value) => field in value) },
    mark: { type: 'tick', color: colour(name), thickness, bandSize: BAR * 0.9 },
    encoding: { x: { ...x, field }, y },
  });
  const svg = await plot(
    `Times of ${direction}, ${shape}`,
    { width: 460, height: BAR * rows.length, margins: { left: 230, right: 16, top: 16, bottom: 40 } },
    [
      bars(false),
      bars(true),
      {
        data: { values },
        mark: { type: 'rule', color: colour('ink') },
        encoding: { x: { ...x, field: 'fastest' }, x2: { field: 'slowest' }, y },
      },
      ticks('product', 'line4', 2),
      ticks('roof', 'line3', 3),
    ],
  );
  const columns = [
    { name: ['mask', ...fields].join(', ') },
    ...shown.map((at) => ({ name: numberColumns[at], kind: 'number' as const })),
  ];
  const cells = rows.map((row, i) => [
    html`<span style="display:block;min-width:9rem">${names[i]}</span>`,
    ...shown.map((at) => numberCells(row)[at]),
  ]);
  const product = anchors.find(({ name }) => name === matmul);
  const swatch = (name: string, text: string) =>
    html`<li><svg class="swatch" viewBox="0 0 28 10"><rect width="28" height="10" style="fill:var(--${name})"/></svg>${text}</li>`;
  const key = [
    swatch('bar', 'attention kernels'),
    ...(values.some(({ unfused }) => unfused) ? [swatch('stop', 'unfused operations')] : []),
    swatch('line3', 'least time by the roof'),
    ...(product ? [swatch('line4', `its FLOPs at the rate of ${matmul} (${digits(product.time.median)} ms)`)] : []),
  ];
  return html`<h3>${shape}, ${direction}: ${shorten([...new Set(rows.map(({ mask }) => mask))].join(', '), 100)}</h3>
<figure><figcaption class="small">Bars are medians, black lines quartiles</figcaption>${svg}<ul class="key inline">${key}</ul></figure>
<div class="wide">${table(columns, cells)}</div>`;
}
