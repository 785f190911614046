/** The page of an inspection: what a measurement found in a model, in sections that the measurement makes. */
import { html } from './markup.ts';
import { page, type Section } from './page.ts';

/** One HTML file without script and request. `title` names the model, `under` says what it was given and where. */
export function inspectPage(title: string, under: readonly string[], sections: Section[]): string {
  const lines = under.map((line) => html`<p class="under">${line}</p>\n`);
  return page(title, html`<h1>${title}</h1>\n${lines}`, sections);
}
