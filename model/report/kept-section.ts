import type { KeptAnswers } from '../inspect/answers.ts';
import { formatNumber, formatPercent, html } from './markup.ts';
import { type Section, table } from './page.ts';

/** A row for each kind of question, with the share of right answers before and after training. */
export const keptShares = ({ before, after }: KeptAnswers): [question: string, before: string, after: string][] => {
  const share = (own: number | null) => (own === null ? 'none asked' : formatPercent(own));
  return [
    ['places of objects within 4 pixels', share(before.near), share(after.near)],
    ['tokens of other answers', share(before.tokens), share(after.tokens)],
  ];
};

export function keptSection(kept: KeptAnswers): Section {
  return {
    id: 'kept',
    title: 'Questions still answered',
    body: html`<p>Questions about ${formatNumber(kept.scenes)} held-out scenes of the kind that the vision-language model has learned from: asked of the model that the policy began from, and again with the policy's weights in it.</p>
${table([{ name: 'right' }, ...['before', 'after'].map((name) => ({ name: `${name} training`, kind: 'number' as const }))], keptShares(kept))}`,
  };
}
