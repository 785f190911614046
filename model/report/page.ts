import { html, Markup } from './markup.ts';

/** The colours of lines that stand for objectives, in the order of the objectives. */
const palette = {
  light: ['#1f6feb', '#b8560f', '#1a7f37', '#8250df', '#bf3989', '#0b7285'],
  dark: ['#6ea8ff', '#f0a05a', '#57c76f', '#bd93ff', '#ff8bc2', '#4cc4d6'],
};
const namedLines = (colours: string[]) => colours.map((value, index) => `--${lineColour(index)}:${value}`).join(';');

/** The name of the colour of the line at `index`; there are six, and then they come again. */
export function lineColour(index: number): string {
  return `line${1 + (index % palette.light.length)}`;
}

/** An entry of a key of lines: a piece of the line in its colour, and words. */
export function lineEntry(name: string, words: string | Markup, dash: readonly number[] = []): Markup {
  const dashes = dash.length > 0 ? ` stroke-dasharray="${dash.join(' ')}"` : '';
  const path = new Markup(`<path d="M0,4H22" stroke="var(--${name})" stroke-width="2"${dashes}/>`);
  return html`<li><svg class="swatch" aria-hidden="true" viewBox="0 0 22 8">${path}</svg> ${words}</li>`;
}

/** Colours by name. Figures refer to the names, so that one figure serves light, dark and print. */
export const lightColours = `--paper:#fff;--ink:#1d2126;--muted:#667080;--rule:#c9ced6;--grid:#e9ecf0;--band:#f1f3f6;${namedLines(palette.light)};--demonstrated:#1d2126;--predicted:#9dbdf0;--mean:#1f6feb;--pairs:#cfe0fb;--stop:#b8560f;--bar:#a9c4ee;--alarm:#b42318;color-scheme:light`;
export const darkColours = `--paper:#14171b;--ink:#e4e7eb;--muted:#98a1ad;--rule:#444b55;--grid:#272c33;--band:#20242a;${namedLines(palette.dark)};--demonstrated:#e4e7eb;--predicted:#45669c;--mean:#6ea8ff;--pairs:#28456f;--stop:#f0a05a;--bar:#3a5c92;--alarm:#ff8278;color-scheme:dark`;

/** The style sheet of all pages: reports, benchmarks and the explorer. */
export const pageStyle = `
:root{${lightColours}}
@media screen and (prefers-color-scheme:dark){:root{${darkColours}}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:break-word}
main{max-width:62rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.75rem;line-height:1.2;font-weight:650;margin:0 0 .35rem;letter-spacing:-.01em}
h2{font-size:1.2rem;line-height:1.3;font-weight:650;margin:0 0 .6rem}
h3{font-size:1rem;font-weight:600;margin:1.5rem 0 .4rem}
section{margin-top:3rem}
p{margin:.5rem 0;max-width:44rem}
.under{color:var(--muted);margin:0}
nav{margin-top:1rem;font-size:.875rem;line-height:1.9}
nav a{margin-right:1rem;white-space:nowrap}
a{color:var(--line1);text-decoration:none}
a:hover{text-decoration:underline}
.glance{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.25rem,1fr));gap:1.25rem 1.5rem;margin:2rem 0 0;padding:1.25rem 0;border-top:1px solid var(--rule);border-bottom:1px solid var(--rule)}
.glance div{display:flex;flex-direction:column-reverse;justify-content:flex-end}
.glance dd{margin:0;font-size:1.6rem;line-height:1.25;font-weight:600;letter-spacing:-.01em}
.glance dt{font-size:.8125rem;line-height:1.4;color:var(--muted)}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.5rem;margin:.5rem 0;font-size:.9375rem}
.facts dt{color:var(--muted)}
.facts dd{margin:0;min-width:0;overflow-wrap:anywhere}
code{font:.8125rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));gap:1rem 3rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9375rem;width:100%}
caption{text-align:left;font-weight:600;padding-bottom:.3rem}
th,td{text-align:left;padding:.25rem 1rem .25rem 0;border-bottom:1px solid var(--grid);vertical-align:top;font-weight:400}
thead th{color:var(--muted);font-size:.8125rem;border-bottom-color:var(--rule)}
th:last-child,td:last-child{padding-right:0}
:is(th,td):not([class]){overflow-wrap:anywhere;min-width:5rem}
.number{text-align:right;white-space:nowrap}
.bar{width:34%;vertical-align:middle}
.bar i{display:block;height:.6rem;min-width:1px;background:var(--bar);border-radius:1px;print-color-adjust:exact;-webkit-print-color-adjust:exact}
figure{margin:0;min-width:0;break-inside:avoid}
figure>figcaption{font-size:.9375rem;font-weight:600}
svg{display:block;width:100%;height:auto}
svg text{font-family:inherit}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,17.5rem),1fr));gap:1.5rem 1.5rem;margin:1.25rem 0}
.losses{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:1.5rem 2rem;margin:1.25rem 0}
.sample{margin-top:2rem}
.sample header{display:flex;gap:1rem;align-items:center;margin-bottom:.75rem;break-after:avoid}
.sample header p{margin:0}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(max(9rem,22%),1fr));gap:.75rem 1rem}
.plots figcaption{font-size:.8125rem;font-weight:400;color:var(--muted)}
img{display:block;height:auto;max-width:100%;image-rendering:pixelated;background:var(--band)}
.sample img{width:6rem;flex:none}
.strip{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:.5rem .6rem}
.sample .strip img{width:100%}
.strip p{font-size:.75rem;line-height:1.35;margin:.25rem 0}
.strip .said{color:var(--ink)}
.attention{display:flex;flex-wrap:wrap;gap:1rem 2.5rem;align-items:center;margin-bottom:1.5rem}
.attention>svg{flex:3 1 22rem}
.attention>figcaption{flex:2 1 16rem;font-weight:400}
.key{list-style:none;margin:.5rem 0;padding:0;font-size:.875rem}
.key li{display:flex;gap:.6rem;align-items:center;margin:.35rem 0}
.key.inline{display:flex;flex-wrap:wrap;gap:.25rem 1.5rem}
.key.inline li{margin:0}
.swatch{width:1.75rem;flex:none}
.small{font-size:.875rem;color:var(--muted)}
.alarm{color:var(--alarm);font-weight:600}
@media (max-width:30rem){.bar{width:18%}}
@page{margin:16mm 14mm}
@media print{
html{font-size:10pt}
main{max-width:none;padding:0}
nav{display:none}
.glance{grid-template-columns:none;grid-auto-flow:column;grid-auto-columns:1fr}
section{margin-top:2rem}
.wide{overflow:visible}
h2,h3,section>p,.key,caption{break-after:avoid}
p,tr,table,.sample,.losses>div{break-inside:avoid}
.losses{grid-template-columns:1fr 1fr}
.columns{grid-template-columns:3fr 2fr}
.panels{grid-template-columns:repeat(3,1fr)}
.plots{grid-template-columns:repeat(4,1fr)}
}`;

export interface Section {
  id: string;
  title: string;
  body: Markup;
}

/** The whole file. The security policy in its head forbids every request and every script, whatever the data hold. */
export function page(title: string, head: Markup, sections: Section[]): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<style>${new Markup(pageStyle)}</style>
</head>
<body>
<main>
${head}
<nav aria-label="Sections">${sections.map(({ id, title }) => html`<a href="#${id}">${title}</a> `)}</nav>
${sections.map(({ id, title, body }) => html`<section id="${id}">\n<h2>${title}</h2>\n${body}\n</section>\n`)}</main>
</body>
</html>
`.text;
}

type Cell = string | Markup;

export interface Column {
  name: Cell;
  /** Numbers are aligned to the right; a bar takes the remaining width. */
  kind?: 'number' | 'bar';
}

export function table(columns: readonly Column[], rows: readonly (readonly Cell[])[], caption?: string): Markup {
  const kind = (i: number) => (columns[i].kind ? html` class="${columns[i].kind}"` : undefined);
  return html`<div class="wide"><table>${caption === undefined ? undefined : html`<caption>${caption}</caption>`}
<thead><tr>${columns.map(({ name }, i) => html`<th scope="col"${kind(i)}>${name}</th>`)}</tr></thead>
<tbody>${rows.map((row) => html`<tr>${row.map((cell, i) => html`<td${kind(i)}>${cell}</td>`)}</tr>\n`)}</tbody>
</table></div>`;
}

/** A table with a bar for each row's value, all bars on one scale from zero. */
export function barTable(
  [label, ...values]: string[],
  rows: { label: string; value: number; texts: string[] }[],
  caption?: string,
): Markup {
  const largest = rows.reduce((most, { value }) => Math.max(most, value), 0) || 1;
  const columns: Column[] = [
    { name: label },
    ...values.map((name) => ({ name, kind: 'number' as const })),
    { name: '', kind: 'bar' },
  ];
  const bar = (value: number) => html`<i style="width:${((100 * value) / largest).toFixed(2)}%"></i>`;
  const body = rows.map((row) => [row.label, ...row.texts, bar(row.value)]);
  return table(columns, body, caption);
}
