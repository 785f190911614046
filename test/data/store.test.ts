import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { crc32 } from '../../engine/files/checksum.ts';
import { InputError } from '../../engine/files/errors.ts';
import { diskFolder } from '../../engine/files/files.ts';
import type { DatasetOptions, FieldMap } from '../../model/data/dataset.ts';
import type { SourceField } from '../../model/data/import/source.ts';
import { encodePng, instructionsAt, loadEpisode } from '../../model/data/index.ts';
import { fieldMapOf, leftOut, mappedFields, mappingOf } from '../../model/data/store/mapping.ts';
import { openStored } from '../../model/data/store/open.ts';
import { type Files, folderOf, gradientImage, message, text } from './synthetic.ts';
import { toyImporter, toySet } from './toy-importer.ts';

let [place, cacheFolder] = ['', ''];
let places = 0;
const root = await mkdtemp(join(tmpdir(), 'insula-store-'));
afterAll(() => rm(root, { recursive: true, force: true }));
beforeEach(() => {
  places += 1;
  [place, cacheFolder] = [join(root, `set${places}`), join(root, `cache${places}`)];
});

async function write(files: Files): Promise<void> {
  for (const [path, bytes] of files) {
    await mkdir(join(place, path, '..'), { recursive: true });
    await writeFile(join(place, path), bytes);
  }
}
const toy = toyImporter();
const open = (options: DatasetOptions = {}) =>
  openStored(toy, diskFolder(place), undefined, { cacheFolder, ...options });
const inMemory = (files: Files, options: DatasetOptions = {}) => openStored(toy, folderOf(files), undefined, options);
const partsIn = async () => {
  const names = await readdir(cacheFolder, { recursive: true });
  return names.filter((name) => name.endsWith('.part')).map((name) => join(cacheFolder, name));
};
const indexFile = async () => {
  const names = await readdir(cacheFolder, { recursive: true });
  return join(cacheFolder, names.find((name) => name.endsWith('index'))!);
};
let png: Uint8Array<ArrayBuffer>;
beforeAll(() => {
  png = encodePng(gradientImage(4, 3));
});

describe('an index', () => {
  test('holds every number, text and picture, in memory as on disk', async () => {
    const files = toySet({ episodes: 3, png });
    await write(files);
    for (const dataset of [await inMemory(files), await open(), await open(), await open({ memory: 0 })]) {
      const { rate, actionDimension, stateDimension, actionNames, cameras, description } = dataset;
      expect([rate, actionDimension, stateDimension, actionNames]).toEqual([10, 2, 3, ['x', 'y']]);
      expect(cameras).toEqual(['top', 'side', 'wrist', 'film']);
      expect(description).toContain('toy set: 3 episodes, 12 steps at 10 Hz, cameras top, side, wrist, film');
      for (const [e, listed] of dataset.episodes.entries()) {
        const episode = await loadEpisode(listed);
        const all = Array.from({ length: episode.length }, (_, step) => step);
        expect([...episode.actions]).toEqual(all.flatMap((step) => [e, step]));
        expect([...episode.states!]).toEqual(all.flatMap((step) => [e, step, 0.5]));
        expect(all.map((step) => instructionsAt(episode, step))).toEqual(
          all.map((step) => [step < 2 ? 'go' : 'stop', 'always']),
        );
        expect(episode.instructions).toEqual(['go', 'always', 'stop']);
        expect(all.map((step) => episode.subtask!(step))).toEqual(all.map((step) => (step < 1 ? null : 'reach')));
        for (const camera of ['top', 'side', 'wrist', 'film']) {
          expect(await episode.image(camera, 1)).toEqual(gradientImage(4, 3));
          expect(await episode.image(camera, -1)).toBeNull();
        }
        expect(await episode.imageFile!('top', 9)).toEqual(png);
        expect(await episode.imageFile!('film', 0)).toBeNull();
        expect(await episode.imageFile!('wrist', 0)).toEqual(png);
        expect(await episode.image('nothing', 0)).toBeNull();
      }
    }
  });

  test('is made once: opening again reads no file of the set', async () => {
    await write(toySet({ episodes: 3, png }));
    const before = toy.read.length;
    const progress: unknown[] = [];
    await open({ onProgress: (...own) => progress.push(own) });
    expect(progress).toEqual([0, 1, 2, 3].map((done) => [done, 3]));
    expect(toy.read.length).toBe(before + 3);
    const counted = toy.opened;
    const { episodes } = await open();
    expect([toy.read.length, toy.opened]).toEqual([before + 3, counted]);
    expect(await episodes[2].image('top', 0)).toEqual(gradientImage(4, 3));
    expect(toy.opened).toBe(counted);
    await episodes[2].image('film', 0);
    await episodes[1].image('wrist', 0);
    expect([toy.read.length, toy.opened]).toEqual([before + 3, counted + 1]);
  });

  test.each<[string, () => Promise<unknown>]>([
    [
      'of another size',
      () => writeFile(join(place, 'ep1.json'), toySet({ episodes: 3, png, first: 7 }).get('ep1.json')!),
    ],
    ['of the same size and time', () => utimes(join(place, 'ep1.json'), 2, 2)],
    ['of another time', async () => utimes(join(place, 'ep1.json'), 1, 1)],
    ['that is new', () => writeFile(join(place, 'notes.txt'), 'new')],
    ['of a picture', async () => utimes(join(place, 'pictures.bin'), 1, 1)],
  ])('is made again for a file %s', async (_, change) => {
    await write(toySet({ episodes: 3, png }));
    await utimes(join(place, 'ep1.json'), 2, 2);
    await open();
    const before = toy.read.length;
    await change();
    await open();
    expect(toy.read.length).toBe(before + 3);
  });

  test('is another one for another map, rate, frame size and version', async () => {
    await write(toySet({ episodes: 1, png, stated: false }));
    const before = toy.read.length;
    const map: FieldMap = { state: [] };
    for (const options of [{}, { rate: 10 }, { map }, { frameSize: 8 }]) await open(options);
    for (const options of [{}, { rate: 10 }, { map }, { frameSize: 8 }]) await open(options);
    expect(toy.read.length).toBe(before + 4);
    await openStored(toyImporter(2), diskFolder(place), undefined, { cacheFolder });
    expect((await readdir(cacheFolder)).length).toBe(5);
  });

  test('without cameras needs no picture, and the one with all serves it, too', async () => {
    await write(toySet({ episodes: 2 }));
    expect(await message(open())).toContain('no pictures here');
    expect((await open({ cameras: [] })).cameras).toEqual([]);
    const before = toy.read.length;
    expect((await open({ cameras: [] })).description).toContain('cameras not read');
    expect(toy.read.length).toBe(before);
  });

  test('is removed when another one is made after its set is gone', async () => {
    await write(toySet({ episodes: 1, png }));
    await open();
    const [old] = await readdir(cacheFolder);
    await rm(place, { recursive: true });
    place += 'b';
    await write(toySet({ episodes: 1, png }));
    await open();
    const left = await readdir(cacheFolder);
    expect([left.length, left.includes(old)]).toEqual([1, false]);
  });

  test('whose place is just being written is not removed', async () => {
    await mkdir(join(cacheFolder, 'begun'), { recursive: true });
    await writeFile(join(cacheFolder, 'begun', 'place'), '');
    await write(toySet({ episodes: 1, png }));
    await open();
    expect(await readdir(cacheFolder)).toContain('begun');
  });

  test('that is damaged anywhere is made again', async () => {
    await write(toySet({ episodes: 2, png }));
    const made = await open();
    const path = await indexFile();
    const whole = await readFile(path);
    for (let at = 0; at < whole.length; at += 37) {
      const bytes = Buffer.from(whole);
      bytes[at] ^= 0x10;
      await writeFile(path, bytes);
      const again = await open();
      expect(again.episodes.map(({ actions }) => actions)).toEqual(made.episodes.map(({ actions }) => actions));
    }
    for (const length of [0, 10, 100, whole.length - 1]) {
      await writeFile(path, whole.subarray(0, length));
      expect((await open()).episodes[1].actions).toEqual(made.episodes[1].actions);
    }
  });
});

test('unpacked pictures that are damaged, or gone, are unpacked again', async () => {
  await write(toySet({ episodes: 2, png }));
  await (await open()).episodes[1].image('film', 0);
  const [pack] = (await readdir(cacheFolder, { recursive: true })).filter((name) => name.includes('pictures-'));
  const path = join(cacheFolder, pack);
  const whole = await readFile(path);
  const damaged = [whole.subarray(0, -1), whole.subarray(0, whole.length >> 1), null];
  for (let at = 0; at < whole.length; at += 17) {
    const bytes = Buffer.from(whole);
    bytes[at] ^= 0x10;
    damaged.push(bytes);
  }
  for (const bytes of damaged) {
    const [, { image }] = (await open()).episodes;
    expect(await image('film', 0)).toEqual(gradientImage(4, 3));
    // The pictures are damaged before they are looked at for the first time, or after.
    const [, later] = (await open()).episodes;
    await (bytes ? writeFile(path, bytes) : rm(path));
    for (const step of [1, 2, 3]) {
      expect(await image('film', step)).toEqual(gradientImage(4, 3));
      expect(await later.image('film', step)).toEqual(gradientImage(4, 3));
    }
  }
  await (await open()).episodes[1].image('film', 1);
  expect(await readFile(path)).toEqual(whole);
});

test('notes about pictures are told when these are unpacked, and once in later runs', async () => {
  await write(toySet({ episodes: 3, png }));
  for (const options of [{}, {}, { memory: 0 }]) {
    const lines: string[] = [];
    const { episodes } = await open({ ...options, onNote: (line) => lines.push(line) });
    expect(lines).toEqual([]);
    for (const e of [2, 1, 2]) for (const step of [0, 1]) await episodes[e].image('film', step);
    expect(lines).toEqual(['film 2 lacks a frame', 'film 1 lacks a frame']);
  }
});

test('pictures that are to be turned are named once for each camera', async () => {
  const orientation = [0x49, 0x49, 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0];
  const named = Uint8Array.from([...Buffer.from('eXIf'), ...orientation]);
  const check = new Uint8Array(Uint32Array.of(crc32(named)).buffer).reverse();
  const chunk = [0, 0, 0, orientation.length, ...named, ...check];
  const turned = Uint8Array.from([...png.subarray(0, 33), ...chunk, ...png.subarray(33)]);
  const lines: string[] = [];
  const files = toySet({ episodes: 2, png: turned });
  const { episodes } = await inMemory(files, { onNote: (line) => lines.push(line) });
  for (const { image } of episodes) for (const step of [0, 1]) await image('top', step);
  expect(lines).toEqual([expect.stringContaining('camera "top" has pictures with Exif orientation 6, which LeRobot')]);
});

test.each([
  ['version https://git-lfs.github.com/spec/v1\noid sha256:1\n', 'a Git LFS pointer: run git lfs pull'],
  ['<!DOCTYPE html>\n<html>', 'an HTML page: fetch the file again'],
  ['\x1f\x8b\b', 'a file compressed by gzip: unpack it'],
])('%o in place of a file is named', async (content, words) => {
  const file = new TextEncoder().encode(content).filter((byte) => byte !== 0xc2);
  for (const name of ['set.json', 'ep1.json'])
    expect(await message(inMemory(toySet({ episodes: 2, png }).set(name, file)))).toBe(
      `folder/${name}: this is ${words}`,
    );
});

describe('an import', () => {
  test('that was interrupted goes on after its last whole episode', async () => {
    await write(toySet({ episodes: 5, png }));
    const before = toy.read.length;
    toy.failAt = 3;
    await expect(open()).rejects.toThrow('pulled the plug');
    toy.failAt = undefined;
    expect(toy.read.slice(before)).toEqual([0, 1, 2]);
    const [part] = await partsIn();
    await writeFile(part, (await readFile(part)).subarray(0, -3)); // the last episode is cut off
    const { episodes } = await open();
    expect(toy.read.slice(before)).toEqual([0, 1, 2, 2, 3, 4]);
    expect(episodes.map(({ actions }) => actions[0])).toEqual([0, 1, 2, 3, 4]);
    expect(await partsIn()).toEqual([]);
  });

  test('begins anew if the set has changed since', async () => {
    await write(toySet({ episodes: 4, png }));
    toy.failAt = 2;
    await expect(open()).rejects.toThrow('pulled the plug');
    toy.failAt = undefined;
    await utimes(join(place, 'ep0.json'), 1, 1);
    const before = toy.read.length;
    await open();
    expect(toy.read.slice(before)).toEqual([0, 1, 2, 3]);
  });

  test('of two at once in one program ends right twice', async () => {
    await write(toySet({ episodes: 4, png }));
    const [one, two] = await Promise.all([open(), open()]);
    for (const { episodes } of [one, two, await open()])
      expect(episodes.map(({ actions }) => actions[0])).toEqual([0, 1, 2, 3]);
    expect(await partsIn()).toEqual([]);
    const films = await Promise.all([one, two, one].map(({ episodes }) => episodes[3].image('film', 3)));
    expect(films).toEqual(films.map(() => gradientImage(4, 3)));
  });

  test('of a program that was killed is taken over, and of one that lives is not', async () => {
    await write(toySet({ episodes: 6, png }));
    const program = (stopAt: number) => {
      const code = `
        import { openStored } from ${JSON.stringify(new URL('../../model/data/store/open.ts', import.meta.url).href)};
        import { diskFolder } from ${JSON.stringify(new URL('../../engine/files/files.ts', import.meta.url).href)};
        import { toyImporter } from ${JSON.stringify(new URL('./toy-importer.ts', import.meta.url).href)};
        const toy = toyImporter();
        toy.hangAt = ${stopAt};
        toy.onHang = () => process.stdout.write('hangs');
        await openStored(toy, diskFolder(${JSON.stringify(place)}), undefined, { cacheFolder: ${JSON.stringify(cacheFolder)} });`;
      return spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
    };
    const child = program(4);
    await new Promise((resolve) => child.stdout.once('data', resolve));
    const before = toy.read.length;
    await open();
    expect(toy.read.slice(before)).toEqual([0, 1, 2, 3, 4, 5]);
    const [left] = await partsIn();
    expect((await stat(left)).size).toBeGreaterThan(0);
    await rm(await indexFile());
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('exit', resolve));
    await open();
    expect(toy.read.slice(before + 6)).toEqual([4, 5]);
    expect(await partsIn()).toEqual([]);
  });

  test('checks numbers, dimensions and lengths', async () => {
    const opened = (change: (set: ReturnType<typeof episode>) => void) => {
      const files = toySet({ episodes: 2, png });
      const set = episode(files);
      change(set);
      return message(inMemory(files.set('ep1.json', text(set))));
    };
    const episode = (files: Files) => JSON.parse(new TextDecoder().decode(files.get('ep1.json')!));
    expect(await opened(({ numbers }) => (numbers.action[5] = null))).toBe(
      'folder/ep1.json: episode "ep1": "action", step 2, dimension 1 (y) is NaN: repair or leave out the episode',
    );
    expect(await opened(({ numbers }) => (numbers.state[0] = 1e300))).toContain(
      '"state", step 0, dimension 0 is 1e+300, beyond float32',
    );
    expect(await opened(({ numbers }) => numbers.action.push(1))).toContain(
      '"action" has 9 numbers, which its 4 steps do not divide evenly',
    );
    expect(await opened(({ numbers }) => numbers.state.splice(0, 4))).toContain(
      '"state" has 2 numbers a step, in the episodes before it 3',
    );
    expect(await opened(({ texts }) => texts.words.pop())).toContain('"words" has texts for 3 of 4 steps');
    expect(await opened((set) => (set.id = 'ep0'))).toContain('episode "ep0" is there twice');
    expect(await opened((set) => (set.length = 0))).toContain('episode "ep1" has no steps');
    expect(await opened((set) => set.top.pop())).toContain('camera "top" has 3 pictures, 4 steps');
  });

  test('compares every time with the rate', async () => {
    const timed = (...times: number[][]) => inMemory(toySet({ episodes: times.length, png, times }));
    const regular = [0, 0.1, 0.2, 0.3];
    expect((await timed(regular, [5, 5.1, 5.2, 5.305])).notes!.filter((note) => note.startsWith('times'))).toEqual([]);
    const { notes: late = [], irregularSteps } = await timed(regular, [0, 0.1, 0.5, 0.6], [0, 0.1, 0.2, 0.38]);
    expect(irregularSteps).toBe(2);
    expect(late.at(-1)).toBe(
      'times: 2 steps not within 10 % of 0.1 s: episode "ep1", step 1 to 2 takes 0.4 s, as if 3 steps were dropped; episode "ep2", step 2 to 3 takes 0.18 s, as if 1 step were dropped',
    );
    const many = (await timed(...Array.from({ length: 5 }, () => [0, 0.1, 0.2, 0.4]))).notes!;
    expect(many.at(-1)).toMatch(/^times: 5 steps not within.*; and 2 more$/);
    expect(await message(timed([0, 0.2, 0.4, 0.6]))).toContain(
      '"seconds" advances by 0.2 s a step, but the set has 10 steps per second',
    );
    expect(
      await message(inMemory(toySet({ episodes: 1, png, stated: false, times: [[0, 0.05, 0.1, 0.15]] }))),
    ).toContain(
      'but 10 steps per second are assumed, because the files do not say: give them with --rate, such as --rate 20',
    );
    const epoch = [1.7e9, 1.7e9, 1.7e9, 1.7e9 + 128].map(Math.fround);
    expect(await message(timed(epoch))).toMatch(
      /"seconds" has times of 1700000\d+ s, which float32 holds only to 128 s/,
    );
    expect(await message(timed([0, 0.1, Number.NaN, 0.3]))).toContain('"seconds" is NaN in step 2');
  });
});

describe('a map', () => {
  const files = () => toySet({ episodes: 2, png });
  test('replaces actions, states, cameras, instructions and times, and says what is left out', async () => {
    const map: FieldMap = {
      action: ['extra', 'action'],
      state: [],
      cameras: { front: 'observation.images.top' },
      language: ['more'],
      time: null,
    };
    const { actionDimension, stateDimension, cameras, episodes, fields, notes, actionNames } = await inMemory(files(), {
      map,
    });
    expect([actionDimension, stateDimension, cameras, actionNames]).toEqual([3, 0, ['front'], undefined]);
    expect([...episodes[1].actions.subarray(0, 6)]).toEqual([100, 1, 0, 101, 1, 1]);
    expect([episodes[1].states, episodes[1].instructions]).toEqual([null, ['always']]);
    const uses = Object.fromEntries(fields!.map(({ name, use }) => [name, use]));
    expect(uses).toMatchObject({
      extra: 'actions 0',
      action: 'actions 1 to 2',
      state: null,
      'observation.images.top': 'camera front',
    });
    expect(notes!.join()).toContain('left out: state (another field is taken as the state)');
    expect(notes!.join()).toContain('depth (depth is no colour)');
  });

  test.each<[FieldMap, string]>([
    [{ action: ['actoin'] }, 'folder: --map, "action": there is no field "actoin"; did you mean action?'],
    [{ action: ['words'] }, 'folder: --map, "action": "words" holds texts, numbers are needed'],
    [{ action: ['nothing'] }, 'folder: --map, "action": "nothing" has shape [0], which holds nothing'],
    [{ cameras: { deep: 'depth' } }, 'folder: --map, camera "deep": "depth" holds depth, pictures are needed'],
    [{ state: ['state', 'state'] }, 'folder: --map, "state": "state" is named twice'],
    [
      { action: [] },
      'folder: no field is known to be the action; fields with numbers are action [2], state [3], extra [1], seconds [1]: say which with --map FILE, { "action": ["action"], "state": [...] }',
    ],
  ])('of %o is refused in one line', async (map, words) => {
    expect(await message(inMemory(files(), { map }))).toBe(words);
  });
});

test.each<[unknown, string]>([
  [
    { actions: ['a'] },
    'there is no key "actions"; the keys of a map are action, state, cameras, language, subtask, time',
  ],
  [{ action: 'a' }, '"action" takes a list of fields, ["FIELD", ...], and not "a"'],
  [{ cameras: ['a'] }, '"cameras" takes the field of each camera, { "NAME": "FIELD" }, and not ["a"]'],
  [{ cameras: { '': 'a' } }, '"cameras" takes the field of each camera, { "NAME": "FIELD" }, and not {"":"a"}'],
  [{ subtask: ['a'] }, '"subtask" takes a field, "FIELD", or null, and not ["a"]'],
  [
    ['a'],
    'no map, which is an object such as { "action": ["FIELD"] }; the keys of a map are action, state, cameras, language, subtask, time',
  ],
])('a file with the map %o is refused by its key', (value, words) => {
  expect(() => fieldMapOf(value)).toThrow(new InputError(words));
});

test('times and bookkeeping are not suggested as the action, and what is left out is told by weight', () => {
  const field = (name: string, own: Partial<SourceField> = {}): SourceField => ({
    ...{ name, kind: 'numbers', shape: [1], use: null, reason: 'unknown', ...own },
  });
  const laidOut = [field('seconds', { use: 'time' }), field('row', { bookkeeping: true, reason: 'numbers the rows' })];
  expect(() => mappingOf([...laidOut, field('joints')], {}, 'set')).toThrow('"action": ["joints"]');
  expect(() => mappingOf([...laidOut, field('timestamp')], {}, 'set')).toThrow('"action": ["FIELD"]');
  const fields = [...laidOut, field('joints'), field('other')];
  const mapping = mappingOf(fields, { action: ['joints'] }, 'set');
  const noteOf = (own: SourceField[]) => leftOut(own, mappedFields(own, mapping, new Map([['joints', 1]])));
  expect(noteOf(fields)).toEqual(['left out: other (unknown); 1 column of bookkeeping']);
  expect(noteOf(fields.slice(0, 3))).toEqual(['left out: 1 column of bookkeeping']);
  expect(noteOf([fields[0]])).toEqual([]);
});

test('names of cameras are not shortened until they are the same', async () => {
  const named = async (...cameras: string[]) => (await inMemory(toySet({ episodes: 1, png, cameras }))).cameras;
  expect(await named('observation.images.top', 'observation.images.side')).toEqual(['top', 'side']);
  expect(await named('observation.images.top', 'observation.top')).toEqual(['images.top', 'top']);
  expect(await named('a/left/rgb', 'a/right/rgb')).toEqual(['a/left/rgb', 'a/right/rgb']);
  const wanted = inMemory(toySet({ episodes: 1, png }), { cameras: ['observation.images.top', 'film'] });
  expect((await wanted).cameras).toEqual(['top', 'film']);
  expect(await message(inMemory(toySet({ episodes: 1, png }), { cameras: ['rear'] }))).toBe(
    'data set "folder" has no camera "rear"; it has top, side, wrist, film',
  );
  expect(await message(inMemory(toySet({ episodes: 1, png }), { cameras: ['top', 'observation.images.top'] }))).toBe(
    'camera "observation.images.top" is named twice',
  );
});

test('a rate comes from the files, from the user, or is usual', async () => {
  const rated = (stated: boolean, rate?: number) =>
    inMemory(toySet({ episodes: 1, png, stated, times: [[0, 1, 2, 3].map((t) => t / (rate ?? 10))] }), { rate });
  expect([(await rated(true)).rate, (await rated(false)).rate, (await rated(false, 20)).rate]).toEqual([10, 10, 20]);
  expect(await message(rated(true, 20))).toBe('folder: the data set says 10 Hz itself; leave --rate out');
});
