import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Model } from '../../model/architecture/model.ts';
import type { Dataset, VisionLanguage } from '../../model/data/index.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { type CoTraining, exampleSampler, imageCoTraining } from '../../model/training/co-training.ts';
import { prepareData } from '../../model/training/fitting.ts';
import { splitImages } from '../../model/training/image-questions.ts';
import { namedQuestions } from '../../model/training/named-images.ts';
import { minutePreset, quietListener, syntheticDataset } from '../support/synthetic-dataset.ts';
import { type TestRun, trainRun } from '../support/train-run.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-co-training-'));
});
const models: Model[] = [];
afterAll(async () => {
  for (const model of models) model.dispose();
  await rm(folder, { recursive: true, force: true });
});

/** Questions about the colour of an image. */
const questions: VisionLanguage[] = ['red', 'green', 'blue'].map((answer, channel) => ({
  image: async () => {
    const pixels = Uint8Array.from({ length: 16 * 16 * 3 }, (_, i) => (i % 3 === channel ? 220 : 10));
    return { width: 16, height: 16, pixels };
  },
  prompt: 'answer en what colour is it?',
  answer,
}));
const coTraining: CoTraining = {
  questions: { size: 3, at: (place) => questions[place % 3] },
  heldOut: questions,
};

/** Data whose first half of an episode is to reach, the second to put down. */
function withSubtasks(): Dataset {
  const plain = syntheticDataset();
  const subtask = (step: number) => (step < 6 ? 'reach for it' : 'put it down');
  return { ...plain, episodes: plain.episodes.map((episode) => ({ ...episode, subtask })) };
}

async function train(file: string, given: TestRun = {}) {
  const result = await trainRun(join(folder, file), {
    ...{ dataset: withSubtasks(), system: 'knowledge-insulation', preset: { ...minutePreset, evaluateEvery: 2 } },
    ...{ batch: 4, cotrain: 0.5, coTraining },
    ...given,
  });
  models.push(result.policy.model);
  return result;
}

describe('co-training', () => {
  test('interrupted and resumed equals the uninterrupted run; answers are measured apart', async () => {
    const whole = await train('whole.safetensors');
    const abort = new AbortController();
    const listener = quietListener({ step: (step: number) => void (step === 3 && abort.abort()) });
    await train('part.safetensors', { signal: abort.signal, listener });
    const resume = await openCheckpoint(join(folder, 'part.safetensors'));
    expect(resume.settings).toMatchObject({ run: { cotrain: 0.5 }, encoding: { locations: true } });
    const rest = await train('rest.safetensors', { resume });
    const measured = ({ history }: typeof whole) => [history.heldOut, history.training.map(({ losses }) => losses)];
    expect(measured(rest)).toEqual(measured(whole));
    expect(whole.history.heldOut.map(({ step }) => step)).toEqual([0, 2, 4, 6]);
    for (const { losses } of whole.history.heldOut)
      for (const loss of [losses.token, losses.answer, losses.flow]) expect(loss).toBeGreaterThan(0);
  });

  test('answers and subtasks are learned with actions, and generated', async () => {
    const preset = { ...minutePreset, evaluateEvery: 60, learningRate: 1e-2 };
    const { history, answers, policy } = await train('learned.safetensors', { steps: 120, preset });
    const [first, , last] = history.heldOut;
    expect(last.losses.answer / first.losses.answer).toBeLessThan(0.2);
    expect(last.losses.token / first.losses.token).toBeLessThan(0.8);
    expect(answers).toEqual(questions.map(({ prompt, answer }) => ({ prompt, answer, predicted: answer })));
    const { episodes } = withSubtasks();
    const observations = await Promise.all(
      [1, 9].map(async (step) => ({
        images: { front: await episodes[0].image('front', step) },
        state: episodes[0].states!.subarray(2 * step, 2 * step + 2),
        instruction: episodes[0].instructions[0],
        request: 'subtask' as const,
      })),
    );
    for (const subtask of await policy.generateText(observations))
      expect(['reach for it', 'put it down']).toContain(subtask);
  });

  test('without questions there are no answers', async () => {
    const { policy, answers } = await train('silent.safetensors', { steps: 1, cotrain: 0, coTraining: undefined });
    expect(answers).toBeNull();
    const question = { images: {}, state: null, instruction: 'caption en', request: 'answer' as const };
    await expect(policy.generateText([question])).rejects.toThrow(
      'this policy was trained without questions, so it cannot answer any',
    );
  });

  test('shares of every batch', () => {
    const { split } = prepareData(syntheticDataset(), 3);
    const kinds = (cotrain: number, size: number) =>
      exampleSampler(split, { seed: 3, cotrain }, { coTraining })
        .batch(7, size)
        .filter((example) => 'prompt' in example).length;
    expect([kinds(0.5, 4), kinds(0.25, 4), kinds(0.3, 10)]).toEqual([2, 1, 3]);
    expect(() => kinds(0.1, 2)).toThrow('mixture: a batch of 2 has no room for one of its groups');
  });

  test('every other example of robot data predicts its subtask, in co-training alone', () => {
    const { split } = prepareData(withSubtasks(), 3);
    const examples = exampleSampler(split, { seed: 3, cotrain: 0.5 }, { coTraining }).batch(2, 16);
    const samples = examples.flatMap((example) => ('part' in example ? [example] : []));
    expect(samples).toHaveLength(8);
    const subtasks = samples.filter(({ subtask }) => subtask !== undefined);
    expect(subtasks).toHaveLength(4);
    for (const { step, subtask } of subtasks) expect(subtask).toBe(step < 6 ? 'reach for it' : 'put it down');
    const alone = exampleSampler(split, { seed: 3, cotrain: 0 }).batch(2, 16);
    expect(alone.every((example) => 'part' in example && example.subtask === undefined)).toBe(true);
  });

  test('named images: none of the held-out ones is among the questions, by seed', () => {
    const images = Array.from({ length: 60 }, (_, i) => ({
      name: `thing ${i}`,
      category: 'things',
      image: async () => ({ width: 1, height: 1, pixels: Uint8Array.of(i, i, i) }),
    }));
    const namesOf = (seed: number) => {
      const split = splitImages('named', images, seed);
      const asked = { training: namedQuestions(split.training), heldOut: namedQuestions(split.heldOut) };
      const { questions, heldOut } = imageCoTraining(asked, seed);
      const every = Array.from({ length: questions.size }, (_, place) => questions.at(place));
      const names = (all: typeof every) =>
        all.flatMap(({ prompt, answer }) => (prompt === 'caption en' ? [answer] : []));
      return { trained: names(every), apart: names([...heldOut]) };
    };
    const { trained, apart } = namesOf(1);
    expect([trained.length, apart.length]).toEqual([57, 3]);
    expect([...trained, ...apart].sort()).toEqual(images.map(({ name }) => name).sort());
    expect(namesOf(1)).toEqual({ trained, apart });
    expect(namesOf(2).apart).not.toEqual(apart);
    expect(() => splitImages('named', images.slice(0, 3), 1)).toThrow(
      'named: number of images: 3; questions need at least four',
    );
  });

  test.each<[TestRun, string]>([
    [{ cotrain: 1 }, 'cotrain 1: it is a fraction of each batch, from 0 to below 1'],
    [{ cotrain: 0 }, 'cotrain 0: it leaves out the questions given'],
    [{ system: 'pi0' }, '--cotrain: pi0 has no discrete tokens'],
    [{ system: 'hybrid-vla' }, 'hybrid-vla cannot be trained on questions: target "target" cannot be decoded'],
    [{ dataset: syntheticDataset({ images: false }) }, 'data set "synthetic" has no images, which co-training needs'],
  ])('what does not fit is refused: %#', async (given, message) => {
    await expect(train('refused.safetensors', given)).rejects.toThrow(message);
  });

  test('a run goes on with its own share alone', async () => {
    await train('share.safetensors', { steps: 1 });
    const resume = await openCheckpoint(join(folder, 'share.safetensors'));
    await expect(train('other.safetensors', { resume, cotrain: 0.25 })).rejects.toThrow(
      '--cotrain 0.25: the run was begun with 0.5',
    );
    await expect(train('other.safetensors', { resume, coTraining: undefined })).rejects.toThrow(
      'cotrain 0.5: no questions are given for it',
    );
    await resume.close();
  });
});
