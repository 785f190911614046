import type { Image } from './dataset.ts';
import type { Sample } from './sampler.ts';

/**
 * The three kinds of training examples of knowledge insulation: images and a question with an answer to predict, robot
 * data, and robot data with language to predict before the actions (a subtask, a caption).
 */
export type Example =
  | { readonly kind: 'vision-language'; readonly question: VisionLanguage }
  | { readonly kind: 'action'; readonly sample: Sample }
  | { readonly kind: 'action with language'; readonly sample: Sample; readonly answer: string };

/** A question about an image. */
export interface VisionLanguage {
  readonly image: () => Promise<Image>;
  readonly prompt: string;
  readonly answer: string;
}

/**
 * Which losses an example carries (knowledge insulation, equation 2): `text`, its answer is predicted; `actions`, M^act,
 * its action tokens and its flow are. Each [batch], 1 or 0.
 */
export function exampleMasks(examples: readonly Example[]): { text: Uint8Array; actions: Uint8Array } {
  return {
    text: Uint8Array.from(examples, ({ kind }) => (kind === 'action' ? 0 : 1)),
    actions: Uint8Array.from(examples, ({ kind }) => (kind === 'vision-language' ? 0 : 1)),
  };
}
