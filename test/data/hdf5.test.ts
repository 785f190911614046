import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { inflateSync } from 'node:zlib';
import fc from 'fast-check';
import { File, type Group, ready } from 'h5wasm/node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Image } from '../../model/data/dataset.ts';
import { hdf5 } from '../../model/data/import/hdf5.ts';
import { decodeImage } from '../../model/data/index.ts';
import { cases, episodesOf, folderAt, haveCases, namesOf, unlessCases } from './hdf5-sources.ts';
import { encodeJpeg, expectClear, gradientImage, message, rows } from './synthetic.ts';

let folder: string;
beforeAll(async () => {
  await ready;
  folder = await mkdtemp(join(tmpdir(), 'insula-hdf5-'));
});
afterAll(() => rm(folder, { recursive: true }));

const open = async (place: string) => hdf5.open(await folderAt(place), { frameSize: 224 });
const made = async (name: string, fill: (file: File) => void) => {
  const file = new File(join(folder, name), 'w');
  fill(file);
  file.close();
  return open(join(folder, name));
};
type Numbers = Uint8Array | Uint16Array | BigInt64Array | Float32Array | Float64Array;
const table = (group: Group, name: string, data: Numbers, shape: number[]) =>
  group.create_dataset({ name, data, shape });
const actions = (group: Group, name = 'action', length = 3) =>
  table(group, name, Float32Array.from(rows(length, 2).flat()), [length, 2]);
/** Writes texts of a fixed length whose bytes may be any. */
async function fixedTexts(file: File, name: string, values: readonly Uint8Array[]) {
  const module = await ready;
  const size = Math.max(...values.map(({ length }) => length));
  const place = module._malloc(size * values.length);
  module.HEAPU8.fill(0, place, place + size * values.length);
  for (const [i, value] of values.entries()) module.HEAPU8.set(value, place + i * size);
  const shape = [BigInt(values.length)];
  const texts = { type: 3, size, cset: 0, strpad: 1, signed: false, vlen: false, littleEndian: true, total_size: 3 };
  module.create_dataset(file.file_id, name, BigInt(place), { ...texts, shape, maxshape: shape });
  module._free(place);
}
const first = async (source: Awaited<ReturnType<typeof open>>) => (await episodesOf(source))[0];
/** Picture `step` of a field of the first episode. */
async function picture(source: Awaited<ReturnType<typeof open>>, field: string, step: number) {
  const found = await (await first(source)).pictures(field);
  if (found?.kind !== 'pick') throw new Error(`no pictures of ${field}`);
  return source.picture!(found.place, step);
}

test('every table and attribute is a field, with a use or a reason', async () => {
  const source = await made('tree.hdf5', (file) => {
    actions(file);
    table(file, 'base_action', Float64Array.of(7, 8, 9), [3]);
    file.create_attribute('sim', 1);
    file.create_attribute('task', 'put it away');
    const observations = file.create_group('observations');
    table(observations, 'qpos', Float64Array.from(rows(3, 4).flat()), [3, 4]);
    table(observations, 'qvel', Float64Array.from(rows(3, 4).flat()), [3, 4]);
    table(observations.create_group('head'), 'depth', new Uint16Array(3 * 16 * 16), [3, 16, 16]);
    table(observations.get('head') as Group, 'rgb', new Uint8Array(3 * 4 * 5 * 3), [3, 4, 5, 3]);
    table(file, 'compress_len', Float64Array.from(rows(2, 3).flat()), [2, 3]);
    table(file, 'timestamp', Float64Array.of(0, 0.5, 1), [3]);
    table(file, 'time', BigInt64Array.of(1n, 2n, 3n), [3]);
    (file as unknown as { create_soft_link(target: string, name: string): void }).create_soft_link('/', 'around');
  });
  const uses = Object.fromEntries(source.fields.map(({ name, kind, use }) => [name, `${kind} ${use}`]));
  expect(uses).toEqual({
    '@sim': 'other null',
    '@task': 'texts language',
    action: 'numbers action',
    around: 'other null',
    base_action: 'numbers action',
    compress_len: 'numbers null',
    'observations/head/depth': 'depth null',
    'observations/head/rgb': 'pictures camera',
    'observations/qpos': 'numbers state',
    'observations/qvel': 'numbers null',
    time: 'numbers null',
    timestamp: 'numbers time',
  });
  for (const { name, use, reason } of source.fields) if (use === null) expect(reason, name).toMatch(/\w+/);
  const episode = await first(source);
  expect([episode.id, episode.length, episode.where]).toEqual(['tree', 3, 'tree.hdf5']);
  expect(await episode.numbers('base_action')).toEqual(Float64Array.of(7, 8, 9));
  expect(await episode.numbers('time')).toEqual(Float64Array.of(1, 2, 3));
  expect(await episode.texts('@task')).toEqual([['put it away']]);
  expect(await message(episode.numbers('compress_len'))).toBe(
    'tree.hdf5: "compress_len" has shape [2,3], where the episode has 3 steps',
  );
});

test('the episodes of robomimic: their number, their arms, what has no actions', async () => {
  const source = await made('mimic.hdf5', (file) => {
    const data = file.create_group('data');
    data.create_attribute('env_args', JSON.stringify({ env_name: 'Lift', env_kwargs: { control_freq: 15 } }));
    for (const k of [10, 2]) {
      const demo = data.create_group(`demo_${k}`);
      actions(demo, 'actions', k);
      const obs = demo.create_group('obs');
      for (const arm of [1, 0])
        for (const part of ['gripper_qpos', 'eef_quat', 'eef_pos', 'joint_pos'])
          table(obs, `robot${arm}_${part}`, new Float64Array(k).fill(k), [k]);
      table(demo.create_group('next_obs'), 'robot0_eef_pos', new Float64Array(k), [k]);
    }
    data.create_group('demo_3');
    table(file.create_group('mask'), 'train', Uint8Array.of(1), [1]);
  });
  expect(source.rate).toEqual({ stated: 15, usual: 20 });
  expect((await episodesOf(source)).map(({ id, length }) => [id, length])).toEqual([
    ['demo_2', 2],
    ['demo_10', 10],
  ]);
  expect(namesOf(source, 'state')).toEqual(
    [0, 1].flatMap((arm) => ['eef_pos', 'eef_quat', 'gripper_qpos'].map((part) => `obs/robot${arm}_${part}`)),
  );
  expect(source.fields.find(({ name }) => name === '/data/demo_3')!.reason).toBe('a group with nothing in it');
  expect(namesOf(source, null)).toContain('/mask/train');
});

test.each<[string, Record<string, unknown>, string[]]>([
  ['a text', { ep_meta: { language_instruction: 'turn on the stove' } }, ['turn on the stove']],
  ['characters', { ep_meta: { language_instruction: [...'turn on the stove'] } }, ['turn on the stove']],
  ['words', { ep_meta: { language_instruction: 'turn on the stove'.split(' ') } }, ['turn on the stove']],
  ['pieces', { ep_meta: { language_instruction: ['turn on', ' the stove'] } }, ['turn on the stove']],
  ['a text that is not JSON', { language_instruction: 'turn on the stove' }, ['turn on the stove']],
  ['paraphrases', { instructions: ['turn it on', 'switch it on'] }, ['turn it on', 'switch it on']],
  ['its key', { ep_meta: { lang: 'open the drawer', layout_id: 1 } }, ['open the drawer']],
  ['JSON that is a list', { language_instruction: '["open it", "unclose it"]' }, ['open it', 'unclose it']],
  ['the more exact of two', { task: 'Stove', ep_meta: { lang: 'turn on the stove' } }, ['turn on the stove']],
])('language in an attribute: %s', async (_, attributes, expected) => {
  const source = await made('words.hdf5', (file) => {
    actions(file);
    for (const [name, value] of Object.entries(attributes))
      file.create_attribute(name, typeof value === 'string' || Array.isArray(value) ? value : JSON.stringify(value));
  });
  const episode = await first(source);
  const fields = namesOf(source, 'language');
  expect(await Promise.all(fields.map((field) => episode.texts(field)))).toEqual([[expected]]);
});

test('no other file is read by a link or as storage', async () => {
  await made('other.h5', (file) => actions(file));
  const source = await made('linked.hdf5', (file) => {
    actions(file);
    const linking = file as unknown as Record<`create_${'external' | 'soft'}_link`, (...names: string[]) => void>;
    linking.create_external_link(join(folder, 'other.h5'), '/action', 'far');
  });
  expect(source.fields.map(({ name, kind, reason }) => [name, kind, reason])).toContainEqual([
    'far',
    'other',
    'nothing in this file; links to others are not followed',
  ]);
  const hidden = await made('hidden.hdf5', (file) => {
    const linking = file as unknown as Record<`create_${'external' | 'soft'}_link`, (...names: string[]) => void>;
    linking.create_external_link(join(folder, 'other.h5'), '/action', 'far');
    linking.create_soft_link('/far', 'action');
  });
  expect(hidden.fields.map(({ name, kind }) => [name, kind])).toEqual([
    ['action', 'other'],
    ['far', 'other'],
  ]);
});

test('a camera or a text that some episodes lack is said, also by a path that is not the shortest', async () => {
  const place = await mkdtemp(join(folder, 'lacking-'));
  for (const i of [0, 1, 2]) {
    const file = new File(join(place, `episode_${i}.hdf5`), 'w');
    actions(file);
    if (i > 0) table(file, 'top', new Uint8Array(3 * 8 * 8 * 3), [3, 8, 8, 3]);
    if (i === 1) file.create_attribute('instruction', 'pick it');
    file.close();
  }
  const notes: string[] = [];
  const listed = await folderAt(place);
  const around = { ...listed, path: `${relative(process.cwd(), place)}/.` };
  const source = await hdf5.open(around, { frameSize: 224, note: (line) => notes.push(line) });
  expect((await first(source)).length).toBe(3);
  expect(notes).toEqual(['@instruction: 1 of 3 episodes have it', 'top: 2 of 3 episodes have it']);
});

test('floats of another range in another episode are refused', async () => {
  const place = await mkdtemp(join(folder, 'ranges-'));
  for (const [i, most] of [200, 1].entries()) {
    const file = new File(join(place, `episode_${i}.hdf5`), 'w');
    actions(file);
    table(file, 'top', new Float32Array(3 * 8 * 8 * 3).fill(most), [3, 8, 8, 3]);
    file.close();
  }
  const [one, two] = await episodesOf(await open(place));
  expect(await one.pictures('top')).toMatchObject({ kind: 'pick', place: { scale: 1 } });
  expect(await message(two.pictures('top'))).toBe(
    'episode_1.hdf5: "top" holds pictures (numbers from 0 to 1, which are multiplied by 255), other than in the first episode that has it: save uint8',
  );
});

test('a file that is no HDF5 file is called so', async () => {
  await writeFile(join(folder, 'pointer.hdf5'), 'version https://git-lfs.github.com/spec/v1');
  const source = await open(join(folder, 'pointer.hdf5'));
  expect(await message(Promise.resolve().then(() => source.fields))).toBe(
    'pointer.hdf5: cannot be opened, is damaged, or no HDF5 file (file signature not found)',
  );
});

test('the parts of an action that is a group are chosen by the user', async () => {
  const source = await made('parts.hdf5', (file) => {
    const parts = file.create_group('action');
    for (const name of ['joint_position', 'joint_velocity']) actions(parts, name);
  });
  expect(namesOf(source, 'action')).toEqual([]);
  expect(source.fields.find(({ name }) => name === 'action/joint_position')!.reason).toMatch(/--map/);
  expect((await first(source)).length).toBe(3);
});

test.each([
  ['{"lang":"open the drawer","x":NaN}', 'it begins like JSON, and cannot be read as JSON'],
  ["{'lang': 'open it'}", 'it begins like JSON, and cannot be read as JSON'],
  ['None', 'empty, "None", or JSON without an instruction'],
])('no language in %s', async (text, reason) => {
  const source = await made('none.hdf5', (file) => {
    actions(file);
    file.create_attribute('language_instruction', text);
    file.create_attribute('is_multitask', 'no');
  });
  expect(namesOf(source, 'language')).toEqual([]);
  expect(source.fields.find(({ name }) => name === '@language_instruction')!.reason).toBe(reason);
});

test('attributes of bytes are UTF-8, or are left out', async () => {
  const source = await made('bytes.hdf5', (file) => {
    actions(file);
    file.create_attribute('language_instruction', 'nimm die Tür', null, 'A13');
    file.create_attribute('lang', 'café', null, 'A4'); // the last letter is cut
  });
  expect(await (await first(source)).texts('@language_instruction')).toEqual([['nimm die Tür']]);
  expect(source.fields.find(({ name }) => name === '@lang')!.reason).toBe('its bytes are not text in UTF-8');
});

test('a list of words is one instruction, which is said', async () => {
  const notes: string[] = [];
  await made('wordlist.hdf5', (file) => {
    actions(file);
    file.create_dataset({ name: 'language_instruction', data: ['wave', 'your', 'arm'] });
  });
  const source = await hdf5.open(await folderAt(join(folder, 'wordlist.hdf5')), {
    frameSize: 224,
    note: (line) => notes.push(line),
  });
  expect(await (await first(source)).texts('language_instruction')).toEqual([['wave your arm']]);
  expect(notes).toEqual(['language_instruction: a list of words, which are joined to one instruction']);
});

test('language in a table: one text for each step, in UTF-8', async () => {
  const texts = ['öffne', 'öffne', 'schließe'];
  const source = await made('steps.hdf5', (file) => {
    actions(file);
    file.create_dataset({ name: 'language_instruction', data: texts });
  });
  expect(await (await first(source)).texts('language_instruction')).toEqual(texts.map((text) => [text]));
  const file = new File(join(folder, 'fixed.hdf5'), 'w');
  actions(file);
  await fixedTexts(file, '/language', [new TextEncoder().encode('schließe')]);
  file.close();
  expect(await (await first(await open(join(folder, 'fixed.hdf5')))).texts('language')).toEqual([['schließe']]);
});

test('image files: padded rows and fixed texts give the bytes of each', async () => {
  const jpegs = await Promise.all([0, 1, 2].map((i) => encodeJpeg(gradientImage(8 + i, 8))));
  const longest = Math.max(...jpegs.map(({ length }) => length));
  const file = new File(join(folder, 'jpegs.hdf5'), 'w');
  actions(file);
  const padded = new Uint8Array(3 * longest);
  for (const [i, jpeg] of jpegs.entries()) padded.set(jpeg, i * longest);
  table(file, 'rows', padded, [3, longest]);
  await fixedTexts(file, '/texts', jpegs);
  file.close();
  const source = await open(join(folder, 'jpegs.hdf5'));
  expect(namesOf(source, 'camera')).toEqual(['rows', 'texts']);
  for (const field of ['rows', 'texts'])
    for (const step of [0, 1, 2]) expect(await picture(source, field, step), field).toEqual(jpegs[step]);
});

test('a file of h5py: float16, opaque values, values of any length, a list of texts, and a filter that is not read', async () => {
  // The two rows of `opaque` and of `variable` begin like JPEG files; the second of `variable` has a seventh byte.
  const packed =
    'eNrtmM9LG0EUx9/b2bjrJDaJbgp6CrSF3uqxBw9VlxhoIeCpB1G2orgQkjbZVFEKhQqlvXu3tx4LPVYp2D9Aj6IInuz/UAvpzM6b3SUKnloqzC' +
    'ckk3kzb358d+aw3w91vzbCJzhzXdD0idJdVZ+k+MHZ+a9G3Z+3YMMazXbUcAsQoFQC2KqolB1KHSqDaBpqvwxe9VZ+IAXHZNB9HXTC4EVz5dSi' +
    '8B0ZZs3NVcfT6XppR5+2g3gJCIj3ASwLkdKARoXBOvMAy9UixUvAc8CL4l9OrJZxV+yE4XfqbOuJduG/Z//dwTpMwZNED6GWkCPRQ5fMBayQiN' +
    'k9H1KHgh5wD24173c/P+gf9xGGxa8F/EZdxLkYj0+E+qoj4CqNLKXRT6b6VvUkX26fLuUF50I+e8dO74WTqUs95mYbzxBIiMzd0RdP6Zpq56Rx' +
    'obQDJFNylrrrYbS8Vg2jaruVvVecyqjXaaWtKW+LYDAYDAaDwWAwGAwGg+EvkXglvnjHt1OvxB4o9Xv+Te2sAHjFU8nnJwDFLG9s6e9Bc3M1zs' +
    'uhshhdL/ancoi2zZDxMfIQYe3f6eAv5p/Xpus+oMf1Hh/TOr6dbCyIpZ7fk7uqTfszgHqJj6gczgzVuSa2VPl4mQzRmK0/JV80WI7Cdusr9aqM' +
    'Sl0GzdXCopR3BDzxgbDVjTq9OKsL44hXTKzrDC9pvmjTRxaFTF0+uIdzO7//AGNMf1Q=';
  await writeFile(join(folder, 'h5py.hdf5'), inflateSync(Buffer.from(packed, 'base64')));
  const source = await open(join(folder, 'h5py.hdf5'));
  const episode = await first(source);
  expect(await episode.numbers('action')).toEqual(Float32Array.of(1, 2));
  expect(await picture(source, 'opaque', 1)).toEqual(Uint8Array.of(255, 216, 255, 2, 0, 10));
  expect(await picture(source, 'variable', 1)).toEqual(Uint8Array.of(255, 216, 255, 2, 0, 10, 7));
  expect(await episode.texts('@instructions')).toEqual([['turn it on', 'switch it on']]);
  expect(await message(episode.pictures('lzf'))).toBe(
    'h5py.hdf5: "lzf" is compressed by the filter lzf (number 32000), which cannot be read here; rewrite the file: h5repack -f GZIP=4 IN OUT',
  );
});

describe('pixels', () => {
  const [height, width] = [8, 9];
  const value = (step: number, y: number, x: number, channel: number) => (step * 90 + y * 9 + x + channel * 80) % 256;
  const layouts: [string, number[], (index: number[]) => [y: number, x: number, channel: number]][] = [
    ['height, width, 3', [height, width, 3], ([y, x, c]) => [y, x, c]],
    ['height, width, 4', [height, width, 4], ([y, x, c]) => [y, x, c]],
    ['height, width, 1', [height, width, 1], ([y, x]) => [y, x, 0]],
    ['3, height, width', [3, height, width], ([c, y, x]) => [y, x, c]],
    ['1, height, width', [1, height, width], ([, y, x]) => [y, x, 0]],
  ];
  const types: [string, (values: number[]) => Numbers, channels: number][] = [
    ['uint8', (values) => Uint8Array.from(values), 1],
    ['int64', (values) => BigInt64Array.from(values, BigInt), 3],
    ['float32 to 1', (values) => Float32Array.from(values, (own) => own / 255), 3],
    ['float64 to 255', (values) => Float64Array.from(values), 3],
  ];
  test.each(
    layouts.flatMap((layout) =>
      types
        .filter(([, , least]) => layout[1].includes(least) || layout[1].includes(3))
        .map((type) => ({ layout, type })),
    ),
  )('$layout.0 of $type.0', async ({ layout: [, shape, at], type: [, make] }) => {
    const values: number[] = [];
    for (let step = 0; step < 2; step++)
      for (let i = 0; i < shape[0]; i++)
        for (let j = 0; j < shape[1]; j++)
          for (let k = 0; k < shape[2]; k++) values.push(value(step, ...at([i, j, k])));
    const source = await made('pixels.hdf5', (file) => {
      actions(file, 'action', 2);
      table(file, 'top', make(values), [2, ...shape]);
    });
    const one = shape.includes(1);
    const expected = Array.from({ length: height * width * 3 }, (_, i) =>
      value(1, Math.floor(i / 3 / width), Math.floor(i / 3) % width, one ? 0 : i % 3),
    );
    const image = (await picture(source, 'top', 1)) as Image;
    expect([image.height, image.width, [...image.pixels]]).toEqual([height, width, expected]);
    const said = source.fields.find(({ name }) => name === 'top')!.reason;
    expect(said).toBe(make([255])[0] === 1 ? 'numbers from 0 to 1, which are multiplied by 255' : undefined);
  });

  test('numbers that are no colours are refused or left out, and depth and segments are no cameras', async () => {
    const size = 2 * 8 * 9 * 3;
    const source = await made('strange.hdf5', (file) => {
      actions(file, 'action', 2);
      table(file, 'dark_first', new Float32Array(size).fill(200, size / 2), [2, 8, 9, 3]);
      table(file, 'overshoot', new Float32Array(size).fill(-0.02).fill(1.004, size / 2), [2, 8, 9, 3]);
      table(file, 'unmasked_cam', new Uint8Array(size), [2, 8, 9, 3]);
      table(file, 'rgb_mask', new Uint8Array(size), [2, 8, 9, 3]);
      table(file, 'goal_image', new Uint8Array(size), [2, 8, 9, 3]);
      table(file, 'next.observation.image', new Uint8Array(size), [2, 8, 9, 3]);
      table(file, 'broken', new Float32Array(size).fill(0.5).fill(Number.NaN, size - 1), [2, 8, 9, 3]);
      table(file, 'normals', new Float32Array(size).fill(-1), [2, 8, 9, 3]);
      table(file, 'agentview_depth', new Float32Array(size / 3), [2, 8, 9, 1]);
      table(file, 'agentview_segmentation_class', new Uint8Array(size / 3), [2, 8, 9, 1]);
      table(file, 'far', new Uint16Array(size / 3), [2, 8, 9, 1]);
    });
    expect(namesOf(source, 'camera')).toEqual(['broken', 'dark_first', 'overshoot', 'unmasked_cam']);
    const colour = async (field: string, step: number) => ((await picture(source, field, step)) as Image).pixels[0];
    expect([await colour('dark_first', 0), await colour('dark_first', 1)]).toEqual([0, 200]);
    expect([await colour('overshoot', 0), await colour('overshoot', 1)]).toEqual([0, 255]);
    expect(await message(picture(source, 'broken', 1))).toBe(
      'strange.hdf5: /broken, step 1: NaN at pixel 71 is not between 0 and 1',
    );
    expect(source.fields.map(({ name, reason }) => [name, reason])).toContainEqual([
      'normals',
      'numbers from -1 to -1; pictures have 0 to 1 or 0 to 255',
    ]);
    const late = await made('late.hdf5', (file) => {
      actions(file, 'action', 20);
      const frames = new Float32Array(20 * 192).fill(3, 192, 384);
      table(file, 'top', frames, [20, 8, 8, 3]);
    });
    expect(await message(picture(late, 'top', 1))).toBe('late.hdf5: /top, step 1: 3 at pixel 0 is not between 0 and 1');
  });
});

test('a set of several files: other lengths, missing tables and files of another kind are named', async () => {
  const place = await mkdtemp(join(folder, 'set-'));
  for (const [i, width] of [4, 4, 5].entries()) {
    const file = new File(join(place, `episode_${9 + i}.hdf5`), 'w');
    actions(file);
    if (i !== 1) table(file.create_group('observations'), 'qpos', new Float64Array(3 * width), [3, width]);
    file.close();
  }
  await writeFile(join(place, 'notes.txt'), '');
  const source = await open(place);
  expect([source.count, source.rate.usual]).toEqual([3, 50]);
  expect(source.fields.at(0)).toEqual({ name: '/notes.txt', kind: 'other', use: null, reason: 'no HDF5 file' });
  const [a, b, c] = await episodesOf(source);
  expect([a.id, b.id, c.id]).toEqual(['episode_9', 'episode_10', 'episode_11']);
  expect(await message(b.numbers('observations/qpos'))).toBe(
    'episode_10.hdf5: "observations/qpos" is missing, which other episodes have',
  );
  expect((await c.numbers('observations/qpos')).length).toBe(15);
});

test('a table that states more than memory, and damage, are one line', async () => {
  const source = await made('large.hdf5', (file) => {
    file.create_dataset({
      name: 'action',
      data: new Float32Array(2),
      shape: [2, 1],
      maxshape: [null, 1],
      chunks: [1024, 1],
    });
    (file.get('action') as unknown as { resize(shape: number[]): void }).resize([2 ** 31, 1]);
  });
  expect(await message((await first(source)).numbers('action'))).toContain('/action needs 8589934592 bytes');
  const bytes = await readFile(join(folder, 'tree.hdf5'));
  const cut = join(folder, 'cut.h5');
  await fc.assert(
    fc.asyncProperty(
      fc.nat(bytes.length - 1),
      fc.nat(255),
      fc.integer({ min: 1, max: bytes.length }),
      fc.boolean(),
      async (at, byte, end, whole) => {
        const damaged = bytes.slice(0, whole ? bytes.length : end);
        damaged[at] = byte;
        await writeFile(cut, damaged);
        try {
          const own = await open(cut);
          for (const episode of await episodesOf(own)) await episode.numbers('action');
        } catch (error) {
          expectClear(error, 'cut');
        }
      },
    ),
    { seed: 5, numRuns: 300 },
  );
});

describe.skipIf(!haveCases)(`cases${unlessCases}`, () => {
  test.each(['30-hdf5-images-S', '30-hdf5-images-chw'])('%s', async (name) => {
    const source = await open(join(cases, name));
    for (const step of [0, 5]) {
      const found = await picture(source, 'observations/images/cam_high', step);
      const { pixels, width } = found instanceof Uint8Array ? await decodeImage(found, 'image/jpeg', name) : found;
      for (const [i, wanted] of [200, 100 - 5 * step, 50].entries())
        expect(Math.abs(pixels[3 * (8 * width + 8) + i] - wanted)).toBeLessThan(4);
    }
  });

  test('31-hdf5-lzf', async () => {
    const episode = await first(await open(join(cases, '31-hdf5-lzf')));
    expect(await message(episode.pictures('observations/images/cam_high'))).toContain(
      'by the filter lzf (number 32000)',
    );
  });

  test.each([
    ['35-libero-lang-list', '/data@problem_info', 'turn on the stove'],
    ['39-robomimic-lang-attr', '@ep_meta', 'open the left drawer'],
  ])('%s', async (name, field, text) => {
    const source = await open(join(cases, name));
    expect(namesOf(source, 'language')).toEqual([field]);
    for (const episode of await episodesOf(source)) expect(await episode.texts(field)).toEqual([[text]]);
  });

  test('38-robomimic-two-arms', async () => {
    const source = await open(join(cases, '38-robomimic-two-arms'));
    const state = source.fields.filter(({ use }) => use === 'state');
    expect(state.reduce((sum, { shape }) => sum + shape![0], 0)).toBe(18);
  });
});
