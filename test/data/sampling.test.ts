import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { InputError } from '../../engine/files/errors.ts';
import { chooseHorizon, chunk } from '../../model/data/chunks.ts';
import { countSteps, type EpisodePart, wholeEpisodes } from '../../model/data/parts.ts';
import { evaluationSamples, type Sample, TrainingSampler } from '../../model/data/sampler.ts';
import { splitDataset } from '../../model/data/split.ts';
import { datasetOf, episodeOf } from './synthetic.ts';

const keys = (parts: readonly EpisodePart[]) =>
  parts.flatMap(({ episode, from, to }) => Array.from({ length: to - from }, (_, i) => `${episode.id}/${from + i}`));
const key = ({ part, step }: Sample) => `${part.episode.id}/${step}`;

describe('splitDataset', () => {
  test('covers every step once, holds out a tenth of the episodes, at least one and never all', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 2, maxLength: 60 }),
        fc.nat(),
        (lengths, seed) => {
          const dataset = datasetOf(lengths);
          const { train, heldOut } = splitDataset(dataset, { seed });
          expect([...keys(train), ...keys(heldOut)].sort()).toEqual(keys(wholeEpisodes(dataset.episodes)).sort());
          expect(heldOut.length).toBe(Math.max(1, Math.round(lengths.length / 10)));
        },
      ),
      { seed: 1 },
    );
  });

  test('depends on the seed alone', () => {
    const lengths = new Array(40).fill(3);
    const held = (seed: number) => keys(splitDataset(datasetOf(lengths), { seed }).heldOut);
    expect(held(5)).toEqual(held(5));
    expect(new Set([0, 1, 2, 3].map((seed) => held(seed).join())).size).toBe(4);
    expect(splitDataset(datasetOf([3, 3, 3, 3]), { seed: 9 }).description).toMatch(
      /^1 of 4 episodes held out \(seed 9\): ep\d$/,
    );
  });

  test('of one episode the last fifth is held out and described', () => {
    const { train, heldOut, description } = splitDataset(datasetOf([161]));
    expect(train.map(({ from, to }) => [from, to])).toEqual([[0, 129]]);
    expect(heldOut.map(({ from, to }) => [from, to])).toEqual([[129, 161]]);
    expect(description).toBe('one episode only: its last 32 of 161 steps held out');
    expect(splitDataset(datasetOf([2])).heldOut[0].from).toBe(1);
  });

  test('data sets that cannot be divided are refused', () => {
    expect(() => splitDataset(datasetOf([]))).toThrow(new InputError('data set "made" has no episodes'));
    expect(() => splitDataset(datasetOf([1]))).toThrow('nothing can be held out');
  });
});

describe('chunk', () => {
  const episode = episodeOf(
    'e',
    [0, 1, 2, 3, 4].map((step) => [step, -step]),
  );

  test('inside, and past the end with the last action repeated and masked', () => {
    expect(chunk({ episode, from: 0, to: 5 }, 1, 3)).toEqual({
      data: Float32Array.of(1, -1, 2, -2, 3, -3),
      valid: Uint8Array.of(1, 1, 1),
    });
    expect(chunk({ episode, from: 0, to: 5 }, 3, 4)).toEqual({
      data: Float32Array.of(3, -3, 4, -4, 4, -4, 4, -4),
      valid: Uint8Array.of(1, 1, 0, 0),
    });
  });

  test('never shows actions beyond its part', () => {
    expect(chunk({ episode, from: 0, to: 3 }, 2, 3)).toEqual({
      data: Float32Array.of(2, -2, 2, -2, 2, -2),
      valid: Uint8Array.of(1, 0, 0),
    });
    for (const step of [-1, 3, 0.5]) expect(() => chunk({ episode, from: 0, to: 3 }, step, 1)).toThrow(RangeError);
    expect(() => chunk({ episode, from: 3, to: 5 }, 2, 1)).toThrow('no step 2 in its steps 3 to 4');
  });
});

describe('chooseHorizon', () => {
  test('one second by default, whole steps', () => {
    expect(chooseHorizon(datasetOf([10, 40], 15))).toBe(15);
    expect(chooseHorizon(datasetOf([10], 4.6))).toBe(5);
    expect(chooseHorizon(datasetOf([10], 0.2))).toBe(1);
    expect(chooseHorizon(datasetOf([10, 12]), 12)).toBe(12);
  });

  test('too long or not a number of steps', () => {
    expect(() => chooseHorizon(datasetOf([10, 12]), 13)).toThrow(
      new InputError(
        'horizon 13 is longer than the longest episode of data set "made", which has 12 steps: choose at most 12',
      ),
    );
    expect(() => chooseHorizon(datasetOf([10], 50))).toThrow('horizon 50 is longer');
    for (const horizon of [0, 2.5, Number.NaN])
      expect(() => chooseHorizon(datasetOf([10]), horizon)).toThrow(InputError);
  });
});

describe('TrainingSampler', () => {
  const parts = [
    ...wholeEpisodes(datasetOf([7, 4, 12]).episodes),
    { episode: datasetOf([9]).episodes[0], from: 2, to: 6 },
  ];

  test('each epoch holds every step once, in an order of its own', () => {
    const sampler = new TrainingSampler(parts, 3);
    expect(sampler.size).toBe(27);
    const epochs = [0, 1, 2].map((epoch) => Array.from({ length: 27 }, (_, i) => key(sampler.at(epoch * 27 + i))));
    for (const epoch of epochs) expect(epoch.toSorted()).toEqual(keys(parts).sort());
    expect(new Set(epochs.map((epoch) => epoch.join())).size).toBe(3);
    expect(Array.from({ length: 27 }, (_, i) => key(new TrainingSampler(parts, 4).at(i)))).not.toEqual(epochs[0]);
  });

  test('a batch is a function of seed and step, in any order and after a resumption', () => {
    const run = new TrainingSampler(parts, 3);
    const batches = Array.from({ length: 20 }, (_, step) => run.batch(step, 4));
    for (const step of [19, 0, 7, 13, 6]) expect(new TrainingSampler(parts, 3).batch(step, 4)).toEqual(batches[step]);
    expect(batches.flat().slice(0, 27).map(key).sort()).toEqual(keys(parts).sort());
  });

  test('every paraphrase is drawn, and null if there is no instruction', () => {
    const sampler = new TrainingSampler(parts, 3);
    const samples = Array.from({ length: 300 }, (_, i) => sampler.at(i));
    const instructions = (id: string) =>
      new Set(samples.filter(({ part }) => part.episode.id === id).map((s) => s.instruction));
    expect(instructions('ep1')).toEqual(new Set(['word 1a', 'word 1b']));
    expect(instructions('ep2')).toEqual(new Set([null]));
  });

  test('no steps', () => {
    expect(() => new TrainingSampler([], 0)).toThrow('at least one control step');
  });
});

describe('evaluationSamples', () => {
  const parts = wholeEpisodes(datasetOf([7, 4, 12]).episodes);

  test('all steps in order, or evenly spread ones', () => {
    expect(evaluationSamples(parts).map(key)).toEqual(keys(parts));
    expect(evaluationSamples(parts, 100).length).toBe(countSteps(parts));
    const few = evaluationSamples(parts, 5).map(key);
    expect(few).toEqual([2, 6, 11, 16, 20].map((place) => keys(parts)[place]));
    expect(evaluationSamples(parts)[7].instruction).toBe('word 1a');
    expect(evaluationSamples(parts)[0].instruction).toBeNull();
    expect(evaluationSamples([], 5)).toEqual([]);
  });
});
