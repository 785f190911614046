/** The result of `insula tokenize report` as one HTML page: tokens against error, errors by dimension, use of the ids. */
import { formatPercent, html, type Markup } from '../../model/report/markup.ts';
import { barTable, page, table } from '../../model/report/page.ts';
import { colour, plot, quantitative, verticalTitle } from '../../model/report/plot.ts';
import type { ReportRow } from './report.ts';
import { errorTable, NOTE, type ReportedDimension, summaryTable } from './text.ts';

export async function reportPage(
  title: string,
  description: string,
  rows: readonly ReportRow[],
  dimensions: readonly ReportedDimension[],
): Promise<string> {
  const numbers = ([head, ...body]: string[][]): Markup => {
    const columns = head.map((name, i) => ({ name, kind: i === 0 ? undefined : ('number' as const) }));
    return table(columns, body);
  };
  const uses = await Promise.all(rows.map(use));
  return page(title, html`<h1>${title}</h1>\n<p class="under">${description}</p>`, [
    {
      id: 'cost',
      title: 'Tokens and what they lose',
      body: html`<figure>${await tokensAgainstError(rows)}</figure>\n${numbers(summaryTable(rows))}\n<p class="small">${NOTE}</p>`,
    },
    {
      id: 'dimensions',
      title: 'Root mean square error by dimension',
      body: numbers(errorTable(rows, dimensions)),
    },
    { id: 'use', title: 'Use of ids', body: html`${uses}` },
  ]);
}

function tokensAgainstError(rows: readonly ReportRow[]): Promise<Markup> {
  const margins = { left: 60, right: 150, top: 30, bottom: 40 };
  const values = rows.map(({ name, tokensPerSecond, error }) => ({
    name,
    tokensPerSecond,
    error: error.rootMeanSquare,
  }));
  // A point with fewer tokens than the first row has its label on the left, so that labels at one height do not overlap.
  const [{ tokensPerSecond: first }] = values;
  const encoding = {
    x: quantitative(
      'tokensPerSecond',
      { type: 'log' },
      { title: 'tokens for a second of control', grid: false, labelOverlap: true },
    ),
    y: quantitative(
      'error',
      { type: 'log' },
      { ...verticalTitle('root mean square error, normalised', margins.left), tickCount: 5, labelOverlap: true },
    ),
  };
  return plot('Tokens against error', { width: 460, height: 260, margins }, [
    { data: { values }, mark: { type: 'point', filled: true, size: 60, color: colour('line1'), opacity: 1 }, encoding },
    ...(['left', 'right'] as const).map((side) => ({
      data: { values: values.filter(({ tokensPerSecond }) => (tokensPerSecond < first ? 'left' : 'right') === side) },
      mark: {
        type: 'text',
        align: side === 'left' ? 'right' : 'left',
        dx: side === 'left' ? -8 : 8,
        fontSize: 11,
        color: colour('ink'),
      },
      encoding: { ...encoding, text: { field: 'name' } },
    })),
  ]);
}

/** The shares of all ids, the most frequent first, and the meanings of the first of them. */
async function use({ name, use: { counts, distinct, entropy, frequent } }: ReportRow): Promise<Markup> {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const values = counts
    .filter((count) => count > 0)
    .toSorted((a, b) => b - a)
    .map((count, rank) => ({ rank: rank + 1, percent: (100 * count) / total }));
  const margins = { left: 44, right: 16, top: 30, bottom: 40 };
  const figure = await plot(`Use of ids: ${name}`, { width: 460, height: 90, margins }, [
    {
      data: { values },
      mark: { type: 'area', interpolate: 'step', color: colour('bar') },
      encoding: {
        x: { field: 'rank', type: 'quantitative', axis: { title: 'rank of the id', grid: false, labelOverlap: true } },
        y: {
          field: 'percent',
          type: 'quantitative',
          axis: { ...verticalTitle('% of the tokens', margins.left), tickCount: 3 },
        },
      },
    },
  ]);
  const bars = frequent.map(({ id, share, spells }) => ({
    label: String(id),
    value: share,
    texts: [spells, formatPercent(share, 1)],
  }));
  return html`<h3>${name}</h3>
<p class="small">${distinct} of ${counts.length} ids used, ${entropy.toFixed(2)} bits a token</p>
<figure>${figure}</figure>
${barTable(['id', 'stands for', 'share'], bars)}`;
}
