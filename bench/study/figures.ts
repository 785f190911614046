/** The figures of the page: differences of all claims in their margins, and errors over the course of training. */
import { html, type Markup } from '../../model/report/markup.ts';
import { lineColour, lineEntry } from '../../model/report/page.ts';
import { colour, type Layer, plot, quantitative, textLayer, verticalTitle } from '../../model/report/plot.ts';
import type { Claim } from './claims/claim.ts';
import type { Conclusion, Outcome } from './conclusion.ts';
import type { TrainedRun } from './saved.ts';
import { LEAST_SEEDS } from './statistics.ts';

/** Multiples of the margin up to which differences are drawn; those beyond lie at the edge. */
const MOST = 20;
/** A part of a claim has the colour of what became of it. */
const states = {
  claimed: { colour: 'line3', meaning: 'as the claim says' },
  against: { colour: 'line2', meaning: 'opposite, or not alike' },
  none: { colour: 'line4', meaning: 'no difference as large as the margin' },
  open: { colour: 'muted', meaning: 'not decided, or not testable' },
} as const;

function stateOf({ verdict }: Outcome): keyof typeof states {
  if (verdict === 'reproduced' || verdict === 'small') return 'claimed';
  if (verdict === 'none') return 'none';
  return verdict === 'undecided' || verdict === 'extreme' ? 'open' : 'against';
}

/** A difference that the claim names is taken from it. */
const labelOf = ({ number }: Claim, { test: { part, less } }: Outcome) =>
  `${number}  ${part}${less === undefined ? '' : ` (over +${100 * less} %)`}`;

/** The intervals of the parts that decide, in their margins; null before the first has its seeds. */
export async function differencesOf(conclusions: readonly Conclusion[]): Promise<Markup | null> {
  const drawn = conclusions.flatMap(({ claim, parts }) =>
    parts
      .filter(({ seeds }) => seeds.length >= LEAST_SEEDS)
      .map((outcome) => ({ outcome, label: labelOf(claim, outcome) })),
  );
  if (drawn.length === 0) return null;
  const row = 17;
  const size = { width: 420, height: drawn.length * row, margins: { left: 190, right: 12, top: 6, bottom: 40 } };
  const ticks = [-10, -3, -1, 0, 1, 3, 10];
  const scale = { type: 'symlog', constant: 1, domain: [-MOST, MOST], clamp: true };
  const x = quantitative('x', scale, {
    ...{ values: ticks, grid: false, domain: false },
    title: 'difference in its margin, logarithmic from 1 on',
  });
  const place = (i: number) => ({ value: (i + 0.5) * row });
  const band = { values: [{ x: -1, end: 1 }] };
  const layers: Layer[] = [
    { data: band, mark: { type: 'rect', color: colour('band') }, encoding: { x, x2: { field: 'end' } } },
    { data: { values: [{ x: 0 }] }, mark: { type: 'rule', color: colour('rule') }, encoding: { x } },
  ];
  for (const [i, { outcome, label }] of drawn.entries()) {
    const { test, interval } = outcome;
    const sign = test.says === 'lower' ? -1 : 1;
    const [low, mean, high] = [interval!.low, interval!.mean, interval!.high].map((own) => (sign * own) / test.margin);
    const color = colour(states[stateOf(outcome)].colour);
    const data = { values: [{ x: low, end: high, mean }] };
    layers.push(
      {
        ...{ data, mark: { type: 'rule', color, strokeWidth: 2 } },
        encoding: { x, x2: { field: 'end' }, y: place(i) },
      },
      {
        ...{ data, mark: { type: 'point', filled: true, color, size: 34, opacity: 1 } },
        encoding: { x: { ...x, field: 'mean' }, y: place(i) },
      },
      textLayer(label, { color: colour('ink'), fontSize: 11 }, { value: 8 - size.margins.left }, place(i)),
    );
  }
  const items = Object.values(states).map(({ colour: name, meaning }) => lineEntry(name, meaning));
  return html`<figure><figcaption>Parts of claims with their seeds: 95 % intervals, in the margin of each</figcaption>
<p class="small">To the right is what the claim says. Where it says that two are alike, they are if the interval lies in the band, and right is the first.</p>
<ul class="key inline">${items}</ul>${await plot('Differences of all claims in their margins', size, layers)}</figure>`;
}

const armNames = (runs: readonly TrainedRun[]) => [...new Set(runs.map(({ arm }) => arm))];
/** Six colours; arms beyond them are dashed. */
const DASHES = [[], [5, 4], [1, 3]];
const lineOf = (names: readonly string[], arm: string) => {
  const place = names.indexOf(arm);
  return { name: lineColour(place), dash: DASHES[Math.floor(place / 6) % DASHES.length] };
};

export function coursesKey(runs: readonly TrainedRun[]): Markup {
  const names = armNames(runs);
  const items = names.map((arm) => {
    const { name, dash } = lineOf(names, arm);
    return lineEntry(name, arm, dash);
  });
  return html`<ul class="key inline">${items}</ul>`;
}

/** A line for each run: the error of sampled chunks in that of the best constant one, which is dotted. */
export function courses(runs: readonly TrainedRun[]): Promise<Markup> {
  const size = { width: 400, height: 240, margins: { left: 44, right: 12, top: 28, bottom: 40 } };
  const names = armNames(runs);
  const x = quantitative('x', { nice: false, zero: true }, { tickCount: 4, grid: false, title: 'training step' });
  const y = quantitative(
    'y',
    { zero: true },
    { tickCount: 4, domain: false, ticks: false, ...verticalTitle('error', size.margins.left) },
  );
  const layers = runs.map(({ arm, acting }): Layer => {
    const { name, dash } = lineOf(names, arm);
    const values = acting!.map((row) => ({ x: row.step, y: row.oneSample / row.bestConstant }));
    return {
      data: { values },
      mark: { type: 'line', color: colour(name), strokeWidth: 1.4, strokeDash: dash },
      encoding: { x, y },
    };
  });
  const rule = { type: 'rule', color: colour('muted'), strokeDash: [1, 3] };
  layers.push({ data: { values: [{ y: 1 }] }, mark: rule, encoding: { y } });
  return plot('Action error over steps', size, layers);
}
