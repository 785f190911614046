import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { evaluationSamples, type Sample, wholeEpisodes } from '../../model/data/index.ts';
import { meanMoves, swappedActions, swappedLosses } from '../../model/inspect/swapped.ts';
import type { RunResult } from '../../model/training/run.ts';
import { syntheticDataset, unloaded } from '../support/synthetic-dataset.ts';
import { trainRun } from '../support/train-run.ts';

let folder = '';
let result: RunResult;
const dataset = syntheticDataset();
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-swapped-'));
  result = await trainRun(join(folder, 'checkpoint.safetensors'), { system: 'knowledge-insulation', steps: 2 });
});
afterAll(async () => {
  result.policy.model.dispose();
  await rm(folder, { recursive: true });
});

const measure = (samples: readonly Sample[]) => swappedLosses(result.policy, result.settings.run, samples);
const samples = () => evaluationSamples(wholeEpisodes(unloaded(dataset).episodes), 6);

test('of examples whose pictures and words are the same in all are those of the examples', async () => {
  const [first] = dataset.episodes;
  const image = () => first.image('front', 0);
  const episodes = dataset.episodes.map((episode) => ({ ...episode, image }));
  const alike = evaluationSamples(wholeEpisodes(episodes), 6);
  const { examples, pictures, words } = await measure(alike);
  expect(examples).toBe(6);
  expect(pictures).toEqual({ token: 1, flow: 1, 'open loop': 1 });
  // All have the same instruction, so that there is no other to be had.
  expect(words).toBeNull();
});

test('change with other pictures, and with other words', async () => {
  const varied = samples().map((sample, i) => (i % 2 ? sample : { ...sample, instruction: 'push the green ball' }));
  const { pictures, words } = await measure(varied);
  for (const ratios of [pictures!, words!]) {
    expect(Object.keys(ratios).sort()).toEqual(['flow', 'open loop', 'token']);
    expect(ratios.token).not.toBe(1);
    expect(ratios.token).toBeCloseTo(1, 0);
  }
});

test('of one episode, and of examples without instructions, there are none', async () => {
  const alone = evaluationSamples(wholeEpisodes(dataset.episodes.slice(0, 1)), 4);
  expect(await measure(alone.map((sample) => ({ ...sample, instruction: null })))).toEqual({
    examples: 4,
    pictures: null,
    words: null,
  });
});

test('actions move with other pictures and other words, and not where nothing changes', async () => {
  const varied = samples().map((sample, i) => (i % 2 ? sample : { ...sample, instruction: 'push the green ball' }));
  const { policy, settings } = result;
  const moved = await swappedActions(policy, settings.run, varied);
  expect(moved.every(({ sample }, i) => sample === varied[i])).toBe(true);
  const [first] = moved;
  expect(first.others.pictures!.part.episode.id).not.toBe(first.sample.part.episode.id);
  expect(first.others.words!.instruction).toBe(varied[1].instruction);
  const { noise, pictures, words, demonstrated } = meanMoves(moved);
  for (const distance of [noise, pictures, words, demonstrated]) expect(distance).toBeGreaterThan(0);

  const same = await dataset.episodes[0].image('front', 0);
  const alike = dataset.episodes.map((episode) => ({ ...episode, image: async () => same }));
  const still = await swappedActions(policy, settings.run, evaluationSamples(wholeEpisodes(alike), 3));
  expect(meanMoves(still)).toEqual({
    noise: expect.any(Number),
    pictures: 0,
    words: null,
    demonstrated: expect.any(Number),
  });
});
