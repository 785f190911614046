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

  test('of more rows than are kept: quantiles of a fair sample, all else exact', () => {
    const count = 600_000;
    const wave = Float32Array.from({ length: count }, (_, i) => (i < 1000 ? 1000 + i : (i * 7919) % 1000));
    const { q01, q99, min, max, mean, std } = columnStatistics([wave], 1);
    const exact = Float64Array.from(wave);
    const average = exact.reduce((sum, value) => sum + value, 0) / count;
    const variance = exact.reduce((sum, value) => sum + (value - average) ** 2, 0) / count;
    expect([min[0], max[0]]).toEqual([0, 1999]);
    expect(mean[0]).toBeCloseTo(average, 8);
    expect(std[0]).toBeCloseTo(Math.sqrt(variance), 8);
    // The rank of a quantile is uncertain by 0.02 % of the rows, of which 1 % are ten values.
    for (const [own, part] of [
      [q01, 0.01],
      [q99, 0.99],
    ] as const)
      expect(Math.abs(own[0] - quantile(exact.toSorted(), part))).toBeLessThanOrEqual(1);
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

  /** The normaliser of one table's own statistics. */
  const fitted = (rows: readonly (readonly number[])[]) =>
    new Normaliser(columnStatistics([Float32Array.from(rows.flat())], rows[0].length));
  const steps = (count: number, row: (i: number) => number[]) => Array.from({ length: count }, (_, i) => row(i));
  const there = (normaliser: Normaliser, values: number[]) => [...normaliser.normalise(Float32Array.from(values))];
  const back = (normaliser: Normaliser, values: number[]) => [
    ...normaliser.denormalise(normaliser.normalise(Float32Array.from(values))),
  ];

  test('the scale of a dimension does not depend on the units of the others', () => {
    const units = [1e-40, 1e-3, 1, 180, 850, 1e6, 1e30];
    const wave = (i: number) => Math.sin(i / 7);
    const all = fitted(steps(1000, (i) => [...units.map((unit) => unit * wave(i)), 5]));
    const place = 0.6; // within the range of a sine
    const normal = there(all, [...units.map((unit) => unit * place), 5]);
    units.forEach((unit, d) => {
      const alone = fitted(steps(1000, (i) => [unit * wave(i)]));
      expect([all.low[d], all.high[d]]).toEqual([alone.low[0], alone.high[0]]);
      expect(normal[d]).toBeCloseTo(place, 2);
    });
    expect(normal[units.length]).toBe(0);
    expect([all.constant, all.clipped]).toEqual([[units.length], []]);
  });

  test('a large offset leaves the scale', () => {
    const statistics = columnStatistics([Float32Array.of(10000, 10001, 10002)], 1);
    expect([statistics.mean[0], statistics.std[0]]).toEqual([10001, Math.sqrt(2 / 3)]);
    const normaliser = new Normaliser(statistics);
    there(normaliser, [10000, 10001, 10002]).forEach((value, i) => {
      expect(value).toBeCloseTo([-1 / 0.98, 0, 1 / 0.98][i], 6);
    });
    expect(back(normaliser, [9998, 10000.5, 10004])).toEqual([9998, 10000.5, 10004]);
  });

  test.each([100, 101, 300])('a dimension of %i steps that leaves its one value once keeps both', (count) => {
    const once = (i: number) => (i === 60 ? 1 : 0);
    const normaliser = fitted(steps(count, (i) => [once(i), 1 - once(i), 1000 * Math.sin(i)])); // beside a large dimension
    const [zero, one] = [there(normaliser, [0, 0, 0]), there(normaliser, [1, 1, 0])];
    expect([zero.slice(0, 2), one.slice(0, 2)]).toEqual([
      [-1, -1],
      [1, 1],
    ]);
    expect(back(normaliser, [2, -1, 0]).slice(0, 2)).toEqual([2, -1]);
  });

  test('statistics stay those of numpy where quantiles fall between two values', () => {
    // numpy 2: np.quantile([0] * 99 + [1], 0.99), and with a 2 at the end
    const zeros = new Array<number>(99).fill(0);
    expect(columnStatistics([Float32Array.from([...zeros, 1])], 1).q99[0]).toBeCloseTo(0.01, 12);
    expect(columnStatistics([Float32Array.from([...zeros, 1, 2])], 1).q99[0]).toBe(1);
  });

  test('an outlier of any size widens nothing, and is named', () => {
    for (const size of [30, 1000, 1e9]) {
      const normaliser = fitted(steps(1000, (i) => [i < 6 ? size : Math.sin(i), Math.cos(i)]));
      expect(normaliser.high[0] - normaliser.low[0]).toBeCloseTo(2, 1);
      expect(normaliser.clipped).toEqual([0]);
      expect(there(normaliser, [size, 0])[0]).toBe(5);
    }
  });

  test('a dimension that never moves becomes 0 and comes back, whatever its size', () => {
    for (const value of [0, 5, -0.25, 850, 1e6, 3e38, 1e-45]) {
      const normaliser = fitted(steps(50, () => [value]));
      expect(there(normaliser, [value])).toEqual([0]);
      expect(back(normaliser, [value])).toEqual([Math.fround(value)]);
      expect(normaliser.constant).toEqual([0]);
    }
    expect(back(fitted([[1]]), [0])).toEqual([0]);
    expect(back(fitted([[0]]), [1])).toEqual([1]);
  });

  test('quantiles that are one value, without extremes, give ten standard deviations', () => {
    const others = (std: number) => new Normaliser({ ...columns([0.5], [0.5]), std: [std] });
    expect([others(0.1).low[0], others(0.1).high[0]]).toEqual([-0.5, 1.5]);
    expect(back(others(0.1), [0.5, 1.5, -3, 4])).toEqual([0.5, 1.5, -3, 4]);
    // less than float32 can tell from one value
    expect(back(others(1e-12), [0.5, 0.25, 1])).toEqual([0.5, 0.25, 1]);
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
    const still = { ...statistics, actions: columnStatistics([new Float32Array(100).fill(1, 99)], 1) };
    expect(statisticsFromJson(JSON.parse(JSON.stringify(still)), 'x')).toEqual(still);
  });

  test('of a model that was trained with a shared floor keep its ranges', () => {
    const list = (...values: number[]) => values;
    const own = { min: list(-3, 3, -10, 0), max: list(9, 3, 10, 1), q01: list(-2, 3, 1, 0), q99: list(8, 3, 1, 0.05) };
    const saved = { ...own, count: 9, mean: list(0, 0, 0, 0), std: list(1, 1, 1, 1) };
    const read = statisticsFromJson({ rangeFloor: 0.01, bound: 5, actions: saved, states: null }, 'x');
    const { low, high } = normalisers(read).actions;
    // the widest range is 10, the floor 0.1
    expect([low, high]).toEqual([
      [-2, 2.95, -10, 0],
      [8, 3.05, 10, 1],
    ]);
    expect(read).not.toHaveProperty('rangeFloor');
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
