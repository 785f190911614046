import { encode as encodePng } from 'fast-png';
import { describe, expect, test } from 'vitest';
import { leRobot } from '../../model/data/import/lerobot.ts';
import { TableWriter } from '../../model/data/parquet/writer.ts';
import { column, filesOf, jsonOf, listColumns, source as ownSet } from './lerobot-files.ts';
import { fieldsOf, filesFolder, picturesOf, readSource } from './sources.ts';
import { expectClear, type Files, message, replacingValues, text } from './synthetic.ts';

const read = (files: Files) => readSource(leRobot, filesFolder(files));
const lines = (values: readonly unknown[]) => text(values.map((value) => JSON.stringify(value)).join('\n'));
const steps = (length: number) => Array.from({ length }, (_, step) => step);

/** A data set of version 2.1 with one episode of three steps for each list of tasks, and any further columns of the first. */
function version2(
  tasks: readonly unknown[],
  taskIndex: readonly number[] | null,
  table: Record<string, unknown[]> = {},
) {
  const files: Files = new Map();
  const feature = (dtype: string, shape: number[]) => ({ dtype, shape, names: null });
  const features = {
    actions: feature('float32', [2]),
    timestamp: feature('float32', [1]),
    episode_index: feature('int64', [1]),
  };
  const info = {
    codebase_version: 'v2.1',
    total_episodes: tasks.length,
    total_frames: 3 * tasks.length,
    fps: 10,
    data_path: 'data/episode_{episode_index:06d}.parquet',
    features: { ...features, 'observation.images.top': feature('image', [4, 4, 3]) },
  };
  files.set('meta/info.json', text(info));
  files.set('meta/episodes.jsonl', lines(tasks.map((own, i) => ({ episode_index: i, tasks: own, length: 3 }))));
  files.set('meta/tasks.jsonl', lines(['reach', 'pull', ''].map((task, i) => ({ task_index: i, task }))));
  for (const episode of steps(tasks.length)) {
    const rows: Record<string, unknown[]> = {
      actions: steps(3).map((step) => [step, episode]),
      timestamp: steps(3).map((step) => step / 10),
      episode_index: steps(3).map(() => episode),
      ...(taskIndex && { task_index: [...taskIndex] }),
      ...table,
    };
    const kinds: Record<string, Parameters<typeof column>> = {
      actions: ['actions', 'float32', 1],
      timestamp: ['timestamp', 'float32'],
      'observation.images.top': ['observation.images.top', 'image'],
      note: ['note', 'string'],
    };
    const writer = new TableWriter(Object.keys(rows).map((name) => column(...(kinds[name] ?? [name]))));
    writer.append(rows);
    files.set(`data/episode_00000${episode}.parquet`, writer.finish().slice());
  }
  return files;
}
const png = (grey: number, depth: 8 | 16 = 8) =>
  depth === 8
    ? encodePng({ width: 4, height: 4, data: new Uint8Array(48).fill(grey), channels: 3, depth })
    : encodePng({ width: 4, height: 4, data: new Uint16Array(16).fill(grey), channels: 1, depth });

describe('LeRobot data sets', () => {
  test('what is written here comes back: numbers, paraphrases, pictures as ranges of the file', async () => {
    const files = await filesOf(ownSet());
    const { source, episodes, notes } = await read(files);
    expect([source.kind, source.rate, source.count, notes]).toEqual([
      'LeRobot data set, version 3.0 (made)',
      { stated: 20 },
      3,
      [],
    ]);
    const own = ownSet();
    for (const [e, episode] of episodes.entries()) {
      expect(await episode.numbers('action')).toEqual(own.episodes[e].actions);
      expect(await episode.texts('task_index')).toEqual([[...own.episodes[e].instructions]]);
      const top = await picturesOf(filesFolder(files), source, episode, 'observation.images.top');
      expect([top?.kind, top?.pictures.length]).toEqual(['ranges', episode.length]);
    }
    expect(fieldsOf(source)).toMatchObject({
      action: { use: 'action', names: ['x', 'y', 'gripper'] },
      'observation.state': { use: 'state', shape: [3] },
      timestamp: { use: 'time' },
      'observation.images.wrist': { use: 'camera', kind: 'pictures' },
      'meta/stats.json': { kind: 'other', use: null },
    });
    for (const { use, reason } of source.fields) expect(use !== null || Boolean(reason)).toBe(true);
    const later: string[] = [];
    for await (const { id } of source.episodes(2)) later.push(id);
    expect(later).toEqual(['episode_000002']);
  });

  test.each<[string, unknown, number[] | null, string[][]]>([
    ['an empty text', [''], [2, 2, 2], [[]]],
    ['null in its list, the steps name a task', [null], [1, 1, 1], [['pull']]],
    ['another wording in its list', ['PULL'], [1, 1, 1], [['pull']]],
    ['no list', undefined, [0, 0, 0], [['reach']]],
    ['no list, no column', undefined, null, [[]]],
    ['a text in place of a list', ' pull ', null, [['pull']]],
    ['steps of several tasks', ['pull', 'reach'], [0, 1, 2], [['reach'], ['pull'], []]],
    ['a task without words, others in its list', ['', 'pull'], [2, 2, 2], [[]]],
    ['paraphrases', ['pull', 'reach'], [1, 1, 1], [['pull', 'reach']]],
    ['a paraphrase that no table lists', ['pull', 'draw'], [1, 1, 1], [['pull']]],
  ])('instructions: %s', async (_, listed, taskIndex, expected) => {
    const { source, episodes } = await read(version2([listed], taskIndex));
    const field = source.fields.find(({ use }) => use === 'language')!;
    expect(await episodes[0].texts(field.name)).toEqual(expected);
  });

  test('a task that no table lists is refused', async () => {
    const { episodes } = await read(version2([['pull']], [0, 1, 7]));
    expect(await message(episodes[0].texts('task_index'))).toBe(
      'folder/data/episode_000000.parquet: episode 0: "task_index" is 7, which meta/tasks.jsonl does not list',
    );
  });

  test('without a table of tasks the list of episodes gives the instructions, which is said', async () => {
    const files = version2([['reach'], 'pull'], [0, 0, 0]);
    files.delete('meta/tasks.jsonl');
    const { source, episodes, notes } = await read(files);
    expect(fieldsOf(source)).toMatchObject({ tasks: { use: 'language' }, task_index: { use: null } });
    expect(await Promise.all(episodes.map((episode) => episode.texts('tasks')))).toEqual([[['reach']], [['pull']]]);
    expect(notes.join()).toMatch(/no table of their texts: the tasks of the list of episodes are the instructions/);
    const changing = version2([['reach', 'pull']], [0, 1, 1]);
    changing.delete('meta/tasks.jsonl');
    expect(await message((await read(changing)).episodes[0].texts('tasks'))).toMatch(
      /episode_000000\.parquet: episode 0: "task_index" changes at step 1/,
    );
  });

  test('a number of two tasks is refused, and an index of any name holds the texts', async () => {
    const files = version2([['reach']], [0, 0, 0]);
    files.set('meta/tasks.jsonl', lines(['old', 'new'].map((task) => ({ task_index: 0, task }))));
    expect(await message(read(files))).toMatch(/tasks\.jsonl: "task_index" 0 has two texts, "old" and "new"/);
    const own = await filesOf(ownSet());
    const before = await (await read(own)).episodes[0].texts('task_index');
    const table = new TableWriter([column('words', 'string'), column('task_index')]);
    table.append({ words: ['a', 'b', 'c', 'd', 'e', 'f'], task_index: [0, 1, 2, 3, 4, 5] });
    own.set('meta/tasks.parquet', table.finish().slice());
    const after = await (await read(own)).episodes[0].texts('task_index');
    expect([before[0][0], after]).toEqual(['task 0', [['a']]]);
  });

  test('pictures in the column, in files that it names, or missing', async () => {
    const cell = (bytes: Uint8Array | null, path: string) => ({ bytes: bytes ?? new Uint8Array(0), path });
    const top = [cell(png(10), 'a.png'), cell(null, 'other/b.png'), cell(null, '/home/me/images/c.png')];
    const files = version2([['pull']], null, { 'observation.images.top': top });
    files.set('other/b.png', png(20)).set('images/c.png', png(30));
    const values = async (folder: Files) => {
      const { source, episodes, notes } = await read(folder);
      const found = await picturesOf(filesFolder(folder), source, episodes[0], 'observation.images.top');
      return {
        kind: found?.kind,
        steps: found?.steps && [...found.steps],
        sizes: found?.pictures.map((own) => own.length),
        notes,
      };
    };
    const sizes = [10, 20, 30].map((grey) => png(grey).length);
    expect(await values(files)).toEqual({ kind: 'unpack', steps: undefined, sizes, notes: [] });
    const gap = version2([['pull']], null, { 'observation.images.top': [top[0], null, top[0]] });
    expect(await values(gap)).toEqual({
      kind: 'ranges',
      steps: [0, 2],
      sizes: [sizes[0], sizes[0]],
      notes: [
        'folder/data/episode_000000.parquet: episode 0: no picture of "observation.images.top" at 1 of 3 steps, the first at step 1',
      ],
    });
    const lost = version2([['pull']], null, { 'observation.images.top': [top[0], cell(null, 'b.png'), top[0]] });
    expect(await message(values(lost))).toMatch(
      /episode 0: column "observation\.images\.top" names "b\.png" in row 1, which is not in the data set/,
    );
    const named = version2([['pull']], null, { 'observation.images.top': [top[1], top[2], top[1]] });
    named.set('other/b.png', png(20)).set('images/c.png', png(30));
    expect((await values(named)).kind).toBe('files');
    const { source } = await read(version2([['pull']], null));
    expect(fieldsOf(source)['observation.images.top'].reason).toMatch(/info.json lists it, .* has no such column/);
  });

  test('one channel of 16 bits is depth, whatever its name', async () => {
    const cells = steps(3).map((step) => ({ bytes: png(1000 + step, 16), path: 'a.png' }));
    const { source } = await read(version2([['pull']], null, { 'observation.images.top': cells }));
    expect(fieldsOf(source)['observation.images.top']).toMatchObject({ kind: 'depth', use: null });
  });

  test('pictures of what follows, maps of segments and grey of more than 8 bits are no cameras', async () => {
    const files = version2([['reach']], [0, 0, 0]);
    const info = jsonOf(files, 'meta/info.json');
    const video = { dtype: 'video', shape: [4, 4, 3], names: null };
    info.video_path = '{video_key}.mp4';
    info.features['next.observation.image'] = video;
    info.features['observation.images.seg_top'] = video;
    info.features['observation.images.far'] = { ...video, info: { pix_fmt: 'gray12le' } };
    info.features['observation.images.segovia'] = video;
    files.set('meta/info.json', text(info));
    for (const key of Object.keys(info.features)) files.set(`${key}.mp4`, text(''));
    expect(fieldsOf((await read(files)).source)).toMatchObject({
      'next.observation.image': { use: null, reason: 'it is of the next step' },
      'observation.images.seg_top': { use: null, reason: 'a map of segments' },
      'observation.images.far': { kind: 'depth', use: null },
      'observation.images.segovia': { use: 'camera' },
    });
  });

  test.each([0, 1])('a camera stays where the video of episode %d is missing, which is noted', async (missing) => {
    const files = version2([['reach'], ['pull']], [0, 0, 0]);
    const info = jsonOf(files, 'meta/info.json');
    info.video_path = 'videos/{video_key}/{episode_index}.mp4';
    info.features = { ...info.features, 'observation.images.top': { dtype: 'video', shape: [4, 4, 3], names: null } };
    files.set('meta/info.json', text(info));
    const path = (episode: number) => `videos/observation.images.top/${episode}.mp4`;
    files.set(path(1 - missing), text(''));
    const { source, episodes, notes } = await read(files);
    expect(fieldsOf(source)['observation.images.top']).toMatchObject({ use: 'camera' });
    expect(notes.join()).toContain(
      `are not there for 1 of 2 episodes, the first of them episode ${missing} (${path(missing)})`,
    );
    const pictures = await Promise.all(episodes.map((episode) => episode.pictures('observation.images.top')));
    expect(pictures.map((found) => found?.kind ?? null)).toEqual(missing ? ['unpack', null] : [null, 'unpack']);
  });

  test('rows that jump, other parts than "train" and an unknown dtype are named', async () => {
    const files = version2([['reach'], ['pull']], [0, 0, 0], { frame_index: [0, 2, 1] });
    const info = jsonOf(files, 'meta/info.json');
    info.splits = { train: '0:1', val: '1:2' };
    info.features.actions.dtype = '<f4';
    files.set('meta/info.json', text(info));
    const { source, notes } = await read(files);
    expect(notes.filter((line) => line.includes('frame_index'))).toHaveLength(1);
    expect(notes[0]).toMatch(/episode_000000\.parquet: episode 0: "frame_index" is 2 at step 1: rows are missing or/);
    expect(fieldsOf(source)).toMatchObject({
      splits: { use: null, reason: expect.stringMatching(/^the episodes of all are read: .*val/) },
      actions: { use: null, reason: `dtype "<f4" is none of LeRobot's numbers` },
    });
    expect(fieldsOf((await read(version2([['reach']], [0, 0, 0]))).source)).not.toHaveProperty('splits');
  });

  test('every further column and file is named', async () => {
    const files = version2([['pull']], [1, 1, 1], { speed: [1, 2, 3], note: ['a', 'b', 'c'] });
    files.set('videos/left.mp4', text('')).set('README.md', text(''));
    for (const step of steps(9)) files.set(`data/old_${step}.parquet`, text(''));
    const { source, episodes } = await read(files);
    expect(fieldsOf(source)).toMatchObject({
      speed: { kind: 'numbers', shape: [1], use: null, reason: 'info.json does not list it' },
      note: { kind: 'texts', use: null },
      videos: { kind: 'other' },
      'README.md': { kind: 'other' },
      'data: 9 files, such as data/old_0.parquet': { kind: 'other' },
    });
    expect(await episodes[0].texts('note')).toEqual([['a'], ['b'], ['c']]);
    expect([...(await episodes[0].numbers('speed'))]).toEqual([1, 2, 3]);
  });

  test('lists of episodes in several chunks, and a file that holds more or fewer rows', async () => {
    const files = await filesOf(ownSet());
    const list = 'meta/episodes/chunk-000/file-000.parquet';
    const rows = [
      [0, 4, 0, 4, 0, 0],
      [1, 6, 4, 10, 0, 0],
      [2, 3, 10, 13, 0, 0],
    ];
    const write = (path: string, own: number[][]) => {
      const table = new TableWriter(listColumns.map((name) => column(name)));
      table.append(Object.fromEntries(listColumns.map((name, i) => [name, own.map((row) => row[i])])));
      files.set(path, table.finish().slice());
    };
    write(list, rows.slice(0, 2));
    write('meta/episodes/chunk-001/file-000.parquet', rows.slice(2));
    expect((await read(files)).episodes.map(({ length }) => length)).toEqual([4, 6, 3]);
    const info = jsonOf(files, 'meta/info.json');
    files.delete('meta/episodes/chunk-001/file-000.parquet');
    expect(await message(read(files))).toMatch(/"total_episodes" is 3, its list of episodes has 2 episodes/);
    files.set('meta/info.json', text({ ...info, total_episodes: 2, total_frames: 10 }));
    expect(await message(read(files))).toBe(
      'folder/data/chunk-000/file-000.parquet: has 13 rows, the list of episodes says 10',
    );
    files.delete('data/chunk-000/file-000.parquet');
    expectClear(await read(files).catch((error) => error), 'folder/data/chunk-000/file-000.parquet: ');
  });

  test('rows of another episode are refused', async () => {
    const { message: line } = await read(version2([['pull']], null, { episode_index: [0, 1, 0] })).catch(
      (error) => error,
    );
    expect(line).toBe(
      'folder/data/episode_000000.parquet: column "episode_index" is 1 in row 1, episode 0 was expected there',
    );
  });

  test('with any value in the JSON files, every field can be read, or one line says why not', async () => {
    const all = async (files: Files) => {
      const { source, episodes } = await read(files);
      for (const { name, kind } of source.fields)
        for (const episode of episodes) {
          if (kind === 'numbers') await episode.numbers(name);
          if (kind === 'texts') await episode.texts(name);
          if (kind === 'pictures') await picturesOf(filesFolder(files), source, episode, name);
        }
    };
    await replacingValues(await filesOf(ownSet()), 'meta/info.json', all, 150);
    const cells = steps(3).map((step) => ({ bytes: png(step), path: 'a.png' }));
    const old = version2([['pull']], [0, 1, 1], { 'observation.images.top': cells });
    await replacingValues(old, 'meta/info.json', all, 150);
    await replacingValues(old, 'meta/episodes.jsonl', all, 100);
  });
});
