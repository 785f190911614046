import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encode as encodePng } from 'fast-png';
import { beforeAll, describe, expect, test } from 'vitest';
import { InputError } from '../../engine/files/errors.ts';
import {
  evaluationSamples,
  instructionsAt,
  measureStatistics,
  openDataset,
  TrainingSampler,
  wholeEpisodes,
  withParaphrases,
} from '../../model/data/index.ts';
import { writeLeRobot } from '../../model/data/lerobot/writer.ts';
import { TableWriter } from '../../model/data/parquet/writer.ts';
import { column, filesOf, jsonOf, listColumns, rows, source } from './lerobot-files.ts';
import { type Files, folderOf, gradientImage, replacingValues, text } from './synthetic.ts';

let written: Files;
beforeAll(async () => {
  written = await filesOf(source());
});

describe('written and read', () => {
  test('every number, instruction and image', async () => {
    const dataset = await openDataset(folderOf(new Map(written)));
    const expected = source();
    expect(dataset.description).toBe(
      'LeRobot data set, version 3.0 (made): 3 episodes, 13 steps at 20 Hz, cameras top, wrist',
    );
    const { name, rate, actionDimension, stateDimension, cameras, actionNames } = dataset;
    expect([name, rate, actionDimension, stateDimension, cameras, actionNames]).toEqual([
      'folder',
      20,
      3,
      3,
      ['top', 'wrist'],
      ['x', 'y', 'gripper'],
    ]);
    for (const [e, episode] of dataset.episodes.entries()) {
      const own = expected.episodes[e];
      expect(episode.actions).toEqual(own.actions);
      expect(episode.states).toEqual(own.states);
      expect(episode.instructions).toEqual(own.instructions);
      expect(await episode.image('top', -1)).toBeNull();
      expect(await episode.image('side', 0)).toBeNull();
      for (const step of [0, 1, own.length - 1, own.length + 5]) {
        const { width, height } = (await episode.image('wrist', step))!;
        expect([width, height]).toEqual([8, 10]);
      }
    }
    expect(await dataset.episodes[0].image('wrist', 2)).toEqual(gradientImage(8, 10));
    expect(await dataset.episodes[0].image('wrist', 0)).toEqual(gradientImage(8, 10));
  });

  test('its own name chooses it, and another one is refused', async () => {
    expect((await openDataset(folderOf(written), 'folder')).name).toBe('folder');
    await expect(openDataset(folderOf(written), 'nonsense')).rejects.toThrow(
      new InputError(
        'folder: it holds one data set, "folder", and none named "nonsense"; --dataset is for folders of several: leave it out',
      ),
    );
  });

  test('cameras by name or by the key of their feature', async () => {
    const chosen = async (cameras: string[]) =>
      (await openDataset(folderOf(new Map(written)), undefined, { cameras })).cameras;
    expect(await chosen(['wrist'])).toEqual(['wrist']);
    expect(await chosen(['observation.images.wrist'])).toEqual(['wrist']);
    const { description } = await openDataset(folderOf(new Map(written)), undefined, { cameras: [] });
    expect(description).toBe('LeRobot data set, version 3.0 (made): 3 episodes, 13 steps at 20 Hz, cameras not read');
    await expect(chosen(['images.wrist'])).rejects.toThrow('no camera "images.wrist"; it has top, wrist');
    await expect(chosen(['top', 'top'])).rejects.toThrow('camera "top" is named twice');
    await expect(chosen(['top', 'observation.images.top'])).rejects.toThrow(
      'camera "observation.images.top" is named twice',
    );
  });

  test.each([5, 20])('a rate of %d Hz beside its own is refused', async (rate) => {
    await expect(openDataset(folderOf(written), undefined, { rate })).rejects.toThrow(
      /^folder: the data set says 20 Hz itself; leave --rate out$/,
    );
  });

  test('on disk, never over another', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'insula-lerobot-'));
    try {
      await writeLeRobot(join(folder, 'mine'), source());
      const dataset = await openDataset(join(folder, 'mine'));
      expect([dataset.name, dataset.episodes.length]).toEqual(['mine', 3]);
      await expect(writeLeRobot(join(folder, 'mine'), source())).rejects.toThrow('a LeRobot data set is there already');
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test('numbers left on disk are read when an episode is loaded, with the same statistics', async () => {
    const held = await openDataset(folderOf(written));
    const streamed = await openDataset(folderOf(written), undefined, { memory: 100 });
    expect(streamed.description).toMatch(/numbers read as they are needed$/);
    const [first] = streamed.episodes;
    expect(() => first.actions).toThrow('the numbers of episode "episode_000000" are on disk');
    expect((await first.load!()).actions).toEqual(held.episodes[0].actions);
    const parts = [{ episode: streamed.episodes[1], from: 1, to: 5 }, ...wholeEpisodes([streamed.episodes[2]])];
    const same = [{ episode: held.episodes[1], from: 1, to: 5 }, ...wholeEpisodes([held.episodes[2]])];
    expect(await measureStatistics(parts)).toEqual(await measureStatistics(same));
  });

  test('meta/info.json and meta/stats.json as LeRobot writes them', () => {
    const info = jsonOf(written, 'meta/info.json');
    expect([info.codebase_version, info.total_episodes, info.total_frames, info.total_tasks, info.splits]).toEqual([
      'v3.0',
      3,
      13,
      5,
      { train: '0:3' },
    ]);
    expect(info.features.action).toEqual({ dtype: 'float32', shape: [3], names: ['x', 'y', 'gripper'] });
    expect(info.features['observation.images.top']).toEqual({
      dtype: 'image',
      shape: [6, 8, 3],
      names: ['height', 'width', 'channels'],
    });
    expect(info.features.task_index).toEqual({ dtype: 'int64', shape: [1], names: null });
    const stats = jsonOf(written, 'meta/stats.json');
    const column = [...rows(4, 0), ...rows(6, 10), ...rows(3, 20)].map(([x]) => x).sort((a, b) => a - b);
    const { min, max, mean, q50, count } = stats.action;
    expect([min[0], max[0], q50[0], count]).toEqual([0, 22, column[6], [13]]);
    expect(mean[0]).toBeCloseTo(column.reduce((sum, x) => sum + x, 0) / 13, 12);
    expect(stats['observation.images.top'].mean[2][0][0]).toBeGreaterThan(0.2);
    expect(stats['observation.images.top'].count).toEqual([13]);
    // LeRobot needs the statistics of every column to extend a data set.
    expect([stats.index.max, stats.frame_index.q50, stats.task_index.count]).toEqual([[12], [2], [13]]);
  });
});

/** Makes a data set of version 2.1: one file for each episode, images as files beside them, the keys of openpi. */
function version2(): Files {
  const files: Files = new Map();
  const lengths = [3, 5];
  const feature = (dtype: string, shape: number[], names: unknown = null) => ({ dtype, shape, names });
  const features = {
    state: feature('float64', [2], { motors: ['a', 'b'] }),
    actions: feature('float32', [1]),
    image: feature('image', [4, 4, 3]),
    depth: { ...feature('video', [4, 4, 3]), info: { 'video.is_depth_map': true } },
    timestamp: feature('float32', [1]),
    episode_index: feature('int64', [1]),
  };
  const info = {
    codebase_version: 'v2.1',
    robot_type: null,
    total_episodes: 2,
    total_frames: 8,
    chunks_size: 1,
    fps: 10,
    data_path: 'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet',
    video_path: 'videos/{video_key}/{episode_index}.mp4',
    features,
  };
  files.set('meta/info.json', text(info));
  const lines = lengths.map((length, i) => JSON.stringify({ episode_index: i, tasks: [`task ${i}`], length }));
  files.set('meta/episodes.jsonl', text(`${lines.reverse().join('\n')}\n\n`));
  lengths.forEach((length, e) => {
    const steps = Array.from({ length }, (_, step) => step);
    const table = new TableWriter([
      column('state', 'float64', 1),
      column('actions', 'float32'),
      column('timestamp', 'float32'),
      column('episode_index'),
      column('image', 'image'),
    ]);
    const path = (step: number) => `images/image/${e}/${step}.png`;
    table.append({
      state: steps.map((step) => [step, e]),
      actions: steps.map((step) => step / 2),
      timestamp: steps.map((step) => step / 10),
      episode_index: steps.map(() => e),
      image: steps.map((step) => ({ bytes: new Uint8Array(0), path: path(step) })),
    });
    files.set(`data/chunk-00${e}/episode_00000${e}.parquet`, table.finish().slice());
    for (const step of steps) {
      const data = new Uint8Array(48).fill(step * 10 + e);
      const png = encodePng({ width: 4, height: 4, data, channels: 3, depth: 8 });
      files.set(path(step), png);
    }
  });
  return files;
}

test('version 2.1, images as files, the keys of openpi', async () => {
  const dataset = await openDataset(folderOf(version2()));
  expect([dataset.rate, dataset.actionDimension, dataset.stateDimension, dataset.cameras]).toEqual([
    10,
    1,
    2,
    ['image'],
  ]);
  const [first, second] = dataset.episodes;
  expect([first.length, second.length, second.instructions]).toEqual([3, 5, ['task 1']]);
  expect([...second.actions]).toEqual([0, 0.5, 1, 1.5, 2]);
  expect([...second.states!]).toEqual([0, 1, 1, 1, 2, 1, 3, 1, 4, 1]);
  expect((await second.image('image', 3))!.pixels[0]).toBe(31);
});

test('an instruction that changes during an episode', async () => {
  const [first, ...others] = source().episodes;
  const spoken = ['task 0', 'other words 0'];
  const changing = { ...first, instructionsAt: (step: number) => [spoken[step < 3 ? 0 : 1]] };
  const files = await filesOf({ ...source(), cameras: [], episodes: [changing, ...others] });
  const { episodes } = await openDataset(folderOf(files));
  expect(episodes.map((episode) => Boolean(episode.instructionsAt))).toEqual([true, false, false]);
  expect(episodes[0].instructions).toEqual(spoken);
  const paraphrased = withParaphrases({ ...source(), episodes }, new Map([['task 0', ['the first']]]));
  expect(instructionsAt(paraphrased.episodes[0], 2)).toEqual(['task 0', 'the first']);
  expect(instructionsAt(paraphrased.episodes[0], 3)).toEqual(['other words 0']);
  const samples = evaluationSamples(wholeEpisodes([episodes[0]]));
  expect(samples.map(({ instruction }) => instruction)).toEqual(['task 0', 'task 0', 'task 0', 'other words 0']);
  const sampler = new TrainingSampler(wholeEpisodes([episodes[0]]), 1);
  for (const { step, instruction } of sampler.batch(0, 20)) expect(instruction).toBe(spoken[step < 3 ? 0 : 1]);

  const old = version2();
  const list = (tasks: string[]) => tasks.map((task, i) => JSON.stringify({ task_index: i, task })).join('\n');
  old.set('meta/tasks.jsonl', text(list(['reach', 'pull'])));
  const lines = [3, 5].map((length, i) => JSON.stringify({ episode_index: i, tasks: ['pull', 'reach'], length }));
  old.set('meta/episodes.jsonl', text(lines.join('\n')));
  const table = new TableWriter([column('actions', 'float32'), column('state', 'float64', 1), column('task_index')]);
  table.append({
    actions: [0, 1, 2],
    state: [
      [0, 0],
      [0, 0],
      [0, 0],
    ],
    task_index: [0, 1, 1],
  });
  old.set('data/chunk-000/episode_000000.parquet', table.finish().slice());
  const second = new TableWriter([column('actions', 'float32'), column('state', 'float64', 1), column('task_index')]);
  const steps = [0, 1, 2, 3, 4];
  second.append({ actions: steps, state: steps.map(() => [0, 0]), task_index: steps.map(() => 1) });
  old.set('data/chunk-001/episode_000001.parquet', second.finish().slice());
  const dataset = await openDataset(folderOf(old));
  expect([0, 1, 2].map((step) => instructionsAt(dataset.episodes[0], step))).toEqual([['reach'], ['pull'], ['pull']]);
  expect(instructionsAt(dataset.episodes[1], 0)).toEqual(['pull', 'reach']);
  old.set('meta/tasks.jsonl', text(list(['reach'])));
  await expect(openDataset(folderOf(old))).rejects.toThrow('"task_index" is 1');
});

describe('an instruction that is missing is none', () => {
  const old = (lines: object[], tasks: unknown[], taskIndex: number[] | null) => {
    const files = version2();
    files.set('meta/episodes.jsonl', text(lines.map((line) => JSON.stringify(line)).join('\n')));
    files.set('meta/tasks.jsonl', text(tasks.map((task, i) => JSON.stringify({ task_index: i, task })).join('\n')));
    const table = new TableWriter([
      column('actions', 'float32'),
      column('state', 'float64', 1),
      ...(taskIndex ? [column('task_index')] : []),
    ]);
    const [actions, state] = [[0, 1, 2], [0, 1, 2].map(() => [0, 0])];
    table.append({ actions, state, ...(taskIndex && { task_index: taskIndex }) });
    files.set('data/chunk-000/episode_000000.parquet', table.finish());
    if (taskIndex) {
      const other = new TableWriter([
        column('actions', 'float32'),
        column('state', 'float64', 1),
        column('task_index'),
      ]);
      const steps = [0, 1, 2, 3, 4];
      const pull = steps.map(() => tasks.indexOf('pull'));
      other.append({ actions: steps, state: steps.map(() => [0, 0]), task_index: pull });
      files.set('data/chunk-001/episode_000001.parquet', other.finish());
    }
    return openDataset(folderOf(files));
  };
  const second = { episode_index: 1, tasks: ['pull'], length: 5 };

  test.each<[string, unknown, unknown[], number[] | null, string[][]]>([
    ['an empty text', [''], ['', 'pull'], [0, 0, 0], [[], [], []]],
    ['white space', [' \t'], [' \t', 'pull'], [0, 0, 0], [[], [], []]],
    ['null, and null in its list', [null], [null, 'pull'], [0, 0, 0], [[], [], []]],
    ['no list, no column of tasks', undefined, ['reach'], null, [[], [], []]],
    ['no list: the steps name theirs', undefined, ['reach', 'pull'], [1, 1, 1], [['pull'], ['pull'], ['pull']]],
    ['an empty list: the steps name theirs', [], ['reach', '', 'pull'], [0, 0, 1], [['reach'], ['reach'], []]],
    ['a list with an empty text, some steps of it', ['', 'pull'], ['', 'pull'], [0, 1, 1], [[], ['pull'], ['pull']]],
    ['a text in place of a list', ' pull ', ['pull'], [0, 0, 0], [['pull'], ['pull'], ['pull']]],
  ])('version 2: %s', async (_, listed, tasks, taskIndex, expected) => {
    const { episodes } = await old([{ episode_index: 0, tasks: listed, length: 3 }, second], tasks, taskIndex);
    expect([0, 1, 2].map((step) => instructionsAt(episodes[0], step))).toEqual(expected);
    expect(episodes[0].instructions).toEqual([...new Set(expected.flat())]);
    expect(evaluationSamples(wholeEpisodes([episodes[0]]))[0].instruction).toBe(expected[0][0] ?? null);
    expect(episodes[1].instructions).toEqual(['pull']);
  });

  test('version 3: null, or no list at all', async () => {
    const files = await filesOf({ ...source(), cameras: [] });
    const path = 'meta/episodes/chunk-000/file-000.parquet';
    const numbers = [
      [0, 1, 2],
      [4, 6, 3],
      [0, 4, 10],
      [4, 10, 13],
      [0, 0, 0],
      [0, 0, 0],
    ];
    const listing = async (tasks: unknown[] | null) => {
      const table = new TableWriter([
        ...listColumns.map((name) => column(name)),
        ...(tasks ? [column('tasks', 'string', 1)] : []),
      ]);
      table.append({
        ...Object.fromEntries(listColumns.map((name, i) => [name, numbers[i]])),
        ...(tasks && { tasks }),
      });
      const { episodes } = await openDataset(folderOf(new Map(files).set(path, table.finish())));
      return episodes.map(({ instructions }) => instructions);
    };
    expect(await listing([['a'], [''], null])).toEqual([['task 0'], ['task 1'], []]);
    expect(await listing(null)).toEqual([['task 0'], ['task 1'], []]);
  });

  test('a robot without a name', async () => {
    const files = version2();
    files.set('meta/info.json', text({ ...jsonOf(files, 'meta/info.json'), robot_type: '' }));
    expect((await openDataset(folderOf(files))).description).toMatch(/^LeRobot data set, version 2.1: 2 episodes/);
  });
});

describe('bad input', () => {
  const info = (files: Files, change: Record<string, unknown>) =>
    files.set('meta/info.json', text({ ...jsonOf(files, 'meta/info.json'), ...change }));
  const feature = (files: Files, key: string, change: Record<string, unknown>) => {
    const { features } = jsonOf(files, 'meta/info.json');
    info(files, { features: { ...features, [key]: { ...features[key], ...change } } });
  };
  const cut = (files: Files, path: string, bytes: number) => files.set(path, files.get(path)!.slice(0, -bytes));
  const data = 'data/chunk-000/file-000.parquet';
  const list = 'meta/episodes/chunk-000/file-000.parquet';

  test.each<[string, (files: Files) => unknown, string]>([
    ['not JSON', (f) => f.set('meta/info.json', text('{')), 'folder/meta/info.json: not a JSON file, or cut off'],
    [
      'old version',
      (f) => info(f, { codebase_version: 'v1.6' }),
      `"codebase_version": expected 2.0, 2.1 or 3.0, to which LeRobot's own scripts convert, got "v1.6"`,
    ],
    ['no rate', (f) => info(f, { fps: 0 }), 'folder/meta/info.json: "fps": expected a number above 0, got 0'],
    ['no features', (f) => info(f, { features: [] }), '"features": expected a JSON object, got []'],
    ['no action', (f) => feature(f, 'action', { dtype: 'string' }), 'no field is known to be the action'],
    [
      'a shape that lies',
      (f) => feature(f, 'action', { shape: [4] }),
      'column "action" does not hold 4 numbers in row 0',
    ],
    [
      'a shape beyond all',
      (f) => feature(f, 'action', { shape: [1e6, 1e6] }),
      'column "action" does not hold 1000000000000 numbers in row 0',
    ],
    [
      'a shape of words',
      (f) => feature(f, 'action', { shape: ['3'] }),
      '"features.action.shape[0]": expected number, got "3"',
    ],
    ['too many episodes', (f) => info(f, { total_episodes: 4 }), '"total_episodes" is 4, its list of episodes has 3'],
    ['too few episodes', (f) => info(f, { total_episodes: 2 }), 'has 3 rows, folder/meta/info.json says 2 episodes'],
    ['other steps', (f) => info(f, { total_frames: 14 }), '"total_frames" is 14, its episodes have 13 steps'],
    ['a path of elsewhere', (f) => info(f, { data_path: '../x.parquet' }), "leads out of the data set's folder"],
    ['an unknown field', (f) => info(f, { data_path: '{x}.parquet' }), 'path "{x}.parquet" asks for {x}'],
    ['no data file', (f) => f.delete(data), `folder/${data}: cannot open it`],
    ['data file cut off', (f) => cut(f, data, 9), `folder/${data}: cut off, or not a parquet file`],
    [
      'data file empty',
      (f) => f.set(data, text('PAR1')),
      `folder/${data}: cut off, or not a parquet file: fetch it again (4 bytes)`,
    ],
    ['episodes cut off', (f) => cut(f, list, 1), `folder/${list}: cut off, or not a parquet file`],
    ['another rate', (f) => info(f, { fps: 30 }), 'episode "episode_000000": "timestamp" advances by 0.05'],
    [
      'another list',
      (f) => f.set(list, f.get(data)!),
      `folder/${list}: has 13 rows, folder/meta/info.json says 3 episodes`,
    ],
  ])('%s', async (_, change, message) => {
    const files = new Map(written);
    change(files);
    const error = await openDataset(folderOf(files)).catch((error) => error);
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toContain(message);
    expect(error.message).not.toContain('\n');
  });

  test.each<[string, (files: Files) => unknown, string]>([
    ['a line that is no JSON', (f) => f.set('meta/episodes.jsonl', text('\n{')), 'line 2 is not JSON, or cut off'],
    [
      'an empty episode',
      (f) => f.set('meta/episodes.jsonl', text('{"episode_index":0,"tasks":[],"length":0}')),
      '"length": expected a whole number from 1, got 0',
    ],
    [
      'fewer rows',
      (f) => f.set('data/chunk-001/episode_000001.parquet', f.get('data/chunk-000/episode_000000.parquet')!),
      'has 3 rows, meta/episodes.jsonl says 5 steps',
    ],
  ])('version 2.1: %s', async (_, change, message) => {
    const files = version2();
    change(files);
    await expect(openDataset(folderOf(files))).rejects.toThrow(message);
  });

  test('rows of another episode, NaN and null', async () => {
    const broken = async (change: (row: Record<string, unknown[]>) => void) => {
      const files = version2();
      const steps = [0, 1, 2];
      const table = new TableWriter([
        column('state', 'float64', 1),
        column('actions', 'float32'),
        column('episode_index'),
      ]);
      const row = { state: steps.map((s) => [s, 0]), actions: steps as unknown[], episode_index: steps.map(() => 0) };
      change(row);
      table.append(row);
      files.set('data/chunk-000/episode_000000.parquet', table.finish().slice());
      const error = await openDataset(folderOf(files)).catch((error) => error);
      return (error as Error).message;
    };
    const file = 'folder/data/chunk-000/episode_000000.parquet';
    expect(await broken((row) => row.episode_index.fill(1, 2))).toBe(
      `${file}: column "episode_index" is 1 in row 2, episode 0 was expected there`,
    );
    expect(await broken((row) => row.actions.fill(Number.NaN, 1, 2))).toBe(
      `${file}, rows 0 to 2: episode "episode_000000": "actions", step 1, dimension 0 is NaN: repair or leave out the episode`,
    );
    expect(await broken((row) => row.actions.fill(null, 1, 2))).toBe(
      `${file}: column "actions" has an empty place in row 1, place 0 of 1`,
    );
    expect(await broken((row) => row.state.fill([1], 1, 2))).toBe(
      `${file}: column "state" does not hold 2 numbers in row 1`,
    );
  });
});

test('with any value in the JSON files, a data set opens or is refused in one line', async () => {
  const open = (files: Files) => openDataset(folderOf(files));
  await replacingValues(written, 'meta/info.json', open, 300);
  const old = version2();
  await replacingValues(old, 'meta/info.json', open, 300);
  old.set('meta/episodes.jsonl', text({ episode_index: 0, tasks: ['a', 'b'], length: 3 }));
  old.set('meta/info.json', text({ ...jsonOf(old, 'meta/info.json'), total_episodes: 1, total_frames: 3 }));
  await replacingValues(old, 'meta/episodes.jsonl', open, 200);
});

const shared = join(import.meta.dirname, '../../../shared/data/original/gr1_parquet');
const there = existsSync(shared);
test.skipIf(!there)(`a file of GR00T's own${there ? '' : ' (skipped: ../shared is not there)'}`, async () => {
  const files: Files = new Map([
    ['data/chunk-000/episode_000000.parquet', await readFile(join(shared, 'episode_000000.parquet'))],
    ['meta/episodes.jsonl', text({ episode_index: 0, tasks: ['pick the pear'], length: 416 })],
  ]);
  const info = JSON.parse(await readFile(join(shared, 'info.json'), 'utf8'));
  files.set('meta/info.json', text({ ...info, total_episodes: 1, total_frames: 416 }));
  const dataset = await openDataset(folderOf(files), undefined, { cameras: [] });
  const own = await openDataset(join(shared, '../..'), 'gr1_sim');
  expect([dataset.rate, dataset.actionDimension]).toEqual([20, 44]);
  expect(dataset.episodes[0].actions).toEqual(own.episodes[0].actions);
  expect(dataset.episodes[0].states).toEqual(own.episodes[0].states);
});
