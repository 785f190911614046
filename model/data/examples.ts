import type { Image } from './dataset.ts';
import { loadSamples, type Sample } from './sampler.ts';

/**
 * The three kinds of training examples of knowledge insulation: images and a question with an answer to predict, robot
 * data, and robot data with language to predict before the actions (a subtask, a caption).
 */
export type Example =
  | { readonly kind: 'vision-language'; readonly question: VisionLanguage }
  | { readonly kind: 'action'; readonly sample: Sample }
  | { readonly kind: 'action with language'; readonly sample: Sample; readonly answer: string };

/** Robot data without language to predict. */
export const actionExamples = (samples: readonly Sample[]): Example[] =>
  samples.map((sample) => ({ kind: 'action', sample }));

/** Loads the episodes of examples, as `loadSamples` does. */
export async function loadExamples(examples: readonly Example[]): Promise<Example[]> {
  const samples = await loadSamples(examples.flatMap((own) => (own.kind === 'vision-language' ? [] : [own.sample])));
  let next = 0;
  return examples.map((own) => (own.kind === 'vision-language' ? own : { ...own, sample: samples[next++] }));
}

/** A question about an image. */
export interface VisionLanguage {
  readonly image: () => Promise<Image>;
  readonly prompt: string;
  readonly answer: string;
}
