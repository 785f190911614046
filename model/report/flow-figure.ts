/** Gradients as heat maps: their flow with its causes, the interference of losses, and norms over a training run. */
import { type GradientFlow, type ZeroCause, zeroCauses } from '../inspect/gradient-flow.ts';
import type { EdgeSetting, Interference } from '../inspect/interference.ts';
import type { ModelPart } from '../inspect/loss-gradients.ts';
import { type HeatCell, heatMap } from './heat-map.ts';
import type { Finding } from './inspect-page.ts';
import { formatNumber, formatRatio, html, powerOfTen } from './markup.ts';
import type { Section } from './page.ts';
import type { Gradients, ReportData } from './report-data.ts';

/** Powers of ten below the largest norm at which the colour ends. */
const DECADES = 4;
const normColours = `The colour is stronger for larger norms, by powers of ten down to ${powerOfTen(-DECADES)} of the largest.`;

/** A norm; that of a gradient which is exactly 0 is hatched, with the mark of its cause. */
function normCell(
  norm: number,
  largest: number,
  place: string,
  zero: { mark?: string; words: string } | null,
): HeatCell {
  return zero
    ? { text: `0 ${zero.mark ?? ''}`.trim(), strength: null, title: `${place}: 0, ${zero.words}` }
    : {
        text: formatNumber(norm),
        strength: Math.max(0.05, 1 + Math.log10(norm / largest) / DECADES),
        title: `${place}: norm ${formatNumber(norm)}`,
      };
}

const causesInWords = (causes: readonly ZeroCause[]) => causes.map((own) => zeroCauses[own].words).join(', and ');

/** The causes that occur, a line each: "T: cut by the table: with all gradient factors at 1 it is not 0". */
function zeroLegend({ losses }: GradientFlow): string[] {
  const found = new Set(Object.values(losses).flatMap((cells) => cells.flatMap(({ causes }) => causes ?? [])));
  const listed = Object.entries(zeroCauses).filter(([cause]) => found.has(cause as ZeroCause));
  const isJoined = Object.values(losses).some((cells) => cells.some(({ causes }) => causes && causes.length > 1));
  const joined = 'letters with + between them: only with all of these changed is it not 0';
  return [...listed.map(([, { mark, words, test }]) => `${mark}: ${words}: ${test}`), ...(isJoined ? [joined] : [])];
}

/**
 * What the losses do not reach: a sentence for each loss and each group that it sends exactly 0 alone. It names the cause of most parts,
 * and then the parts with other causes.
 */
function notReached({ parts, losses }: GradientFlow): string[] {
  const groups = [...new Set(parts.map(({ group }) => group))];
  return Object.entries(losses).flatMap(([loss, cells]) =>
    groups.flatMap((group) => {
      const own = parts.flatMap(({ group: of, name }, i) => (of === group ? [{ name, ...cells[i] }] : []));
      if (!own.every(({ isZero }) => isZero)) return [];
      const inWords = own.map(({ causes }) => causesInWords(causes ?? []));
      const namesOf = (words: string) => own.flatMap(({ name }, i) => (inWords[i] === words ? [name] : []));
      const sorted = [...new Set(inWords)].sort((a, b) => namesOf(b).length - namesOf(a).length);
      const words = sorted.map((causes, i) => (i === 0 ? causes : `${namesOf(causes).join(', ')}: ${causes}`));
      const [most, ...rest] = words;
      return [zeroWords(loss, group, rest.length > 0 ? `${most} (${rest.join('; ')})` : most)];
    }),
  );
}

const zeroWords = (loss: string, group: string, causes: string) =>
  `The ${loss} loss sends ${group} a gradient of exactly 0: ${causes}.`;

const isPartly = ({ elements, frozen }: Pick<ModelPart, 'elements' | 'frozen'>) => elements > 0 && frozen > 0;

/** A row for each part, and a column for each loss. */
export function flowFinding(flow: GradientFlow): Finding {
  const { parts, losses } = flow;
  const names = Object.keys(losses);
  const largest = Math.max(...Object.values(losses).flatMap((cells) => cells.map(({ norm }) => norm)));
  return {
    id: 'gradients',
    title: 'Gradient flow',
    label: 'Gradient norms: rows are parts of the model, columns losses',
    about:
      'The L2 norm of the gradient of each loss by itself, before its weight, in units of the loss for one unit of the weights; 0 with letters: every element is exactly 0, and why.',
    colours: normColours,
    columns: ['elements', ...names],
    rows: parts.map(({ group, name, elements, frozen }, i) => {
      const place = `${group}, ${name}`;
      const all = formatNumber(elements + frozen);
      const text = isPartly({ elements, frozen }) ? `${formatNumber(elements)} of ${all}` : all;
      const size = { text, strength: 0, title: `${place}: elements` };
      const cells = names.map((loss) => {
        const { norm, isZero, causes } = losses[loss][i];
        const mark = causes?.map((own) => zeroCauses[own].mark).join('+');
        const zero = isZero ? { mark, words: causesInWords(causes ?? []) } : null;
        return normCell(norm, largest, `${loss} on ${place}`, zero);
      });
      return { group, name, cells: [size, ...cells] };
    }),
    notes: [
      ...(parts.some(isPartly) ? ['n of m elements: the others are frozen, as those beside low-rank matrices'] : []),
      ...zeroLegend(flow),
      ...notReached(flow),
    ],
  };
}

/** The edges of a setting in words. */
function settingWords({ factor, isOwn }: EdgeSetting): string {
  if (factor === null) return 'as it is';
  const words = factor === 1 ? 'open' : factor === 0 ? 'cut' : `x ${factor}`;
  return isOwn ? `${words} (own)` : words;
}

/** For each pair of losses the cosines, and the ratios of norms, in the parts that both reach under some setting of the edges. */
export function interferenceFindings({ parts, pairs, settings }: Interference): Finding[] {
  const columns = settings.map(settingWords);
  return pairs.flatMap(([a, b], pair) => {
    const shared = parts
      .map((part, i) => ({ ...part, measured: settings.map((setting) => setting.pairs[pair][i]) }))
      .filter(({ measured }) => measured.some(({ cosine }) => cosine !== null));
    const rowsOf = (cellOf: (cosine: number, ratio: number) => Omit<HeatCell, 'title'>) =>
      shared.map(({ group, name, measured }) => ({
        ...{ group, name },
        cells: measured.map(({ cosine, ratio }, i): HeatCell => {
          const place = `${group}, ${name}, edges ${columns[i]}`;
          if (cosine === null || ratio === null)
            return { text: '-', strength: null, title: `${place}: the gradient of one of the losses is exactly 0` };
          const words = `cosine ${cosine.toFixed(3)}, norm of ${a} ${formatNumber(ratio)} times that of ${b}`;
          return { ...cellOf(cosine, ratio), title: `${place}: ${words}` };
        }),
      }));
    const label = `${a} and ${b}: rows are parts of the model, columns settings of the edges`;
    const cosines: Finding = {
      id: `interference-${pair + 1}`,
      title: `Interference of ${a} and ${b}`,
      label: `Cosines of ${label}`,
      about: `The cosine between the gradients of ${a} and ${b}: near 1 they pull the weights the same way, near 0 they leave each other alone, below 0 a step for the one undoes the other. Edges that the table stops or scales, and those between experts, are open, scaled or cut; (own): as they are; -: one of both gradients is exactly 0.`,
      colours: 'Blue is above 0, orange below.',
      columns,
      rows: rowsOf((cosine) => ({
        text: cosine.toFixed(3),
        strength: Math.sign(cosine) * Math.sqrt(Math.abs(cosine)),
      })),
      notes: [
        ...(shared.length === 0
          ? [
              'No part of the model gets a gradient of both, with edges of any kind; --gradients says why (gates that begin at 0 pass none: --gates 1 opens them).',
            ]
          : []),
        ...(settings.length === 1
          ? ['The table has no edge that it stops or scales, and none between experts, to open or cut.']
          : []),
      ],
    };
    const ratios: Finding = {
      id: `norms-${pair + 1}`,
      title: `Norms of ${a} and ${b}`,
      label: `Norms of ${label}`,
      about: `The norm of the ${a} gradient by that of the ${b} gradient.`,
      colours: `Blue: that of ${a} is larger; orange: that of ${b}; the strongest colour is a factor of 100.`,
      columns,
      rows: rowsOf((_, ratio) => ({ text: formatRatio(ratio), strength: Math.log10(ratio) / 2 })),
      notes: [],
    };
    return shared.length === 0 ? [cosines] : [cosines, ratios];
  });
}

/** Steps that a map of a training run shows at most. */
const COLUMNS = 8;

/** Norms of each loss on each group over a training run. A gradient that should be 0 at every step and is not is marked. */
export function gradientSection(
  { norms, expectedZero = [] }: Gradients,
  objectives: ReportData['objectives'],
): Section {
  const measured = [...new Set(norms.map(({ step }) => step))].sort((a, b) => a - b);
  const count = Math.min(COLUMNS, measured.length);
  const steps = Array.from({ length: count }, (_, i) => {
    return measured[Math.round((i * (measured.length - 1)) / Math.max(1, count - 1))];
  });
  const groups = [...new Set(norms.map(({ group }) => group))];
  const largest = Math.max(...norms.map(({ norm }) => norm));
  const normsOf = (group: string, loss: string) => norms.filter((own) => own.group === group && own.loss === loss);
  const rows = groups.flatMap((group) =>
    objectives.flatMap(({ name: loss, title }) => {
      const own = normsOf(group, loss);
      const { reason = 'in every element' } =
        expectedZero.find((zero) => zero.group === group && zero.loss === loss) ?? {};
      const cells = steps.map((step): HeatCell => {
        const place = `${title} on ${group} at step ${formatNumber(step)}`;
        const norm = own.find((one) => one.step === step)?.norm;
        if (norm === undefined) return { text: '', strength: 0, title: `${place}: not measured` };
        return normCell(norm, largest, place, norm === 0 ? { words: reason } : null);
      });
      return own.length > 0 ? [{ group, name: title, cells }] : [];
    }),
  );
  const lines = expectedZero.flatMap(({ loss, group, reason }) => {
    const own = normsOf(group, loss).map(({ norm }) => norm);
    if (own.length === 0) return [];
    const most = Math.max(...own);
    return most === 0
      ? html`<p>${zeroWords(loss, group, reason)}</p>\n`
      : html`<p class="alarm">The ${loss} loss sends ${group} a gradient of up to ${formatNumber(most)}, which should be 0: ${reason}.</p>\n`;
  });
  return {
    id: 'gradients',
    title: 'Gradient norms',
    body: html`<p>L2 norm of each loss's gradient on each parameter group, taken apart, over the training steps. ${normColours} A hatched 0 is zero to the last bit, not small.</p>
${heatMap({ id: 'gradients', label: 'Gradient norms: rows are losses by parameter group, columns training steps', columns: steps.map((step) => `step ${formatNumber(step)}`), rows })}
${lines}`,
  };
}
