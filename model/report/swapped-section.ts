import type { ObjectiveDescription } from '../architecture/objectives/index.ts';
import { openLoopDescription, type SwappedLosses } from '../inspect/swapped.ts';
import { formatNumber, html } from './markup.ts';
import { type Section, table } from './page.ts';

/** The rows of a swapped test, by what was taken from another example; `null` was not to be had. */
export const swappedParts = [
  ['pictures', "another example's pictures"],
  ['words', "another example's instruction"],
] as const;

/** A loss as a multiple of that with the example's own: "1.614 ×". */
export const swappedText = (ratio: number) => `${ratio.toFixed(3)} ×`;

export function swappedSection(
  swapped: SwappedLosses,
  objectives: readonly ObjectiveDescription[],
): Section | undefined {
  const rows = swappedParts.flatMap(([name, words]) => {
    const ratios = swapped[name];
    return ratios ? [{ words, ratios }] : [];
  });
  if (rows.length === 0) return undefined;
  const columns = [...objectives, openLoopDescription].filter(({ name }) =>
    rows.some(({ ratios }) => ratios[name] !== undefined),
  );
  return {
    id: 'swapped',
    title: 'Swapped pictures and words',
    body: html`<p>Losses and the error of predicted chunks over ${formatNumber(swapped.examples)} held-out steps when every example gets something of another, as multiples of those with its own. What stays at 1 does not depend on it.</p>
${table(
  [{ name: 'with' }, ...columns.map(({ title }) => ({ name: title, kind: 'number' as const }))],
  rows.map(({ words, ratios }) => [
    words,
    ...columns.map(({ name }) => (ratios[name] === undefined ? '' : swappedText(ratios[name]))),
  ]),
)}`,
  };
}
