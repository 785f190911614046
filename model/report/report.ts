import { actingSection, closedLoopSection, latencySection, openLoopSection } from './acting-sections.ts';
import { episodesSection } from './episodes.ts';
import { gradientSection } from './flow-figure.ts';
import { keptSection } from './kept-section.ts';
import { html } from './markup.ts';
import { page, type Section } from './page.ts';
import { type ReportData, refuseNonFinite } from './report-data.ts';
import { attentionSection, chunkSection, glance, lossSection, runSection } from './sections.ts';
import { swappedSection } from './swapped-section.ts';

export type * from './report-data.ts';

/**
 * The report of a training run as one HTML file: no script, no request, readable on a screen, a phone and paper. The
 * same data give the same bytes.
 *
 * @throws InputError if a number is not finite: a run that diverged has no report
 */
export async function renderReport(data: ReportData): Promise<string> {
  refuseNonFinite(data);
  const { gradients, attention, openLoop, closedLoop, films = [], acting, swapped, kept, latency, notes } = data;
  const sections = [
    notes.length > 0
      ? { id: 'notes', title: 'Notes', body: html`<ul>${notes.map((note) => html`<li>${note}</li>`)}</ul>` }
      : undefined,
    await lossSection(data),
    gradients && gradients.norms.length > 0 ? gradientSection(gradients, data.objectives) : undefined,
    attention && attention.blocks.length > 0 ? attentionSection(attention) : undefined,
    await chunkSection(data),
    openLoop ? openLoopSection(openLoop) : undefined,
    closedLoop ? await closedLoopSection(closedLoop) : undefined,
    episodesSection(films),
    acting && (await actingSection(acting)),
    swapped && swappedSection(swapped, data.objectives),
    kept && keptSection(kept),
    latency && latency.length > 0 ? latencySection(latency) : undefined,
    runSection(data),
  ].filter((section): section is Section => section !== undefined);
  const head = html`<h1>${data.title}</h1>
<p class="under">${data.system} on ${data.data.name}, preset ${data.preset}. ${data.date}</p>
${glance(data)}`;
  return page(data.title, head, sections);
}

/** Writes the report (node only). @throws InputError if a number is not finite or the file cannot be written */
export async function writeReport(path: string, data: ReportData): Promise<void> {
  const text = await renderReport(data);
  const { writeFileSafely } = await import('../../engine/files/files.ts');
  await writeFileSafely(path, [text]);
}
