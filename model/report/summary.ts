import { formatNumber, formatPercent, formatSeconds, html, type Markup } from './markup.ts';
import { barTable, type Section } from './page.ts';
import { rates, times } from './policy-sections.ts';
import type { ReportData } from './report-data.ts';
import { losses } from './training-sections.ts';
import { wilsonInterval } from './wilson.ts';

/** The results in a few large figures. */
export function glance(data: ReportData): Markup {
  const entries: [string, string][] = [];
  for (const { title, heldOut, baseline, than } of losses(data)) {
    const last = heldOut.at(-1);
    if (!last) continue;
    entries.push(
      baseline
        ? [times(last.y, baseline.value), `held-out ${title.toLowerCase()}, relative to ${than}`]
        : [formatNumber(last.y), `held-out ${title.toLowerCase()}`],
    );
  }
  const { openLoop, closedLoop } = data;
  if (openLoop) {
    const ratio = times(openLoop.meanOfEight, openLoop.bestConstant);
    entries.push([ratio, 'open-loop error of the mean of 8 samples, relative to the best constant chunk']);
  }
  if (closedLoop && closedLoop.episodes.length > 0) {
    const { count, of } = rates(closedLoop)[0];
    const { low, high } = wilsonInterval(count, of);
    const interval = `${formatPercent(low)} to ${formatPercent(high)}`;
    entries.push([`${count} of ${of}`, `closed-loop episodes succeeded (95 % interval ${interval})`]);
  }
  const total = data.phases.reduce((sum, { seconds }) => sum + seconds, 0);
  if (total > 0) entries.push([formatSeconds(total), 'from start to report']);
  return html`<dl class="glance">${entries.map(([value, words]) => html`<div><dt>${words}</dt><dd>${value}</dd></div>`)}</dl>`;
}

export function runSection(data: ReportData): Section {
  const { name, episodes, heldOut, rate, horizon, missing } = data.data;
  const chunk = `${horizon} steps at ${formatNumber(rate)} Hz, ${formatNumber(horizon / rate)} s`;
  const facts: [string, string | Markup][] = [
    ['Command', html`<code>${data.command}</code>`],
    ['System', `${data.system}, preset ${data.preset}, seed ${data.seed}`],
    ['Adapter', data.adapter],
    ['Data', `${name}, ${formatNumber(episodes)} ${episodes === 1 ? 'episode' : 'episodes'}`],
    ['Held out', heldOut],
    ['Chunk', chunk],
  ];
  if (missing.length > 0) facts.push(['Missing', missing.join(', ')]);
  const count = data.parameters.reduce((sum, group) => sum + group.count, 0);
  const total = data.phases.reduce((sum, { seconds }) => sum + seconds, 0);
  const parameters = data.parameters.map((group) => ({
    label: group.group,
    value: group.count,
    texts: [formatNumber(group.count)],
  }));
  const phases = data.phases.map((phase) => ({
    label: phase.name,
    value: phase.seconds,
    texts: [formatSeconds(phase.seconds)],
  }));
  return {
    id: 'run',
    title: 'The run',
    body: html`<dl class="facts">${facts.map(([term, value]) => html`<dt>${term}</dt><dd>${value}</dd>`)}</dl>
<div class="columns">
${parameters.length > 0 ? barTable(['parameter group', 'parameters'], parameters, `${formatNumber(count)} parameters`) : undefined}
${phases.length > 0 ? barTable(['phase', 'time'], phases, `${formatSeconds(total)} in all`) : undefined}
</div>`,
  };
}
