import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { memorySource } from '../../engine/files/bytes.ts';
import { randomStream, streams } from '../../engine/random.ts';
import {
  DatasetMixture,
  loadExamples,
  mixDatasets,
  ownSlotMap,
  readParaphrases,
  type Sample,
  TrainingSampler,
  wholeEpisodes,
  withParaphrases,
} from '../../model/data/index.ts';
import { augment, augmentation, colourAugmentation } from '../../model/training/augmentation.ts';
import { datasetOf, gradientImage, text } from './synthetic.ts';

const count = (size: number) => ({ size, at: (place: number) => place });
const member = (name: string, size: number, weight?: number) => ({ name, source: count(size), weight });

describe('DatasetMixture', () => {
  test('weights of n^0.43, or by hand', () => {
    const shares = (mixture: DatasetMixture<number>) => {
      const names = mixture.batch(0, 20_000).map(({ name }) => name);
      return ['a', 'b', 'c'].map((own) => names.filter((name) => name === own).length / names.length);
    };
    const [a, b] = shares(new DatasetMixture([{ share: 1, members: [member('a', 1000), member('b', 100_000)] }], 0));
    expect(b / a).toBeCloseTo(100 ** 0.43, 1);
    const hand = new DatasetMixture(
      [
        { share: 3, members: [member('a', 10, 1), member('b', 10, 3)] },
        { share: 1, members: [member('c', 5)] },
      ],
      0,
    );
    [3 / 16, 9 / 16, 1 / 4].forEach((share, i) => {
      expect(shares(hand)[i]).toBeCloseTo(share, 3);
    });
  });

  test('every batch has the shares, every stretch nearly the weights, each member its own order', () => {
    const groups = [
      { share: 1, members: [member('a', 10, 1), member('b', 10, 3)] },
      { share: 1, members: [member('c', 5)] },
    ];
    const mixture = new DatasetMixture(groups, 7);
    const batches = Array.from({ length: 100 }, (_, step) => mixture.batch(step, 8));
    for (const batch of batches) expect(batch.filter(({ name }) => name === 'c').length).toBe(4);
    const robots = batches.flat().filter(({ name }) => name !== 'c');
    for (let from = 0; from + 40 <= robots.length; from += 40) {
      const own = robots.slice(from, from + 40).filter(({ name }) => name === 'a').length;
      expect(Math.abs(own - 10)).toBeLessThanOrEqual(2);
    }
    for (const name of ['a', 'b', 'c']) {
      const places = batches
        .flat()
        .filter((item) => item.name === name)
        .map(({ example }) => example);
      expect(places).toEqual(places.map((_, i) => i));
    }
    for (const step of [57, 3, 99]) expect(new DatasetMixture(groups, 7).batch(step, 8)).toEqual(batches[step]);
    expect(mixture.batch(2, 8)).toEqual(batches[2]);
    expect(new DatasetMixture(groups, 8).batch(0, 32)).not.toEqual(mixture.batch(0, 32));
  });

  test('what cannot be mixed', () => {
    expect(() => new DatasetMixture([], 0)).toThrow('a group has no data set');
    expect(() => new DatasetMixture([{ share: 0, members: [member('a', 1)] }], 0)).toThrow('the share of group 1 is 0');
    expect(() => new DatasetMixture([{ share: 1, members: [member('a', 1, -1)] }], 0)).toThrow(
      'the weight of "a" is -1',
    );
    const two = { share: 1, members: [member('a', 1)] };
    expect(() => new DatasetMixture([two, two], 0).batch(0, 1)).toThrow(
      'a batch of 1 has no room for one of its groups',
    );
    const [slow, fast] = [datasetOf([3], 5), datasetOf([3], 50)];
    const members = [slow, slow, fast].map((dataset) => ({ dataset, slots: ownSlotMap(dataset) }));
    expect(() => mixDatasets(members)).toThrow('"made" has 5 Hz, "made" 50');
  });
});

describe('shuffling in windows', () => {
  const key = ({ part, step }: Sample) => `${part.episode.id}:${step}`;

  test('each epoch holds every step once, few episodes at a time, and is resumed anywhere', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 20 }),
        fc.integer({ min: 1, max: 60 }),
        fc.nat(100),
        (lengths, window, seed) => {
          const parts = wholeEpisodes(datasetOf(lengths).episodes);
          const sampler = new TrainingSampler(parts, seed, { window });
          const { size } = sampler;
          const two = Array.from({ length: 2 * size }, (_, place) => key(sampler.at(place)));
          const all = parts.flatMap(({ episode }) =>
            Array.from({ length: episode.length }, (_, s) => `${episode.id}:${s}`),
          );
          expect(two.slice(0, size).sort()).toEqual(all.slice().sort());
          expect(two.slice(size).sort()).toEqual(all.slice().sort());
        },
      ),
      { seed: 4, numRuns: 60 },
    );
    const parts = wholeEpisodes(datasetOf(Array(30).fill(10)).episodes);
    const sampler = new TrainingSampler(parts, 5, { window: 50 });
    const places = Array.from({ length: 600 }, (_, place) => key(sampler.at(place)));
    for (let from = 0; from < 300; from += 50) {
      expect(new Set(places.slice(from, from + 50).map((place) => place.split(':')[0])).size).toBe(5);
    }
    expect(places.slice(0, 300)).not.toEqual(places.slice(300));
    for (const place of [599, 0, 270, 333]) {
      expect(key(new TrainingSampler(parts, 5, { window: 50 }).at(place))).toBe(places[place]);
    }
  });

  test('samples of episodes on disk are loaded, each episode once', async () => {
    const dataset = datasetOf([4, 4]);
    let loads = 0;
    const listed = dataset.episodes.map((episode) => ({
      ...episode,
      actions: new Float32Array(0),
      load: async () => {
        loads += 1;
        return episode;
      },
    }));
    const [part, other] = wholeEpisodes([listed[0], dataset.episodes[1]]);
    const samples = [0, 1].map((step) => ({ part, step, instruction: null }));
    const loaded = await loadExamples([...samples, { part: other, step: 2, instruction: null }]);
    expect(loads).toBe(1);
    expect(loaded.map(({ part: { episode } }) => episode.actions.length)).toEqual([8, 8, 8]);
    expect(loaded.map(({ step }) => step)).toEqual([0, 1, 2]);
  });
});

describe('augmentation', () => {
  const image = gradientImage(40, 30);
  const random = (seed: number, step = 0) => randomStream(seed, step, streams.augmentation);

  test('is decided by seed, step and number', () => {
    const one = augment(image, random(1, 5), 3);
    expect(augment(image, random(1, 5), 3)).toEqual(one);
    for (const other of [
      augment(image, random(2, 5), 3),
      augment(image, random(1, 6), 3),
      augment(image, random(1, 5), 4),
    ])
      expect(other.pixels).not.toEqual(one.pixels);
    expect([one.width, one.height]).toEqual([40, 30]);
  });

  test('nothing to change changes nothing', () => {
    const none = { crop: 1, rotation: 0, brightness: 0, contrast: 0, saturation: 0 };
    expect(augment(image, random(1), 0, none)).toEqual(image);
    // These random numbers change the image hardly at all, though crop and rotation resample it.
    const hardly = augment(image, random(1), 0, { ...none, crop: 1 - 1e-9 });
    expect(hardly.pixels).toEqual(image.pixels);
  });

  test('moves a point no further than crop and rotation allow', () => {
    const dot = { width: 41, height: 41, pixels: new Uint8Array(41 * 41 * 3) };
    dot.pixels.fill(255, (10 * 41 + 8) * 3, (10 * 41 + 8) * 3 + 3);
    const still = { ...augmentation, brightness: 0, contrast: 0, saturation: 0 };
    for (let seed = 0; seed < 20; seed++) {
      const { pixels } = augment(dot, random(seed), 0, still);
      const brightest = pixels.indexOf(Math.max(...pixels)) / 3;
      const [x, y] = [brightest % 41, Math.floor(brightest / 41)];
      // The bound is half of 5 % of 41 pixels, 5 degrees about a centre 16 pixels away, and a pixel of rounding.
      expect(Math.hypot(x - 8, y - 10)).toBeLessThan(1.03 * Math.SQRT2 + 1.4 + 1);
    }
  });

  test('colours stay in range, grey stays grey, geometry is kept', () => {
    const grey = { width: 2, height: 1, pixels: Uint8Array.of(100, 100, 100, 200, 200, 200) };
    for (let seed = 0; seed < 30; seed++) {
      const [a, b, c, d] = augment(grey, random(seed), 0, colourAugmentation).pixels;
      expect([a, a]).toEqual([b, c]);
      expect(d).toBeGreaterThan(a);
    }
  });
});

describe('paraphrases', () => {
  test('are added to instructions, also of episodes on disk', async () => {
    const paraphrases = await readParaphrases(
      memorySource(text({ 'word 1a': ['say 1a', ' word 1b '], other: [] }), 'p.json'),
    );
    const dataset = datasetOf([2, 3]);
    const [, second] = dataset.episodes;
    const listed = {
      ...second,
      get actions(): Float32Array {
        throw new Error('on disk');
      },
      load: async () => second,
    };
    const more = withParaphrases({ ...dataset, episodes: [dataset.episodes[0], listed] }, paraphrases);
    expect(more.episodes.map(({ instructions }) => instructions)).toEqual([[], ['word 1a', 'word 1b', 'say 1a']]);
    expect(more.episodes[0].actions).toBe(dataset.episodes[0].actions);
    const loaded = await more.episodes[1].load!();
    expect([loaded.actions, loaded.instructions]).toEqual([second.actions, ['word 1a', 'word 1b', 'say 1a']]);
    expect(await loaded.image('a', 0)).toBeNull();
    for (const json of [[], { a: 'b' }, { a: [''] }, null])
      await expect(readParaphrases(memorySource(text(json), 'p.json'))).rejects.toThrow(/^p\.json: /);
  });
});
