import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { InputError } from '../../engine/files/errors.ts';
import { quantile } from '../../model/data/columns.ts';
import { wholeEpisodes } from '../../model/data/parts.ts';
import {
  columnStatistics,
  measureStatistics,
  Normaliser,
  normalisers,
  statisticsFromJson,
} from '../../model/data/statistics.ts';
import { datasetOf, episodeOf } from './synthetic.ts';

describe('statistics', () => {
  test('quantiles as numpy', () => {
    // numpy 2: np.quantile([0.5, 1, 2, 7, 11, 11.5, 100], [0.01, 0.3, 0.5, 0.99, 1])
    const sorted = [0.5, 1, 2, 7, 11, 11.5, 100];
    [0.53, 1.8, 7, 94.69, 100].forEach((value, i) => {
      expect(quantile(sorted, [0.01, 0.3, 0.5, 0.99, 1][i])).toBeCloseTo(value, 12);
    });
    expect(quantile([4], 0.01)).toBe(4);
  });

  test('of columns, however the rows are cut into tables', () => {
    const rows = fc.array(
      fc.tuple(fc.float({ min: -50, max: 50, noNaN: true }), fc.float({ min: 0, max: 1, noNaN: true })),
      {
        minLength: 1,
        maxLength: 60,
      },
    );
    fc.assert(
      fc.property(rows, fc.nat(), (rows, cut) => {
        const border = (cut % (rows.length + 1)) * 2;
        const flat = Float32Array.from(rows.flat());
        const result = columnStatistics([flat.subarray(0, border), flat.subarray(border)], 2);
        expect(result.count).toBe(rows.length);
        for (const d of [0, 1]) {
          const column = rows.map((row) => row[d]).sort((a, b) => a - b);
          const mean = column.reduce((sum, value) => sum + value, 0) / column.length;
          expect(result.mean[d]).toBeCloseTo(mean, 10);
          expect(result.std[d]).toBeCloseTo(
            Math.sqrt(column.reduce((s, v) => s + (v - mean) ** 2, 0) / column.length),
            10,
          );
          expect([result.min[d], result.max[d]]).toEqual([column[0] + 0, column.at(-1)! + 0]);
          expect(result.q01[d]).toBe(quantile(column, 0.01));
          expect(result.q99[d]).toBe(quantile(column, 0.99));
        }
      }),
      { seed: 1 },
    );
  });

  test('look at nothing outside the parts', async () => {
    const episode = episodeOf('a', [[1], [2], [3], [1000]]);
    const { actions, states } = await measureStatistics([{ episode, from: 1, to: 3 }]);
    expect([actions.count, actions.min[0], actions.max[0], actions.mean[0]]).toEqual([2, 2, 3, 2.5]);
    expect(states!.max[0]).toBe(30);
  });

  test('no state statistics where an episode has no states', async () => {
    const [first, second] = datasetOf([4, 4]).episodes;
    expect((await measureStatistics(wholeEpisodes([first, { ...second, states: null }]))).states).toBeNull();
  });
});

describe('Normaliser', () => {
  const columns = (low: number[], high: number[], min = low, max = high) => {
    const zero = low.map(() => 0);
    return { count: 1, mean: zero, std: zero, min, max, q01: low, q99: high };
  };

  test('the published vector, without the epsilon', () => {
    const normaliser = new Normaliser(columns([-0.4], [0.6]));
    const result = normaliser.normalise(Float32Array.of(-0.4, 0.1, 0.6, 0.8));
    [-1, 0, 1, 1.4].forEach((value, i) => {
      expect(result[i]).toBeCloseTo(value, 6);
    });
  });

  test('there and back, for every value within the bound', () => {
    const range = fc.tuple(fc.double({ min: -20, max: 20, noNaN: true }), fc.double({ min: 0, max: 30, noNaN: true }));
    fc.assert(
      fc.property(
        fc.array(range, { minLength: 1, maxLength: 6 }),
        fc.array(fc.double({ min: -4, max: 4, noNaN: true })),
        (ranges, places) => {
          const normaliser = new Normaliser(
            columns(
              ranges.map(([low]) => low),
              ranges.map(([low, width]) => low + width),
            ),
          );
          const { low, high, dimension } = normaliser;
          const rows = places.flatMap((place) => low.map((value, d) => value + ((place + 1) / 2) * (high[d] - value)));
          const raw = Float32Array.from(rows);
          const back = normaliser.denormalise(normaliser.normalise(raw));
          raw.forEach((value, i) => {
            const d = i % dimension;
            const size = Math.max(Math.abs(value), Math.abs(low[d]), Math.abs(high[d]), high[d] - low[d]);
            // float32 rounding of the raw value, the normalised value and the result
            expect(Math.abs(back[i] - value)).toBeLessThanOrEqual(size * 2 ** -20);
          });
        },
      ),
      { seed: 2 },
    );
  });

  test('a dimension that stands still does not explode', () => {
    const normaliser = new Normaliser(columns([0, 3, 1], [10, 3, 1.001]));
    expect(normaliser.widened).toEqual([1, 2]);
    const [, constant, noise] = normaliser.normalise(Float32Array.of(0, 3, 1.001));
    expect(constant).toBe(0);
    expect(Math.abs(noise)).toBeLessThan(0.011); // half its range of 0.001 over half the floor of 0.1
    expect(normaliser.normalise(Float32Array.of(0, 3, 7))[2]).toBe(5);
  });

  test('a gripper that closes in few steps keeps its range', () => {
    const normaliser = new Normaliser(columns([0, 1], [10, 1], [-1, 0], [11, 1]));
    expect(normaliser.widened).toEqual([]);
    expect([...normaliser.normalise(Float32Array.of(5, 0, 5, 1))]).toEqual([0, -1, 0, 1]);
  });

  test('nothing moves at all', () => {
    const normaliser = new Normaliser(columns([2, -3], [2, -3]));
    expect([...normaliser.normalise(Float32Array.of(2, -3))]).toEqual([0, 0]);
    expect([...normaliser.denormalise(Float32Array.of(0, 0))]).toEqual([2, -3]);
  });

  test('values that are not rows', () => {
    expect(() => new Normaliser(columns([0, 0], [1, 1])).normalise(new Float32Array(3))).toThrow(
      'rows of 2 dimensions',
    );
  });
});

describe('statistics as JSON', async () => {
  const statistics = await measureStatistics(wholeEpisodes(datasetOf([6, 9]).episodes));
  const json = () => JSON.parse(JSON.stringify(statistics));

  test('come back the same and normalise the same', () => {
    const back = statisticsFromJson(json(), 'statistics.json');
    expect(back).toEqual(statistics);
    const values = datasetOf([6]).episodes[0].actions;
    expect(normalisers(back).actions.normalise(values)).toEqual(normalisers(statistics).actions.normalise(values));
    expect(statisticsFromJson({ ...json(), states: null }, 'x').states).toBeNull();
  });

  test.each<[string, (value: ReturnType<typeof json>) => unknown, string]>([
    ['null', () => null, 'expected object, got null'],
    ['no actions', ({ actions: _, ...rest }) => rest, '"actions": missing'],
    [
      'short list',
      (value) => ({ ...value, actions: { ...value.actions, q99: [1] } }),
      '"actions": expected lists of the same length',
    ],
    [
      'text for a number',
      (value) => ({ ...value, states: { ...value.states, min: [1, 'a'] } }),
      '"states.min[1]": expected a number that f32 holds',
    ],
    [
      'a number beyond float32',
      (value) => ({ ...value, actions: { ...value.actions, max: [1, 1e39] } }),
      '"actions.max[1]": expected a number that f32 holds, got 1e+39',
    ],
    ['no bound', ({ bound: _, ...rest }) => rest, '"bound": missing'],
  ])('%s', (_, change, message) => {
    expect(() => statisticsFromJson(change(json()), 'run/statistics.json')).toThrow(InputError);
    expect(() => statisticsFromJson(change(json()), 'run/statistics.json')).toThrow(
      `run/statistics.json: not normalisation statistics: ${message}`,
    );
  });
});
