/** Which examples a training step takes: robot data alone, or vision-language examples beside them. */
import { InputError } from '../../engine/index.ts';
import { randomStream, streams } from '../../engine/random.ts';
import {
  type Dataset,
  type DatasetGroup,
  DatasetMixture,
  type Example,
  type ExampleSource,
  imageQuestions,
  type NamedImage,
  type Split,
  TrainingSampler,
  type VisionLanguage,
} from '../data/index.ts';
import type { Policy } from '../policy/policy.ts';
import type { System } from '../systems/index.ts';
import { askedOf } from './batches.ts';

/** Vision-language examples of a run. */
export interface CoTraining {
  /** Their part of every batch; GenVLA gives them half. */
  readonly share: number;
  /** Every epoch asks the same, in any order. */
  readonly questions: ExampleSource<VisionLanguage>;
  /** To measure with; not among `questions`. */
  readonly heldOut: readonly VisionLanguage[];
}

export interface ExampleSampler {
  /** The examples of training step `step` (from 0). */
  batch(step: number, batchSize: number): readonly Example[];
}

/** Control steps shuffled among each other: their episodes are read together where they lie on disk. */
const SHUFFLED_STEPS = 8192;

/** @throws InputError where system, data or share do not allow it */
export function checkCoTraining({ share }: CoTraining, system: System, { name, cameras }: Dataset): void {
  if (!(share > 0 && share < 1))
    throw new InputError(`co-training share ${share}: it is a part of each batch, above 0 and below 1`);
  if (!system.tokens)
    throw new InputError(
      `system ${system.name} has no token loss, which co-training needs: choose knowledge-insulation, joint-training or pi0-fast`,
    );
  if (cameras.length === 0) throw new InputError(`data set "${name}" has no images, which co-training needs`);
}

/**
 * Robots of a mixture by their weights, n^0.43 of their n examples by default. In co-training a share of each batch is questions, and every other example of
 * robot data has its subtask to predict before the actions, where the data have subtasks.
 */
export function exampleSampler(
  { train }: Split,
  seed: number,
  { coTraining, weights }: { coTraining?: CoTraining; weights?: Dataset['weights'] } = {},
): ExampleSampler {
  const robots = [...new Set(train.map(({ episode }) => episode.robot))];
  const members = robots.map((robot = 'robot') => {
    const parts = train.filter(({ episode }) => (episode.robot ?? 'robot') === robot);
    const sampler = new TrainingSampler(parts, seed, { window: SHUFFLED_STEPS });
    const at = (place: number): Example => {
      const sample = sampler.at(place);
      const answer = coTraining && place % 2 === 1 ? sample.part.episode.subtask?.(sample.step) : null;
      return answer ? { kind: 'action with language', sample, answer } : { kind: 'action', sample };
    };
    return { name: robot, source: { size: sampler.size, at }, weight: weights?.[robot] };
  });
  const { share = 0, questions } = coTraining ?? {};
  const groups: DatasetGroup<Example>[] = [{ share: 1 - share, members }];
  if (questions) {
    const at = (place: number): Example => ({ kind: 'vision-language', question: questions.at(place) });
    groups.push({ share, members: [{ name: 'questions', source: { size: questions.size, at } }] });
  }
  const mixture = new DatasetMixture(groups, seed);
  return { batch: (step, size) => mixture.batch(step, size).map(({ example }) => example) };
}

/** One image in so many is held out, but not more than this. */
const HELD_OUT_EVERY = 20;
const HELD_OUT_IMAGES = 16;

/**
 * Questions about images with names, some of the images held out by the seed.
 *
 * @throws InputError where there are too few images
 */
export function namedImageCoTraining(images: readonly NamedImage[], seed: number, share: number): CoTraining {
  const apart = Math.min(HELD_OUT_IMAGES, Math.max(2, Math.floor(images.length / HELD_OUT_EVERY)));
  if (images.length < apart + 2) throw new InputError(`${images.length} named images: questions need at least four`);
  const order = randomStream(seed, 2 ** 32 - 1, streams.split).permutation(images.length);
  const shuffled = Array.from(order, (index) => images[index]);
  const heldOut = imageQuestions(shuffled.slice(0, apart), seed);
  return {
    share,
    questions: imageQuestions(shuffled.slice(apart), seed),
    heldOut: Array.from({ length: heldOut.size }, (_, place) => heldOut.at(place)),
  };
}

/** A held-out question, its answer, and what a policy said. */
export interface Answered {
  readonly prompt: string;
  readonly answer: string;
  readonly said: string;
}

/** Asks a policy the questions held out, `size` at a time. Throws the reason of `signal` once it is aborted. */
export async function answersOf(
  policy: Policy,
  heldOut: readonly VisionLanguage[],
  size: number,
  signal?: AbortSignal,
): Promise<Answered[]> {
  const { cameras } = policy.encoding.settings;
  const answered: Answered[] = [];
  for (let start = 0; start < heldOut.length; start += size) {
    signal?.throwIfAborted();
    const questions = heldOut.slice(start, start + size);
    const said = await policy.say(await Promise.all(questions.map((question) => askedOf(question, cameras))));
    answered.push(...questions.map(({ prompt, answer }, i) => ({ prompt, answer, said: said[i] })));
  }
  return answered;
}

/** All questions, and those held out. */
export function everyQuestion({ questions, heldOut }: CoTraining): VisionLanguage[] {
  return [...Array.from({ length: questions.size }, (_, place) => questions.at(place)), ...heldOut];
}
