import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { InputError } from '../../engine/files/errors.ts';
import {
  absoluteActions,
  checkSlotMap,
  checkStatistics,
  columnStatistics,
  fromNormStats,
  fromSlots,
  measureStatistics,
  ownSlotMap,
  relativeActions,
  relativeChunks,
  slotMapNamed,
  slotMaps,
  slotMask,
  toNormStats,
  toSlots,
  wholeEpisodes,
  withoutPadding,
} from '../../model/data/index.ts';
import { datasetOf, episodeOf } from './synthetic.ts';

const dataset = (actionDimension: number, stateDimension: number) => ({
  ...datasetOf([3]),
  actionDimension,
  stateDimension,
});

describe('slot maps', () => {
  test('the published layout', () => {
    const aloha = slotMapNamed('trossen');
    const mask = aloha.actions.map(({ relative }) => relative);
    // openpi: make_bool_mask(6, -1, 6, -1)
    expect(mask).toEqual([...Array(6).fill(true), false, ...Array(6).fill(true), false]);
    expect(aloha.actions.map(({ slot }) => slot)).toEqual(Array.from({ length: 14 }, (_, i) => i));
    expect(
      slotMapNamed('franka')
        .actions.filter(({ kind }) => kind === 'gripper')
        .map(({ slot }) => slot),
    ).toEqual([7]);
    const sizes = Object.fromEntries(slotMaps.map((map) => [map.robot, [map.state.length, map.actions.length]]));
    expect(sizes).toEqual({
      ur5e: [7, 7],
      ur5e_dual: [14, 14],
      franka: [8, 8],
      trossen: [14, 14],
      trossen_mobile: [14, 16],
      arx: [14, 14],
      arx_mobile: [14, 16],
      fibocom_mobile: [14, 17],
      droid: [8, 8],
      libero: [8, 7],
      bridge: [7, 7],
    });
    for (const map of slotMaps) checkSlotMap(map, dataset(map.actions.length, map.state.length));
    expect(() => slotMapNamed('r2d2')).toThrow(
      new InputError(`no slot map of robot "r2d2"; there are ${slotMaps.map(({ robot }) => robot).join(', ')}`),
    );
  });

  test('to the padded vector and back, and masks of the real dimensions', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...slotMaps),
        fc.nat(5),
        fc.integer({ min: 0, max: 1e6 }),
        ({ actions, width }, rows, seed) => {
          const values = Float32Array.from({ length: rows * actions.length }, (_, i) => Math.sin(seed + i));
          const padded = toSlots(values, actions, width);
          expect(padded.length).toBe(rows * 32);
          expect(fromSlots(padded, actions, width)).toEqual(values);
          const mask = slotMask(actions, width);
          expect(mask.reduce((sum, one) => sum + one, 0)).toBe(actions.length);
          padded.forEach((value, i) => {
            if (!mask[i % width]) expect(value).toBe(0);
          });
        },
      ),
      { seed: 3 },
    );
  });

  test('relative to the state at the start, grippers absolute, and back', () => {
    const { actions } = slotMapNamed('ur5e');
    const state = [1, 2, 3, 4, 5, 6, 0.5];
    const chunk = Float32Array.from([...state, 2, 3, 4, 5, 6, 7, 1]);
    const mask = actions.map((slot) => slot.relative);
    const relative = relativeActions(chunk, state, mask);
    expect([...relative]).toEqual([0, 0, 0, 0, 0, 0, 0.5, 1, 1, 1, 1, 1, 1, 1]);
    expect(absoluteActions(relative, state, mask)).toEqual(chunk);
  });

  test('statistics of relative chunks are those of the chunks that are trained on', async () => {
    const episode = episodeOf('e', [[1], [2], [4], [8]]); // states are ten times the actions
    const statistics = await measureStatistics([{ episode, from: 1, to: 4 }], relativeChunks(2, [true]));
    const rows = [2 - 20, 4 - 20, 4 - 40, 8 - 40, 8 - 80];
    expect(statistics.actions).toEqual(columnStatistics([Float32Array.from(rows)], 1));
    expect(statistics.states!.mean).toEqual([140 / 3]);
    const blind = { ...episode, states: null };
    await expect(measureStatistics(wholeEpisodes([blind]), relativeChunks(2, [true]))).rejects.toThrow(
      '"e" has no state',
    );
  });

  test('a map of one data set, and maps that do not fit', () => {
    const own = ownSlotMap({ ...dataset(2, 3), actionNames: ['x', 'left_gripper'] });
    expect(own.actions.map(({ name, kind }) => [name, kind === 'gripper'])).toEqual([
      ['x', false],
      ['left_gripper', true],
    ]);
    checkSlotMap(own, dataset(2, 3));
    expect(() => checkSlotMap(own, dataset(4, 3))).toThrow('2 action slots, data set "made" has 4 action dimensions');
    const [first, second] = own.actions;
    const broken = (actions: readonly (typeof first)[]) => () => checkSlotMap({ ...own, actions }, dataset(2, 3));
    expect(broken([first, { ...second, slot: 0 }])).toThrow('action "left_gripper" has slot 0');
    expect(broken([first, { ...second, slot: 3 }])).toThrow('has slot 3: each has one of its own from 0 to 2');
    expect(broken([first, { ...second, relative: true }])).toThrow('is a gripper and relative');
    const stateless = { ...own, state: [], actions: [{ ...first, relative: true }, second] };
    expect(() => checkSlotMap(stateless, dataset(2, 0))).toThrow('action "x" is relative to no state');
  });
});

describe("openpi's norm_stats.json", async () => {
  const statistics = await measureStatistics(wholeEpisodes(datasetOf([6, 9]).episodes));
  const json = () => JSON.parse(JSON.stringify(toNormStats(statistics)));

  test('written and read', () => {
    expect(Object.keys(json().norm_stats)).toEqual(['state', 'actions']);
    expect(Object.keys(json().norm_stats.actions)).toEqual(['mean', 'std', 'q01', 'q99']);
    const back = fromNormStats(json(), 'norm_stats.json');
    const { mean, std, q01, q99 } = statistics.actions;
    expect(back.actions).toEqual({ count: 0, mean, std, q01, q99, min: q01, max: q99 });
    expect(back.states!.q99).toEqual(statistics.states!.q99);
    checkStatistics(back, dataset(2, 2), 'x');
    expect(() => checkStatistics(back, dataset(7, 2), 'a/norm_stats.json')).toThrow(
      new InputError(
        'a/norm_stats.json: statistics of 2 dimensions of actions, data set "made" has 7: of another robot?',
      ),
    );
    const padded = (statistics: object) =>
      Object.fromEntries(Object.entries(statistics).map(([key, list]) => [key, [...list, ...Array(30).fill(0)]]));
    const { state, actions } = json().norm_stats;
    const wide = fromNormStats({ norm_stats: { state: padded(state), actions: padded(actions) } }, 'norm_stats.json');
    expect(withoutPadding(wide, dataset(2, 2))).toEqual(back);
    expect(withoutPadding(wide, dataset(3, 2)).actions).toEqual(wide.actions); // for a robot of fewer dimensions
    expect(withoutPadding(back, dataset(1, 2)).actions).toEqual(back.actions);
    expect(() => checkStatistics(back, dataset(2, 3), 'a')).toThrow('2 dimensions of states, data set "made" has 3');
  });

  // biome-ignore lint/suspicious/noExplicitAny: JSON of a file
  test.each<[string, (value: any) => unknown, string]>([
    ['a list', () => [], '"norm_stats": missing'],
    ['no actions', (value) => ({ norm_stats: { state: value.norm_stats.state } }), '"norm_stats.actions": missing'],
    [
      'no quantiles',
      (v) => Object.assign(v, { norm_stats: { actions: { ...v.norm_stats.actions, q01: null } } }),
      'compute_norm_stats.py writes them: "norm_stats.actions.q01": expected array, got null',
    ],
    [
      'a short list',
      (v) => Object.assign(v, { norm_stats: { actions: { ...v.norm_stats.actions, std: [1] } } }),
      '"norm_stats.actions": expected lists of the same length',
    ],
    [
      'a number that is none',
      (v) => Object.assign(v, { norm_stats: { actions: { ...v.norm_stats.actions, q99: [1, null] } } }),
      '"norm_stats.actions.q99[1]": expected a number that f32 holds, got null',
    ],
    [
      'a number beyond f32',
      (v) => Object.assign(v, { norm_stats: { actions: { ...v.norm_stats.actions, std: [1, 1e39] } } }),
      '"norm_stats.actions.std[1]": expected a number that f32 holds, got 1e+39',
    ],
    [
      'turned',
      (v) => Object.assign(v, { norm_stats: { actions: { ...v.norm_stats.actions, q99: [-1, 99] } } }),
      '"norm_stats.actions": expected "q01" to be nowhere above "q99"',
    ],
  ])('%s', (_, change, message) => {
    expect(() => fromNormStats(change(json()), 'n.json')).toThrow(InputError);
    expect(() => fromNormStats(change(json()), 'n.json')).toThrow(message);
  });
});
