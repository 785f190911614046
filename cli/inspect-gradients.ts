/** `insula inspect --gradients` and `--interference` as lines, JSON and pages. */
import { aligned, digits } from '../bench/measure/table.ts';
import { InputError } from '../engine/index.ts';
import { type FlowCell, type GradientFlow, gradientFlow } from '../model/inspect/gradient-flow.ts';
import { type Interference, interference as measureInterference } from '../model/inspect/interference.ts';
import {
  flowSection,
  interferenceSections,
  notReached,
  settingWords,
  sharedParts,
  zeroLegend,
  zeroMark,
} from '../model/report/flow-figure.ts';
import type { Measurement } from './measurement.ts';
import { decimal } from './options.ts';

export const gradients = {
  help: 'the norm of the gradient that each loss sends to each layer of each group of parameters, and why it is exactly 0 where it is',
  async measure({ model, inputs }) {
    const flow = await gradientFlow(model, inputs);
    return { json: { ...flow }, lines: flowLines(flow), sections: () => [flowSection(flow)] };
  },
} satisfies Measurement;

export const interference = {
  help: "cosine and norm ratio between the losses' gradients in each layer: with the edges as they are, open, scaled and cut",
  options: {
    scale: decimal('the factor of the gradient on scaled edges; 0.3 by default', {
      ...{ above: 0, below: 1 },
      needs: 'interference',
    }),
  },
  async measure({ model, inputs, system }, { scale = 0.3 }) {
    if (model.objectives.length === 1)
      throw new InputError(
        `--interference: ${system} has one loss, ${model.objectives[0].name}; choose another --system`,
      );
    const result = await measureInterference(model, inputs, { factors: [1, scale as number, 0] });
    return { json: { ...result }, lines: interferenceLines(result), sections: () => interferenceSections(result) };
  },
} satisfies Measurement;

/** A row for each part, a column for each loss; a gradient of exactly 0 has the letters of its causes. */
function flowLines(flow: GradientFlow): string[] {
  const { parts, losses } = flow;
  const names = Object.keys(losses);
  const text = ({ norm, isZero, causes }: FlowCell) => (isZero ? `0 ${zeroMark(causes!)}` : digits(norm));
  const rows = parts.map(({ group, name, elements, frozen }, i) => [
    ...[group, name, String(elements + frozen)],
    ...names.map((loss) => text(losses[loss][i])),
  ]);
  return [
    'the L2 norm of the gradient of each loss by itself, before its weight; 0 with letters: every element is exactly 0',
    ...aligned([['group', 'part', 'elements', ...names], ...rows], 2),
    ...zeroLegend(flow).map((line) => `  ${line}`),
    ...notReached(flow),
  ];
}

/** For each pair of losses the parts that both reach under some setting: cosines, then ratios of norms. */
function interferenceLines(result: Interference): string[] {
  const { parts, pairs, settings } = result;
  return pairs.flatMap(([a, b], pair) => {
    const shared = sharedParts(result, pair);
    const row = (part: number) => {
      const cells = settings.map((setting) => setting.pairs[pair][part]);
      const cosines = cells.map(({ cosine }) => cosine?.toFixed(3) ?? '-');
      return [
        parts[part].group,
        parts[part].name,
        ...cosines,
        ...cells.map(({ ratio }) => (ratio === null ? '-' : digits(ratio))),
      ];
    };
    const head = (what: string) => settings.map((setting) => `${what} ${settingWords(setting)}`);
    return [
      `${a} and ${b}: the cosine of their gradients, and the norm of the first by that of the second; -: one of them is exactly 0; (own): the edges as they are`,
      ...(shared.length === 0
        ? ['  no part gets a gradient of both; --gradients says why']
        : aligned([['group', 'part', ...head('cosine'), ...head('norms')], ...shared.map(row)], 2)),
      ...(settings.length === 1
        ? ['  the table has no edge that it stops or scales, and none between experts, to open or cut']
        : []),
    ];
  });
}
