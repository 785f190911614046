/** The report of a pretraining run as one HTML file: losses, scores of what the model sees, and pictures with its answers. */
import type { Place } from '../../tokenizers/index.ts';
import type { Image } from '../data/dataset.ts';
import { drawPlaces } from './drawn-picture.ts';
import { formatSeconds, html, type Markup } from './markup.ts';
import { barTable, page, type Section, table } from './page.ts';
import { type ReportData, refuseNonFinite } from './report-data.ts';
import { lossSection, picture } from './sections.ts';

export interface ScoreTable {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** A question with a model's answer, whose places are drawn into the picture. */
export interface ShownAnswer {
  readonly about: string;
  readonly image: Image;
  readonly places: readonly Place[];
  readonly prompt: string;
  readonly right: string;
  readonly answer: string;
  /** How far off the answer is, in words. */
  readonly remark?: string;
}

export interface SeeingReport extends Pick<ReportData, 'title' | 'objectives' | 'curves' | 'phases' | 'date'> {
  /** The result in a few large figures, each with its words. */
  readonly glance: readonly (readonly [value: string, words: string])[];
  readonly facts: readonly (readonly [name: string, text: string])[];
  readonly tables: readonly ScoreTable[];
  /** The sets of scenes in the tables, each in words. */
  readonly sets: readonly (readonly [name: string, words: string])[];
  /** The rule by which the answers were chosen. */
  readonly rule: string;
  readonly answers: readonly ShownAnswer[];
}

/** The same data give the same bytes. @throws InputError if a number is not finite */
export async function renderSeeingReport(data: SeeingReport): Promise<string> {
  refuseNonFinite({ curves: data.curves, phases: data.phases });
  const { title, date, glance, tables, sets, answers } = data;
  const head = html`<h1>${title}</h1>
<p class="under">${date}</p>
<dl class="glance">${glance.map(([value, words]) => html`<div><dt>${words}</dt><dd>${value}</dd></div>`)}</dl>`;
  const sections = [
    {
      id: 'scores',
      title: 'Scores',
      body: html`${tables.map(scoreTable)}${sets.length > 0 ? html`<h3>Sets of scenes</h3>\n${terms(sets)}` : undefined}`,
    },
    answers.length > 0 ? answerSection(data) : undefined,
    await lossSection(data),
    runSection(data),
  ].filter((section): section is Section => section !== undefined);
  return page(title, head, sections);
}

const terms = (all: readonly (readonly [string, string])[]) =>
  html`<dl class="facts">${all.map(([name, words]) => html`<dt>${name}</dt><dd>${words}</dd>`)}</dl>`;

function scoreTable({ title, head, rows }: ScoreTable): Markup {
  const columns = head.map((name, i) => (i === 0 ? { name } : { name, kind: 'number' as const }));
  return html`<h3>${title}</h3>\n${table(columns, rows)}`;
}

function answerSection({ rule, answers }: SeeingReport): Section {
  const shown = answers.map(({ about, image, places, prompt, right, answer, remark }) => {
    const drawn = picture(drawPlaces(image, places), `${about}: ${prompt}`);
    return html`<figure><figcaption>${about}</figcaption>${drawn}
<p class="small">“${prompt}”<br>right: <code>${right}</code><br>answer: <code>${answer}</code>${remark && html`<br>${remark}`}</p></figure>\n`;
  });
  return {
    id: 'answers',
    title: 'Answers',
    body: html`<p>${rule}</p>\n<div class="panels">${shown}</div>`,
  };
}

function runSection({ facts, phases }: SeeingReport): Section {
  const total = formatSeconds(phases.reduce((sum, { seconds }) => sum + seconds, 0));
  const rows = phases.map(({ name, seconds }) => ({ label: name, value: seconds, texts: [formatSeconds(seconds)] }));
  return {
    id: 'run',
    title: 'The run',
    body: html`${terms(facts)}
${barTable(['phase', 'time'], rows, `${total} in all`)}`,
  };
}
