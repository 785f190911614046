/** The page of swaps: how far predicted chunks move with the pictures or the words of another example. */
import type { Image } from '../data/dataset.ts';
import { type MovedExample, type Moves, meanMoves } from '../inspect/swapped.ts';
import { formatNumber, html } from './markup.ts';
import { barTable, type Section } from './page.ts';
import { picture } from './sections.ts';
import { swappedParts } from './swapped-section.ts';

/** The moves by their names, in words. */
export const moveWords: readonly (readonly [name: keyof Moves, words: string])[] = [
  ['noise', 'nothing but the noise is another'],
  ...swappedParts,
  ['demonstrated', 'between demonstrated chunks of both'],
];

/** An example, and the first camera's pictures of it and of the one that it is swapped with. */
export interface ShownMove extends MovedExample {
  readonly pictures: readonly (Image | null)[];
}

export function movesSection(moved: readonly MovedExample[], shown: readonly ShownMove[]): Section {
  const rowsOf = (moves: Moves, inFull: boolean) =>
    moveWords.flatMap(([name, words]) => {
      const value = moves[name];
      return value === null ? [] : [{ label: inFull ? words : name, value, texts: [formatNumber(value)] }];
    });
  const panels = shown.map(({ moves, sample, others, pictures }) => {
    const seen = pictures.flatMap((own, i) => {
      const words = i === 0 ? 'own picture' : 'the other one';
      return own ? [html`<div>${picture(own, words)}<p>${words}</p></div>`] : [];
    });
    return html`<figure class="sample"><div class="strip">${seen}</div>
<p class="small">own: “${sample.instruction ?? 'no instruction'}”${others.words ? html`<br>other: “${others.words.instruction ?? 'no instruction'}”` : undefined}</p>
${barTable(['with other', 'distance'], rowsOf(moves, false))}</figure>\n`;
  });
  return {
    id: 'moves',
    title: 'How far the actions move',
    body: html`<p>Root mean square distances of predicted chunks from those with the example's own pictures and words and the same noise, over ${formatNumber(moved.length)} held-out steps, in units of normalised actions. A distance of 0 means that the actions do not depend on what was swapped; one far below that of other noise is lost in what the policy leaves to chance. The distance between the demonstrated chunks says how far the actions of two scenes really lie apart.</p>
${barTable(['with', 'distance'], rowsOf(meanMoves(moved), true))}
${panels.length > 0 ? html`<h3>Examples</h3>\n<div class="panels">${panels}</div>` : undefined}`,
  };
}
