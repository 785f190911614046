import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { InputError } from '../../engine/files/errors.ts';
import type { Dataset } from '../../model/data/dataset.ts';
import {
  chooseHorizon,
  chunk,
  evaluationSamples,
  measureStatistics,
  normalisers,
  openDataset,
  splitDataset,
} from '../../model/data/index.ts';
import { actionsFile, encodeJpeg, type Files, folderOf, gradientImage, replacingValues, text } from './synthetic.ts';

const rows = (count: number, dimension: number, first = 0) =>
  Array.from({ length: count }, (_, step) => Array.from({ length: dimension }, (_, d) => first + step + d / 10));

const tables = {
  'ep0/action': rows(3, 2),
  'ep0/state': rows(4, 3),
  'ep1/action': rows(5, 2, 100),
  'ep1/state': rows(5, 3, 100),
  'ep2/action': rows(2, 2),
};

const index = () => ({
  format: 1,
  datasets: {
    made: {
      control_hz: 5,
      actions: 'actions/made.safetensors',
      images: 'images/made' as unknown,
      episodes: [
        { id: 'ep0', steps: 4, language: ' push it ', language_alternatives: 'push it. Move it to the left. push it.' },
        { id: 'ep1', steps: 5, language: null, language_alternatives: null },
        { id: 'ep2', steps: 2, language: 'turn the 2.5 mm screw' },
      ] as Record<string, unknown>[],
    } as Record<string, unknown>,
    other: {} as Record<string, unknown>,
  },
});

let jpegs: Uint8Array[];
let actions: Uint8Array;
beforeAll(async () => {
  jpegs = await Promise.all([8, 16, 24].map((width) => encodeJpeg(gradientImage(width, 8))));
  actions = await actionsFile(tables);
});

/** Makes a good folder: ep0 has front images at steps 0 and 2 (listed backwards), ep1 a wrist image at step 1, ep2 none. */
function files(): Files {
  const pack = new Uint8Array(jpegs.reduce((size, jpeg) => size + jpeg.length, 0));
  const offsets = jpegs.map((jpeg, i) => {
    const offset = jpegs.slice(0, i).reduce((size, { length }) => size + length, 0);
    pack.set(jpeg, offset);
    return offset;
  });
  const item = (episode: string, step: number, camera: string, i: number) => [
    episode,
    step,
    camera,
    offsets[i],
    jpegs[i].length,
  ];
  const items = [item('ep0', 2, 'front', 1), item('ep0', 0, 'front', 0), item('ep1', 1, 'wrist', 2)];
  return new Map([
    ['index.json', text(index())],
    ['actions/made.safetensors', actions],
    [
      'images/made.json',
      text({ mime: 'image/jpeg', columns: ['episode', 'step', 'camera', 'offset', 'length'], items }),
    ],
    ['images/made.pack', pack],
  ]);
}

describe('a data folder with index.json', () => {
  test('episodes, numbers and instructions', async () => {
    const dataset = await openDataset(folderOf(files()), 'made');
    expect([dataset.name, dataset.rate, dataset.actionDimension, dataset.stateDimension]).toEqual(['made', 5, 2, 3]);
    expect(dataset.cameras).toEqual(['front', 'wrist']);
    const [first, second, third] = dataset.episodes;
    expect([first.id, first.length, second.length, third.length]).toEqual(['ep0', 3, 5, 2]);
    expect(first.actions).toEqual(Float32Array.from(tables['ep0/action'].flat()));
    expect(first.states).toEqual(Float32Array.from(tables['ep0/state'].slice(0, 3).flat())); // one state more than actions
    expect(third.states).toBeNull();
    expect(first.instructions).toEqual(['push it', 'Move it to the left']);
    expect(second.instructions).toEqual([]);
    expect(third.instructions).toEqual(['turn the 2.5 mm screw']);
    expect(dataset.episodes.map(({ cameras }) => cameras)).toEqual([['front'], ['wrist'], []]);
  });

  test('the newest image at or before a step', async () => {
    const { episodes } = await openDataset(folderOf(files()), 'made');
    const widths = async (episode: number, camera: string) =>
      Promise.all([0, 1, 2, 3].map(async (step) => (await episodes[episode].image(camera, step))?.width ?? null));
    expect(await widths(0, 'front')).toEqual([8, 8, 16, 16]);
    expect(await Promise.all([-1, 1, 2].map((step) => episodes[0].imageFile!('front', step)))).toEqual([
      null,
      jpegs[0],
      jpegs[1],
    ]);
    expect(await widths(1, 'wrist')).toEqual([null, 24, 24, 24]);
    expect(await widths(1, 'front')).toEqual([null, null, null, null]);
    expect(await widths(2, 'front')).toEqual([null, null, null, null]);
  });

  test('an instruction that is empty, or only white space, is none', async () => {
    const value = index();
    const texts = [
      { language: '' },
      { language: ' \n', language_alternatives: '' },
      { language_alternatives: ' lift it.  ' },
    ];
    const { made } = value.datasets;
    made.episodes = (made.episodes as Record<string, unknown>[]).map(({ id, steps }, i) => ({
      id,
      steps,
      ...texts[i],
    }));
    const { episodes } = await openDataset(folderOf(files().set('index.json', text(value))), 'made');
    expect(episodes.map(({ instructions }) => instructions)).toEqual([[], [], ['lift it']]);
  });

  test.each([5, 50])('a rate of %d Hz beside its own is refused', async (rate) => {
    await expect(openDataset(folderOf(files()), 'made', { rate })).rejects.toThrow(
      /^folder: the data set says 5 Hz itself; leave --rate out$/,
    );
  });

  test('a set without images', async () => {
    const value = index();
    delete value.datasets.made.images;
    const dataset = await openDataset(folderOf(files().set('index.json', text(value))), 'made');
    expect([dataset.cameras, dataset.episodes[0].cameras, await dataset.episodes[0].image('front', 0)]).toEqual([
      [],
      [],
      null,
    ]);
  });

  test('without cameras no image file is looked for', async () => {
    const all = files();
    for (const name of [...all.keys()]) if (name.startsWith('images/')) all.delete(name);
    const dataset = await openDataset(folderOf(all), 'made', { cameras: [] });
    expect([dataset.cameras, dataset.episodes.length]).toEqual([[], 3]);
    await expect(openDataset(folderOf(all), 'made')).rejects.toThrow('images/made.json');
  });

  const withTables = (part: Record<string, number[][] | undefined>) => async (all: Files) => {
    const kept = Object.entries({ ...tables, ...part }).filter(([, rows]) => rows);
    all.set('actions/made.safetensors', await actionsFile(Object.fromEntries(kept) as Record<string, number[][]>));
  };
  const withImages = (part: Record<string, unknown>) => (all: Files) => {
    const list = JSON.parse(new TextDecoder().decode(all.get('images/made.json')));
    all.set('images/made.json', text({ ...list, ...part }));
  };
  const spoiled = (value: number) => {
    const bad = rows(5, 2);
    bad[3][1] = value;
    return bad;
  };
  test('some cameras only; an unknown one is refused', async () => {
    const every = await openDataset(folderOf(files()), 'made');
    const [first] = every.cameras;
    expect(every.description).toBe(
      `data folder with index.json: 3 episodes, 10 steps at 5 Hz, cameras ${every.cameras.join(', ')}`,
    );
    const none = await openDataset(folderOf(files()), 'made', { cameras: [] });
    expect([none.cameras, ...none.episodes.map(({ cameras }) => cameras)]).toEqual([
      [],
      ...none.episodes.map(() => []),
    ]);
    const one = await openDataset(folderOf(files()), 'made', { cameras: [first] });
    expect(one.cameras).toEqual([first]);
    const seen = one.episodes.findIndex(({ cameras }) => cameras.length > 0);
    expect(await one.episodes[seen].image(first, 0)).toEqual(await every.episodes[seen].image(first, 0));
    expect(one.episodes[0].actions).toEqual(every.episodes[0].actions);
    await expect(openDataset(folderOf(files()), 'made', { cameras: ['rear'] })).rejects.toThrow(
      `data set "made" has no camera "rear"; it has ${every.cameras.join(', ')}`,
    );
  });

  test.each<[string, (all: Files) => unknown, string]>([
    ['no index', (all) => all.delete('index.json'), 'folder: no known data set lies here'],
    [
      'two action dimensions',
      withTables({ 'ep1/action': rows(5, 4) }),
      'episode "ep1": "action" has 4 numbers a step, in the episodes before it 2',
    ],
    [
      'NaN',
      withTables({ 'ep1/action': spoiled(Number.NaN) }),
      'folder/actions/made.safetensors, tensors "ep1/...": episode "ep1": "action", step 3, dimension 1 is NaN',
    ],
    [
      'infinity in a state',
      withTables({ 'ep1/state': spoiled(Number.NEGATIVE_INFINITY) }),
      'episode "ep1": "state", step 3, dimension 1 is -Infinity',
    ],
    [
      'unknown image type',
      withImages({ mime: 'image/tiff' }),
      'folder/images/made.json: "mime": expected one of image/jpeg, image/png, image/webp, got "image/tiff"',
    ],
    [
      'columns missing',
      withImages({ columns: ['episode'] }),
      'folder/images/made.json: "columns": expected a list with',
    ],
    ['no items', withImages({ items: null }), 'folder/images/made.json: "items": expected a list'],
  ])('%s', async (_, change, message) => {
    const all = files();
    await change(all);
    const error = await openDataset(folderOf(all), 'made').catch((error) => error);
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toContain(message);
    expect(error.message).not.toContain('\n');
  });

  test('an unknown data set lists those that exist', async () => {
    await expect(openDataset(folderOf(files()), 'robot')).rejects.toThrow(
      new InputError('folder/index.json: no data set "robot"; there are made, other'),
    );
    await expect(openDataset(folderOf(files()), 'toString')).rejects.toThrow('no data set "toString"');
    await expect(openDataset(folderOf(files()))).rejects.toThrow(
      new InputError('folder/index.json: which data set? Name one with --dataset: made, other'),
    );
    expect((await openDataset(folderOf(files()), undefined, { usual: 'made' })).name).toBe('made');
  });

  test('with any value in the JSON files, a data set opens or is refused in one line', async () => {
    for (const name of ['index.json', 'images/made.json'])
      await replacingValues(files(), name, (all) => openDataset(folderOf(all), 'made'), 300);
  });

  test('a damaged image names file, episode, step and camera', async () => {
    const all = files();
    all.get('images/made.pack')!.fill(0, jpegs[0].length, jpegs[0].length + 40);
    const [first] = (await openDataset(folderOf(all), 'made')).episodes;
    expect((await first.image('front', 1))?.width).toBe(8);
    await expect(first.image('front', 2)).rejects.toThrow(
      /^folder\/images\/made\.pack: the image of episode "ep0", step 2, camera "front": no image file; JPEG, PNG and WebP are read/,
    );
  });
});

const shared = join(import.meta.dirname, '../../../shared/data');
const there = existsSync(shared);
describe.skipIf(!there)(`real data sets${there ? '' : ' (skipped: ../shared is not there)'}`, () => {
  test.each([
    // name, Hz, action, state, episodes, control steps with an action, episodes with language, with images, image size
    ['bridge', 5, 7, 7, 25, 250, 25, 25, '64x64', ['image_0', 'image_1', 'image_2']],
    ['aloha_sim', 50, 14, 14, 4, 1700, 4, 4, '160x120', ['top']],
    ['droid', 15, 8, 8, 100, 32112, 41, 41, '88x50', ['exterior_image_1_left', 'wrist_image_left']],
    ['gr1_sim', 20, 44, 44, 5, 2096, 5, 5, '128x128', ['ego_view']],
    ['g1', 30, 26, 26, 40, 14296, 40, 3, '160x120', ['cam_high']],
    ['adroit_door', 100, 28, 39, 25, 6729, 25, 0, '', []],
    ['pusht', 10, 2, 2, 1, 161, 1, 1, '96x96', ['top']],
    ['umi_cup', 10, 7, 7, 1, 399, 1, 1, '112x112', ['wrist']],
  ])('%s', async (name, rate, action, state, episodes, steps, spoken, seen, size, cameras) => {
    const dataset = await openDataset(shared, name);
    const count = (test: (episode: Dataset['episodes'][number]) => boolean) => dataset.episodes.filter(test).length;
    expect([dataset.rate, dataset.actionDimension, dataset.stateDimension]).toEqual([rate, action, state]);
    expect([dataset.episodes.length, dataset.episodes.reduce((sum, { length }) => sum + length, 0)]).toEqual([
      episodes,
      steps,
    ]);
    expect([count((e) => e.instructions.length > 0), count((e) => e.cameras.length > 0)]).toEqual([spoken, seen]);
    expect(dataset.cameras).toEqual(cameras);
    const first = dataset.episodes.find((episode) => episode.cameras.length > 0);
    for (const camera of first?.cameras ?? []) {
      for (const step of [0, 7, first!.length - 1]) {
        const image = await first!.image(camera, step);
        expect(`${image?.width}x${image?.height}`).toBe(size);
        expect(new Set(image!.pixels).size).toBeGreaterThan(50);
      }
    }

    const { train, heldOut } = splitDataset(dataset);
    const normaliser = normalisers(await measureStatistics(train)).actions;
    const horizon = chooseHorizon(dataset);
    expect(horizon).toBe(rate);
    for (const { part, step } of evaluationSamples(heldOut, 20)) {
      const { data, valid } = chunk(part, step, horizon);
      expect(valid.indexOf(0)).toBe(part.to - step < horizon ? part.to - step : -1);
      const normal = normaliser.normalise(data);
      expect(normal.every((value) => Math.abs(value) < 5)).toBe(true);
      const back = normaliser.denormalise(normal);
      const widest = Math.max(...data.map(Math.abs), 1e-3);
      back.forEach((value, i) => {
        expect(Math.abs(value - data[i])).toBeLessThanOrEqual(widest * 2 ** -20);
      });
    }
  });

  test('droid: actions are the states one step later, paraphrases are told apart', async () => {
    const { episodes } = await openDataset(shared, 'droid');
    for (const { actions, states } of episodes) expect(actions.subarray(0, -8)).toEqual(states!.subarray(8));
    expect(episodes.find(({ id }) => id === 'ep020')!.instructions).toEqual([
      'Slide the black lid off',
      'Open the phone',
      'Slide the cover off the calculator',
    ]);
    expect(Math.max(...episodes.map(({ instructions }) => instructions.length))).toBe(3);
  });

  test('a set of two action spaces says so', async () => {
    await expect(openDataset(shared, 'xarm')).rejects.toThrow('"xarm_push_medium": "action" has 3 numbers a step');
  });
});
