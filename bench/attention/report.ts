/** A run of `insula bench attention` as one HTML page with a figure and a table for each shape, without scripts or requests. */
import { html, type Markup, shorten } from '../../model/report/markup.ts';
import { page, table } from '../../model/report/page.ts';
import { colour, plot } from '../../model/report/plot.ts';
import type { BenchResult, ResultRow } from './run.ts';
import { byShape, headLines, legend, numberCells, numberColumns, timeOf } from './text.ts';

const BAR = 20;

export async function benchReport(result: BenchResult): Promise<string> {
  const title = `Attention on ${result.adapter.description}`;
  const sections = await Promise.all(
    byShape(result).map(async ({ title, rows }, i) => {
      const directions = [...new Set(rows.map(({ direction }) => direction))];
      const parts = directions.map((direction) =>
        part(
          result,
          rows.filter((row) => row.direction === direction),
        ),
      );
      return { id: `shape-${i}`, title, body: html`${await Promise.all(parts)}` };
    }),
  );
  const notes = {
    id: 'notes',
    title: 'How to read it',
    body: html`<p>${legend.join(' ')}</p>\n<ul>${result.leftOut.map((line) => html`<li>Left out: ${line}</li>\n`)}</ul>`,
  };
  const head = html`<h1>${title}</h1>
${headLines(result).map((line) => html`<p class="under">${line}</p>\n`)}`;
  return page(title, head, [...sections, notes]);
}

/** One direction of a shape: the rates of live work as bars, the rate of the matrix product as a rule, and the table. */
async function part({ timer, matmuls }: BenchResult, rows: readonly ResultRow[]): Promise<Markup> {
  const [{ direction }] = rows;
  const product = matmuls.find(({ name }) => name === rows[0].matmul)!;
  const several = (field: 'variant' | 'storage') => new Set(rows.map((row) => row[field])).size > 1;
  const [variants, storages] = [several('variant'), several('storage')];
  const names = rows.map((row) =>
    [row.mask, ...(variants ? [row.variant] : []), ...(storages ? [row.storage] : [])].join(', '),
  );
  const values = rows.map((row, i) => {
    const { lowerQuartile, upperQuartile } = timeOf(row, timer);
    const [fastest, slowest] = [row.flops / lowerQuartile / 1e6, row.flops / upperQuartile / 1e6];
    return { i, gigaflops: row.gigaflops, fastest, slowest };
  });
  const highest = Math.max(product.gigaflops, ...values.map(({ fastest }) => fastest));
  const x = {
    field: 'gigaflops',
    type: 'quantitative',
    scale: { domain: [0, highest * 1.02] },
    axis: { title: 'GFLOP/s of live work', tickCount: 6 },
  };
  const y = {
    field: 'i',
    type: 'ordinal',
    axis: {
      title: null,
      grid: false,
      ticks: false,
      labelLimit: 1000,
      labelExpr: `${JSON.stringify(names.map((name) => shorten(name, 34)))}[datum.value]`,
    },
  };
  const svg = await plot(
    `Rates of ${direction}`,
    { width: 460, height: BAR * rows.length, margins: { left: 230, right: 16, top: 16, bottom: 40 } },
    [
      { data: { values }, mark: { type: 'bar', color: colour('bar'), height: { band: 0.7 } }, encoding: { x, y } },
      {
        data: { values },
        mark: { type: 'rule', color: colour('ink') },
        encoding: { x: { ...x, field: 'slowest' }, x2: { field: 'fastest' }, y },
      },
      {
        data: { values: [{}] },
        mark: { type: 'rule', color: colour('line2'), strokeDash: [4, 3] },
        encoding: { x: { datum: product.gigaflops, type: 'quantitative' } },
      },
    ],
  );
  const columns = [{ name: 'mask' }, ...numberColumns.map((name) => ({ name, kind: 'number' as const }))];
  const cells = rows.map((row, i) => [
    html`<span style="display:block;min-width:9rem">${names[i]}</span>`,
    ...numberCells(row, timer),
  ]);
  return html`<h3>${direction}</h3>
<figure><figcaption class="small">Bars are medians, lines quartiles; dashed: ${product.name}</figcaption>${svg}</figure>
${table(columns, cells)}`;
}
