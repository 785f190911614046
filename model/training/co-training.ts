/** Co-training: which examples a training step takes, robot data alone or vision-language examples as well. */
import { InputError } from '../../engine/index.ts';
import type { ObjectiveDescription } from '../architecture/objectives/index.ts';
import {
  type Dataset,
  type DatasetGroup,
  DatasetMixture,
  type Example,
  type ExampleSource,
  type Split,
  TrainingSampler,
  type VisionLanguage,
} from '../data/index.ts';
import type { Policy } from '../policy/policy.ts';
import { questionObservation } from './batches.ts';
import { type ImageSplit, imageQuestions } from './image-questions.ts';
import type { RunSettings } from './run-settings.ts';
import type { ExampleSampler } from './trainer.ts';

/** The vision-language examples of a run. */
export interface CoTraining {
  /** Questions to train on; every epoch has the same ones, in a different order. */
  readonly questions: ExampleSource<VisionLanguage>;
  /** Questions to evaluate on; not among `questions`. */
  readonly heldOut: readonly VisionLanguage[];
}

/** The loss of the answers to the held-out questions, which a co-trained run measures beside its objectives. */
export const answersDescription: ObjectiveDescription = {
  name: 'answer',
  title: 'token loss of answers',
  meaning: 'mean cross-entropy of the next token of an answer, in nats',
  baseline: null,
};

/** Size of the window in which control steps are shuffled: the episodes of a window are read together. */
const SHUFFLED_STEPS = 8192;

/** @throws InputError if settings, questions and data do not fit each other */
export function checkCoTraining(
  { cotrain }: Pick<RunSettings, 'cotrain'>,
  coTraining: CoTraining | undefined,
  { name, cameras }: Dataset,
): void {
  if (!(cotrain >= 0 && cotrain < 1))
    throw new InputError(`cotrain ${cotrain}: it is a fraction of each batch, from 0 to below 1`);
  if (cotrain > 0 !== (coTraining !== undefined))
    throw new InputError(
      `cotrain ${cotrain}: ${coTraining ? 'it leaves out the questions given' : 'no questions are given for it'}`,
    );
  if (coTraining && cameras.length === 0)
    throw new InputError(`data set "${name}" has no images, which co-training needs`);
}

/**
 * Robots are sampled by their weights, by default in proportion to n^0.43 for n control steps. In co-training the
 * fraction `cotrain` of each batch is questions (GenVLA: one half), and every other example of robot data has its
 * subtask as a target before the actions, if the data have subtasks and every example does not say one anyway (`subtask`).
 */
export function exampleSampler(
  { train }: Split,
  {
    seed,
    cotrain,
    subtask: kind = null,
  }: Pick<RunSettings, 'seed' | 'cotrain'> & Partial<Pick<RunSettings, 'subtask'>>,
  { coTraining, weights }: { coTraining?: CoTraining; weights?: Dataset['weights'] } = {},
): ExampleSampler<Example> {
  const robots = [...new Set(train.map(({ episode }) => episode.robot))];
  const members = robots.map((robot = 'robot') => {
    const parts = train.filter(({ episode }) => (episode.robot ?? 'robot') === robot);
    const sampler = new TrainingSampler(parts, seed, { window: SHUFFLED_STEPS });
    const at = (index: number): Example => {
      const sample = sampler.at(index);
      const subtask =
        coTraining && kind === null && index % 2 === 1 ? sample.part.episode.subtask?.(sample.step) : null;
      return subtask ? { ...sample, subtask } : sample;
    };
    return { name: robot, source: { size: sampler.size, at }, weight: weights?.[robot] };
  });
  const groups: DatasetGroup<Example>[] = [{ share: 1 - cotrain, members }];
  if (coTraining) {
    const { questions } = coTraining;
    groups.push({ share: cotrain, members: [{ name: 'questions', source: questions }] });
  }
  const mixture = new DatasetMixture(groups, seed);
  return { batch: (step, size) => mixture.batch(step, size).map(({ example }) => example) };
}

/** Questions about images, some of which are held out. */
export function imageCoTraining({ training, heldOut }: ImageSplit, seed: number): CoTraining {
  const apart = imageQuestions(heldOut, seed);
  return {
    questions: imageQuestions(training, seed),
    heldOut: Array.from({ length: apart.size }, (_, index) => apart.at(index)),
  };
}

/** A held-out question, its answer, and the policy's answer. */
export interface AnsweredQuestion {
  readonly prompt: string;
  readonly answer: string;
  readonly predicted: string;
}

/** Has a policy answer the held-out questions in batches of `size`. Throws the reason of `signal` once it is aborted. */
export async function answerQuestions(
  policy: Policy,
  heldOut: readonly VisionLanguage[],
  size: number,
  signal?: AbortSignal,
): Promise<AnsweredQuestion[]> {
  const { cameras } = policy.encoding.settings;
  const answered: AnsweredQuestion[] = [];
  for (let start = 0; start < heldOut.length; start += size) {
    signal?.throwIfAborted();
    const questions = heldOut.slice(start, start + size);
    const observations = await Promise.all(questions.map((question) => questionObservation(question, cameras)));
    const predicted = await policy.generateText(observations);
    answered.push(...questions.map(({ prompt, answer }, i) => ({ prompt, answer, predicted: predicted[i] })));
  }
  return answered;
}

/** All questions, held out or not. */
export function everyQuestion({ questions, heldOut }: CoTraining): VisionLanguage[] {
  return [...Array.from({ length: questions.size }, (_, index) => questions.at(index)), ...heldOut];
}
