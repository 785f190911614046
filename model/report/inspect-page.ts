/** Findings of an inspection as a page and as text. */
import { type HeatMap, heatMap } from './heat-map.ts';
import { html } from './markup.ts';
import { page, type Section } from './page.ts';

/** A heat map with the sentences that explain it. */
export interface Finding extends HeatMap {
  readonly title: string;
  /** Says what the numbers are. */
  readonly about: string;
  /** Says what the colours mean, on the page alone. */
  readonly colours: string;
  /** Says what is to be seen. */
  readonly notes: readonly string[];
}

export function findingSection({ title, about, colours, notes, ...map }: Finding): Section {
  return {
    ...{ id: map.id, title },
    body: html`<p>${about} ${colours}</p>
${map.rows.length > 0 ? heatMap(map) : undefined}
<ul class="key">${notes.map((note) => html`<li>${note}</li>`)}</ul>`,
  };
}

/** The text of all cells under the names of their columns; the group and the name of a row come first. */
export const findingTable = ({ columns, rows }: HeatMap): string[][] => [
  ['', '', ...columns],
  ...rows.map(({ group, name, cells }) => [group, name, ...cells.map(({ text }) => text)]),
];

/** One HTML file without script and request. `title` names the model, `under` says what it was given and where. */
export function inspectPage(title: string, under: readonly string[], sections: Section[]): string {
  const lines = under.map((line) => html`<p class="under">${line}</p>\n`);
  return page(title, html`<h1>${title}</h1>\n${lines}`, sections);
}
