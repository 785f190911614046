/** The pages of gradient flow and of interference: heat maps, with what to see in them in words. */
import { type FlowCell, type GradientFlow, type ZeroCause, zeroCauses } from '../inspect/gradient-flow.ts';
import type { EdgeSetting, Interference } from '../inspect/interference.ts';
import { type HeatCell, heatMap } from './heat-map.ts';
import { formatNumber, formatRatio, html, powerOfTen } from './markup.ts';
import { type Section, table } from './page.ts';

/** Powers of ten below the largest norm at which the colour ends. */
const DECADES = 4;

/** The marks of causes that all have to go: "T+I". */
export const zeroMark = (causes: readonly ZeroCause[]): string =>
  causes.map((cause) => zeroCauses[cause].mark).join('+');

const causesInWords = (causes: readonly ZeroCause[]) => causes.map((own) => zeroCauses[own].words).join(', and ');

/** The causes that occur, a line each: "T: cut by the table: with all gradient factors at 1 it is not 0". */
export function zeroLegend({ losses }: GradientFlow): string[] {
  const found = new Set(Object.values(losses).flatMap((cells) => cells.flatMap(({ causes }) => causes ?? [])));
  const listed = Object.entries(zeroCauses).filter(([cause]) => found.has(cause as ZeroCause));
  return listed.map(([, { mark, words, test }]) => `${mark}: ${words}: ${test}`);
}

/**
 * What the losses do not reach: a sentence for each loss and each group that it sends exactly 0 alone. It names the cause of most parts,
 * and then the parts with other causes.
 */
export function notReached({ parts, losses }: GradientFlow): string[] {
  const groups = [...new Set(parts.map(({ group }) => group))];
  return Object.entries(losses).flatMap(([loss, cells]) =>
    groups.flatMap((group) => {
      const own = parts.flatMap(({ group: of, name }, i) => (of === group ? [{ name, ...cells[i] }] : []));
      if (!own.every(({ isZero }) => isZero)) return [];
      const inWords = own.map(({ causes }) => causesInWords(causes ?? []));
      const namesOf = (words: string) => own.flatMap(({ name }, i) => (inWords[i] === words ? [name] : []));
      const sorted = [...new Set(inWords)].sort((a, b) => namesOf(b).length - namesOf(a).length);
      const words = sorted.map((causes, i) => (i === 0 ? causes : `${causes} of ${namesOf(causes).join(', ')}`));
      return [`The ${loss} loss sends ${group} a gradient of exactly 0: ${words.join('; ')}.`];
    }),
  );
}

export function flowSection(flow: GradientFlow): Section {
  const { parts, losses } = flow;
  const names = Object.keys(losses);
  const largest = Math.max(...Object.values(losses).flatMap((cells) => cells.map(({ norm }) => norm)));
  const cellOf = (loss: string, { norm, isZero, causes }: FlowCell, place: string): HeatCell =>
    isZero
      ? { text: `0 ${zeroMark(causes!)}`, strength: null, title: `${loss} on ${place}: 0, ${causesInWords(causes!)}` }
      : {
          text: formatNumber(norm),
          strength: Math.max(0.05, 1 + Math.log10(norm / largest) / DECADES),
          title: `${loss} on ${place}: norm ${formatNumber(norm)}`,
        };
  const rows = parts.map(({ group, name }, i) => ({
    ...{ group, name },
    cells: names.map((loss) => cellOf(loss, losses[loss][i], `${group}, ${name}`)),
  }));
  return {
    id: 'gradients',
    title: 'Gradient flow',
    body: html`<p>The gradient of each loss by itself, before its weight, on each part of the model: its L2 norm, in units of the loss for one unit of the weights. The colour is stronger for larger norms, by powers of ten down to ${powerOfTen(-DECADES)} of the largest. Hatched cells are exactly 0 in every element, with the letter of the cause.</p>
${notReached(flow).map((line) => html`<p>${line}</p>`)}
${heatMap({ id: 'flow', label: 'Gradient norms: rows are parts of the model, columns losses', columns: names, rows })}
<ul class="key">${zeroLegend(flow).map((line) => html`<li>${line}</li>`)}</ul>`,
  };
}

/** The edges of a setting in words. */
export function settingWords({ factor, isOwn }: EdgeSetting): string {
  if (factor === null) return 'as it is';
  const words = factor === 1 ? 'open' : factor === 0 ? 'cut' : `x ${factor}`;
  return isOwn ? `${words} (own)` : words;
}

/** The numbers of the parts that both losses of a pair reach under some setting. */
export function sharedParts({ parts, settings }: Interference, pair: number): number[] {
  const isShared = (part: number) => settings.some(({ pairs }) => pairs[pair][part].cosine !== null);
  return [...parts.keys()].filter(isShared);
}

export function interferenceSections(result: Interference): Section[] {
  const { parts, pairs, settings } = result;
  return pairs.map(([a, b], pair) => {
    const cellOf = (setting: EdgeSetting, part: number): HeatCell => {
      const { cosine, ratio } = setting.pairs[pair][part];
      const place = `${parts[part].group}, ${parts[part].name}, edges ${settingWords(setting)}`;
      return cosine === null
        ? { text: '-', strength: null, title: `${place}: the gradient of one of the losses is exactly 0` }
        : {
            text: cosine.toFixed(2),
            strength: Math.sign(cosine) * Math.sqrt(Math.abs(cosine)),
            title: `${place}: cosine ${cosine.toFixed(3)}, norm of ${a} ${formatNumber(ratio!)} times that of ${b}`,
          };
    };
    const shared = sharedParts(result, pair);
    const own = shared.map((part) => ({ ...parts[part], place: `${parts[part].group}, ${parts[part].name}` }));
    const ratios = shared.map((part, i) => [
      own[i].place,
      ...settings.map(({ pairs }) => {
        const { ratio } = pairs[pair][part];
        return ratio === null ? '-' : formatRatio(ratio);
      }),
    ]);
    const columns = settings.map(settingWords);
    return {
      id: `interference-${pair + 1}`,
      title: `Interference of ${a} and ${b}`,
      body:
        shared.length === 0
          ? html`<p>No part of the model gets a gradient of both losses, with edges of any kind; the gradient flow says why.</p>`
          : html`<p>The cosine between the gradients of both losses: near 1 (blue) they pull the weights the same way, near 0 they leave each other alone, below 0 (orange) a step for the one undoes the other. Edges are those that the table stops or scales, and those between experts: open, with a factor on the gradient that passes, and cut. Hatched: one of both gradients is exactly 0.</p>
${heatMap({
  ...{
    id: `pair${pair + 1}`,
    columns,
    label: `Cosines of ${a} and ${b}: rows are parts of the model, columns settings of the edges`,
  },
  rows: own.map(({ group, name }, i) => ({
    group,
    name,
    cells: settings.map((setting) => cellOf(setting, shared[i])),
  })),
})}
${table(
  [{ name: 'part' }, ...columns.map((name) => ({ name, kind: 'number' as const }))],
  ratios,
  `The norm of the ${a} gradient by that of the ${b} gradient`,
)}`,
    };
  });
}
