import fc from 'fast-check';
import { zipSync } from 'fflate';
import { describe, expect, test } from 'vitest';
import { npzImporter } from '../../model/data/import/npz.ts';
import type { Source } from '../../model/data/import/source.ts';
import { namesOf, openSource, readEpisodes } from './sources.ts';
import { expectClear, message, rows, text } from './synthetic.ts';
import { join8, utf8 } from './tfrecord-files.ts';

/** An array as numpy writes it. */
function npy(descr: string, shape: number[], values: ArrayBufferView, fortran = false): Uint8Array {
  const order = fortran ? 'True' : 'False';
  const words = `{'descr': ${descr}, 'fortran_order': ${order}, 'shape': (${shape.join(', ')}${shape.length === 1 ? ',' : ''}), }`;
  const line = `${words.padEnd(117)}\n`;
  const body = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return join8([0x93, 78, 85, 77, 80, 89, 1, 0, line.length, 0], utf8(line), body);
}
const f8 = (values: number[], ...shape: number[]) => npy("'<f8'", shape, Float64Array.from(values));
const f4 = (values: number[], ...shape: number[]) => npy("'<f4'", shape, Float32Array.from(values));
const ends = (...values: number[]) => npy("'<i8'", [values.length], BigInt64Array.from(values.map(BigInt)));
/** Texts as numpy's dtype U: UTF-32, filled up with zeros. */
const unicode = (...words: string[]) =>
  npy(
    "'<U8'",
    [words.length],
    Uint32Array.from(words.flatMap((word) => Array.from({ length: 8 }, (_, i) => [...word][i]?.codePointAt(0) ?? 0))),
  );
const count = (length: number) => Array.from({ length }, (_, i) => i);

const arrays = () => ({
  'action.npy': f8(rows(5, 2).flat(), 5, 2),
  'state.npy': f4(rows(5, 3).flat(), 5, 3),
  'episode_ends.npy': ends(2, 5),
});
const archive = (change: Record<string, Uint8Array> = {}, level: 0 | 6 = 6) =>
  zipSync({ ...arrays(), ...change }, { level });
const open = (bytes: Uint8Array): Promise<Source> => openSource(npzImporter, new Map([['made.npz', bytes]]));
const read = async (bytes: Uint8Array) => readEpisodes(await open(bytes));

describe('the importer of npz', () => {
  test('episodes by their ends, packed or not', async () => {
    for (const level of [0, 6] as const) {
      const source = await open(archive({}, level));
      expect([source.name, source.count, source.rate]).toEqual(['made', 2, {}]);
      expect([namesOf(source, 'action'), namesOf(source, 'state')]).toEqual([['action'], ['state']]);
      const [one, two] = await readEpisodes(source);
      expect([one.id, one.length, two.id, two.length]).toEqual(['episode_000000', 2, 'episode_000001', 3]);
      expect(two.where).toBe('folder/made.npz, rows 2 to 4');
      expect(one.numbers.action).toEqual(Float64Array.from(rows(5, 2).slice(0, 2).flat()));
      expect(two.numbers.state).toEqual(Float32Array.from(rows(5, 3).slice(2).flat()));
      expect((await readEpisodes(source, 1)).map(({ id }) => id)).toEqual(['episode_000001']);
    }
  });

  test('types of numbers and texts', async () => {
    const source = await open(
      archive({
        'half.npy': npy("'<f2'", [5], Uint16Array.of(0x3c00, 0xc000, 0, 0x7bff, 1)),
        'flag.npy': npy("'|b1'", [5], Uint8Array.of(1, 0, 1, 0, 1)),
        'large.npy': npy("'<u8'", [5], BigUint64Array.of(0n, 1n, 2n ** 52n, 3n, 4n)),
        'state.npy': npy("'<f4'", [5, 2, 3], Float32Array.from(count(30))),
        'names.npy': npy("'|S3'", [5], utf8('abca\0\0b\0\0c\0\0\0\0\0')),
        'language.npy': unicode('push é', 'pull 🦾'),
      }),
    );
    const [one, two] = await readEpisodes(source);
    expect([...one.numbers.half, ...two.numbers.half]).toEqual([1, -2, 0, 65504, 2 ** -24]);
    expect([...two.numbers.flag, ...one.numbers.large, ...two.numbers.large]).toEqual([1, 0, 1, 0, 1, 2 ** 52, 3, 4]);
    expect([...two.numbers.state.subarray(0, 6)]).toEqual([12, 13, 14, 15, 16, 17]);
    expect([one.texts.language, two.texts.language]).toEqual([[['push é']], [['pull 🦾']]]);
    expect([one.texts.names, two.texts.names]).toEqual([
      [['abc'], ['a']],
      [['b'], ['c'], ['']],
    ]);
  });

  test('texts that are not UTF-8 are refused', async () => {
    const bytes = archive({ 'task.npy': npy("'|S4'", [2], Uint8Array.of(99, 97, 102, 101, 99, 97, 102, 0xe9)) });
    expect(await message(read(bytes))).toBe(
      'folder/made.npz: array "task": text 1 is not in UTF-8: save it with dtype U',
    );
  });

  test('marks of episodes are not passed over where their ends are not stated', async () => {
    const { 'episode_ends.npy': _, ...others } = arrays();
    expect((await read(zipSync(others))).map(({ length }) => length)).toEqual([5]);
    for (const name of ['terminals', 'is_first', 'episode_index', 'data/episode_lengths'])
      expect(await message(read(zipSync({ ...others, [`${name}.npy`]: ends(0, 1) })))).toBe(
        `folder/made.npz: array "${name}" says where episodes are, and is not read: save their ends as an array "episode_ends"`,
      );
  });

  test('what has no use is named with the reason', async () => {
    const source = await open(
      archive({
        'extra.npy': f8(count(5), 5),
        'objects.npy': npy("'|O'", [5], utf8('pickle')),
        'complex.npy': npy("'<c8'", [5], new Float32Array(10)),
        'record.npy': npy("[('a', '<f4'), ('b', '<i4')]", [5], new Float32Array(10)),
        'one.npy': f8([1]),
        'big.npy': npy("'>i4'", [5], new Int32Array(5)),
        'fortran.npy': npy("'<f4'", [5, 2], new Float32Array(10), true),
        'normals.npy': f4(new Array(960).fill(-1), 5, 8, 8, 3),
        'other_rows.npy': f8(count(7), 7),
        'depth.npy': f4(count(20), 5, 2, 2),
        'notes.txt': text('words'),
      }),
    );
    const reasons = Object.fromEntries(source.fields.flatMap(({ name, reason }) => (reason ? [[name, reason]] : [])));
    expect(reasons).toMatchObject({
      extra: 'its name says no use: --map gives it one',
      objects: 'Python objects (pickle) are not read: save it with another dtype',
      complex: expect.stringContaining('dtype c8 is not read'),
      record: expect.stringContaining('dtype of several fields is not read'),
      one: 'not one number or text for each step',
      big: 'its bytes are in big-endian order: save it with the usual dtype',
      fortran: 'it is in Fortran order: save it with np.ascontiguousarray',
      normals: 'numbers from -1 to -1; pictures have 0 to 1 or 0 to 255',
      other_rows: 'it has shape [7], and the set has 5 steps of 2 episodes',
      depth: 'depth is no colour',
      'notes.txt': 'a file that is no array',
      episode_ends: 'it says where episodes end',
    });
    expect(source.fields.filter(({ use, reason }) => use === null && !reason)).toEqual([]);
  });

  test.each([
    ['picked', 0],
    ['unpacked', 6],
  ] as const)('pictures of any layout are %s', async (_, level) => {
    const [height, width] = [8, 9];
    const size = height * width;
    const bytes = Uint8Array.from(count(5 * height * width * 3));
    const planar = Float32Array.from({ length: bytes.length }, (_, i) => {
      const [c, pixel] = [Math.floor(i / size) % 3, i % size];
      return bytes[Math.floor(i / (3 * size)) * 3 * size + pixel * 3 + c] / 255;
    });
    const source = await open(
      archive(
        {
          'img.npy': npy("'|u1'", [5, height, width, 3], bytes),
          'planar.npy': npy("'<f4'", [5, 3, height, width], planar),
          'floats.npy': npy("'<f4'", [5, height, width, 3], Float32Array.from(bytes)),
          'alpha.npy': npy(
            "'|u1'",
            [5, height, width, 4],
            Uint8Array.from([...bytes].flatMap((b, i) => (i % 3 === 2 ? [b, 9] : [b]))),
          ),
          'grey.npy': npy("'|u1'", [5, height, width, 1], Uint8Array.from(count(5 * size))),
        },
        level,
      ),
    );
    expect(namesOf(source, 'camera')).toEqual(['img', 'planar', 'floats', 'alpha', 'grey']);
    expect(source.fields.find(({ name }) => name === 'planar')!.shape).toEqual([height, width, 3]);
    const [, second] = await readEpisodes(source);
    const pixelsOf = async (field: string) => {
      const pictures = second.pictures[field]!;
      const all = [];
      if (pictures.kind === 'unpack') for await (const one of source.unpack!(pictures.place)) all.push(one);
      if (pictures.kind === 'pick') for (const i of count(3)) all.push(await source.picture!(pictures.place, i));
      return all.flatMap((one) => ('pixels' in one ? [...one.pixels] : []));
    };
    expect(second.pictures.img!.kind).toBe(level === 0 ? 'pick' : 'unpack');
    const right = [...bytes.subarray(2 * 3 * size)];
    for (const field of ['img', 'floats', 'alpha', 'planar']) expect(await pixelsOf(field)).toEqual(right);
    expect((await pixelsOf('grey')).slice(0, 6)).toEqual([144, 144, 144, 145, 145, 145]);
  });

  test('wrong archives and arrays are refused with the true reason', async () => {
    const values = Float64Array.from(rows(5, 2).flat());
    const cases: [Uint8Array, string][] = [
      [
        archive({ 'action.npy': f8([...values], 5, 3) }),
        'folder/made.npz: array "action": of shape [5,3] needs 120 bytes, it has 80',
      ],
      [archive({ 'state.npy': f8([...values], 10) }), 'array "state": it has shape [10], and the set has 5 steps of 2'],
      [archive({ 'episode_ends.npy': ends(2, 2, 5) }), '"episode_ends" has 2 in place 1; it grows, up to the 5 steps'],
      [archive({ 'episode_ends.npy': ends(2, 4) }), '"episode_ends" has 4 at its end'],
      [archive({ 'state.npy': utf8('no array of numpy') }), 'array "state": no npy file'],
      [
        archive({ 'action.npy': npy("'<f4'", [5, 2], new Float32Array(10), true) }),
        'array "action": it is in Fortran order: save it',
      ],
      [archive({ 'episode_ends.npy': npy("'|O'", [2], utf8('pickle')) }), 'array "episode_ends": Python objects'],
      [archive().slice(0, 200), 'folder/made.npz: cut off, or no zip archive'],
    ];
    for (const [bytes, expected] of cases) expect(await message(read(bytes))).toContain(expected);
    const two = new Map([
      ['a.npz', archive()],
      ['b.npz', archive()],
    ]);
    expect(await message(openSource(npzImporter, two))).toBe('folder: which data set? Name one with --dataset: a, b');
    expect((await openSource(npzImporter, two, 'b')).name).toBe('b');
  });

  test('unpacking stops at the size that the directory says', async () => {
    const bytes = archive({
      'action.npy': f8(new Array(2 ** 18).fill(0), 2 ** 17, 2),
      'episode_ends.npy': ends(2 ** 17),
    });
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const entry = bytes.findIndex((_, at) => at + 4 <= bytes.length && view.getUint32(at, true) === 0x02014b50);
    view.setUint32(entry + 24, view.getUint32(entry + 24, true) - 1, true);
    expect(await message(open(bytes))).toBe(
      'folder/made.npz: file "action.npy" of the archive is damaged (checksum): fetch the archive again',
    );
    view.setUint32(entry + 24, 2 ** 31, true);
    expect(await message(open(bytes))).toMatch(
      /"action.npy" of the archive says it unpacks from \d+ to 2147483648 bytes: damaged/,
    );
  });

  test('no damage changes a value', async () => {
    const extra = {
      'img.npy': npy("'|u1'", [5, 2, 3, 3], Uint8Array.from(count(90))),
      'language.npy': unicode('a', 'b'),
    };
    for (const level of [0, 6] as const) {
      const bytes = archive(extra, level);
      const whole = await read(bytes);
      const property = fc.asyncProperty(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(60), async (place, byte, cut) => {
        const damaged = bytes.slice(0, bytes.length - Math.max(0, cut - 40));
        damaged[place] = byte;
        await read(damaged).then(
          (episodes) => expect(episodes).toEqual(whole),
          (error) => expectClear(error, 'folder/made.npz'),
        );
      });
      await fc.assert(property, { seed: 18, numRuns: 400 });
    }
  });
});
