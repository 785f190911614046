import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Progress } from '../bench/progress.ts';
import { chooseData } from '../bench/train.ts';
import type { DataOptions } from '../bench/train-options.ts';
import { actionsFile, message, rows } from './data/synthetic.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-mixture-'));
  const datasets: Record<string, unknown> = {};
  for (const [name, width, rate] of [
    ['seven', 7, 5],
    ['three', 3, 5],
    ['fast', 3, 10],
  ] as const) {
    const tables = ['action', 'state'].map((kind, i) => [`ep0/${kind}`, rows(6, width, i)]);
    await writeFile(join(folder, `${name}.safetensors`), await actionsFile(Object.fromEntries(tables)));
    datasets[name] = { control_hz: rate, actions: `${name}.safetensors`, episodes: [{ id: 'ep0', steps: 6 }] };
  }
  await writeFile(join(folder, 'index.json'), JSON.stringify({ format: 1, datasets }));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

class Silent extends Progress {
  override note(): void {}
}
const choose = (options: DataOptions, usual?: string) =>
  chooseData({ data: folder, ...options }, { episodes: 1, seed: 0, usual }, new Silent());

describe('data sets with commas between', () => {
  test('are a mixture of robots, wherever each lies', async () => {
    for (const mixed of [
      await choose({ dataset: 'seven, three' }),
      await choose({ data: `${folder},${folder}`, dataset: 'seven,three' }),
      await choose({}, 'seven,three'),
    ]) {
      expect(mixed).toMatchObject({ name: 'seven,three', rate: 5, actionDimension: 7, stateDimension: 7 });
      expect(mixed.episodes.map(({ robot }) => robot)).toEqual(['seven', 'three']);
      expect(mixed.robots!.three.actions.map(({ slot }) => slot)).toEqual([0, 1, 2]);
      expect(mixed.episodes[1].actions.length).toBe(6 * 3);
    }
  });

  test('robots by name: their slots, and one robot of two data sets', async () => {
    const one = await choose({ dataset: 'seven', robot: 'ur5e' });
    expect(one).toMatchObject({ name: 'seven', actionDimension: 32 });
    expect(Object.keys(one.robots!)).toEqual(['ur5e']);
    const twice = await choose({ dataset: 'seven,seven', robot: 'ur5e' });
    expect(twice.episodes.map(({ robot }) => robot)).toEqual(['ur5e', 'ur5e']);
    const plain = await choose({ dataset: 'seven' });
    expect(plain.robots).toBeUndefined();
  });

  test.each<[DataOptions, string]>([
    [{ dataset: 'seven,fast' }, '"seven" has 5 Hz, "fast" 10: a chunk would last another time in each'],
    [{ dataset: 'seven,three', robot: 'ur5e' }, 'slot map "ur5e": 7 action slots, data set "three" has 3'],
    [{ dataset: 'seven,three', robot: 'ur5e,droid,arx' }, '--robot: 3 for 2 data sets'],
    [{ dataset: 'seven', robot: 'r2d2' }, 'no slot map of robot "r2d2"'],
    [{ data: undefined, robot: 'ur5e' }, '--robot: say where its data lie with --data FOLDER'],
  ])('what does not fit is one line: %o', async (options, words) => {
    expect(await message(choose(options))).toContain(words);
  });
});
