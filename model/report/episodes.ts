/** Episodes of a policy that acted, as film strips on a page and in files. */
import { encodePng } from '../data/index.ts';
import { contactStrip, drawStrip, type FilmedEpisode, marks } from './film-strip.ts';
import { formatNumber, html, type Markup } from './markup.ts';
import { page, type Section } from './page.ts';
import { capitalised, picture } from './sections.ts';

function episode(film: FilmedEpisode): Markup {
  const { about, instruction, success, outcome, steps, frames } = film;
  const pictures = drawStrip(film);
  const outcomeOf = success
    ? html`<b>${capitalised(outcome)}.</b>`
    : html`<b class="alarm">${capitalised(outcome)}.</b>`;
  const shown = pictures.map((image, i) => {
    const frame = frames[i];
    const words = frame ? `Call ${i + 1}, step ${frame.step}: ${frame.gripper}` : `After step ${steps}`;
    const said = frame?.said?.words && html`<p class="small said">“${frame.said.words}”</p>`;
    return html`<figure>${picture(image, `${instruction}: ${words}`)}${said}<p class="small">${words}</p></figure>\n`;
  });
  return html`<div class="sample"><p>“${instruction}” ${outcomeOf}${about && ` (${about})`}</p><div class="strip">${shown}</div></div>\n`;
}

export function episodesSection(films: readonly FilmedEpisode[]): Section | undefined {
  if (films.length === 0) return undefined;
  const key = (name: keyof typeof marks, words: string) =>
    html`<li><svg class="swatch" aria-hidden="true" viewBox="0 0 22 8"><path d="M0,4H22" stroke="#141414" stroke-width="6"/><path d="M0,4H22" stroke="rgb(${marks[name].colour.join(',')})" stroke-width="3"/></svg> ${words}</li>`;
  const said = films.flatMap(({ frames }) => frames.flatMap((frame) => frame.said ?? []));
  const pointed = said.some(({ places }) => places.length > 0);
  const succeeded = films.filter(({ success }) => success).length;
  return {
    id: 'episodes',
    title: 'Episodes',
    body: html`<p>The first episodes of each kind: ${formatNumber(succeeded)} that succeeded, ${formatNumber(films.length - succeeded)} that failed. A picture for each call of the policy${said.length > 0 ? ', with what it had said' : ''}, and at the end the whole path of the gripper. x is to the right, y away from the camera, z up.</p>
<ul class="key inline">${pointed ? key('said', 'the place that the policy pointed to') : undefined}${key('predicted', 'the path of the gripper that it predicted')}${key('went', 'the path that the gripper took until the next call')}</ul>
${films.map(episode)}`,
  };
}

/**
 * Writes a PNG strip for each episode and, with a title, a page that shows all of them with their words. Node only.
 *
 * @throws InputError if a file cannot be written
 */
export async function writeEpisodes(folder: string, films: readonly FilmedEpisode[], title?: string): Promise<void> {
  if (films.length === 0) return;
  const { ensureFolder, writeFileSafely } = await import('../../engine/files/files.ts');
  const { readdir, rm } = await import('node:fs/promises');
  await ensureFolder(folder);
  // The strips of a run that this one replaces.
  for (const name of await readdir(folder)) if (/^\d{2,}-.*\.png$/.test(name)) await rm(`${folder}/${name}`);
  for (const [i, film] of films.entries()) {
    const words = `${film.about ?? ''} ${film.success ? 'success' : 'failure'} ${film.outcome}`;
    const name = `${String(i + 1).padStart(2, '0')} ${words}`.toLowerCase().replace(/[^a-z0-9]+/g, '-');
    await writeFileSafely(`${folder}/${name}.png`, [encodePng(contactStrip(drawStrip(film)))]);
  }
  if (title === undefined) return;
  await writeFileSafely(`${folder}/index.html`, [page(title, html`<h1>${title}</h1>`, [episodesSection(films)!])]);
}
