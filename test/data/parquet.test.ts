import fc from 'fast-check';
import { ByteWriter } from 'hyparquet-writer/src/bytewriter.js';
import { ParquetWriter } from 'hyparquet-writer/src/parquet-writer.js';
import { snappyCompress } from 'hyparquet-writer/src/snappy.js';
import { describe, expect, test } from 'vitest';
import { memorySource } from '../../engine/files/bytes.ts';
import { randomStream, streams } from '../../engine/random.ts';
import { crc32 } from '../../model/data/checksum.ts';
import { ParquetFolder } from '../../model/data/parquet/file.ts';
import { readFooter, rowGroups } from '../../model/data/parquet/footer.ts';
import { readPageTable } from '../../model/data/parquet/pages.ts';
import { readHybrid, readPageValues } from '../../model/data/parquet/values.ts';
import { TableWriter } from '../../model/data/parquet/writer.ts';
import { expectClear, folderOf, message } from './synthetic.ts';

/** Packs every 64 KiB independently, as the reference implementation of snappy does. */
function packPieces(bytes: Uint8Array): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += 65536) {
    const packed = snappyCompress(bytes.subarray(at, at + 65536));
    parts.push(packed.subarray(packed.findIndex((byte) => byte < 128) + 1));
  }
  const length: number[] = [];
  for (let rest = bytes.length; rest > 0; rest >>>= 7) length.push((rest & 127) | (rest > 127 ? 128 : 0));
  return Uint8Array.from([length, ...parts].flatMap((part) => Array.from(part)));
}

const open = (bytes: Uint8Array) => new ParquetFolder(folderOf(new Map([['a.parquet', bytes]]))).open('a.parquet');

/** Makes a file with two row groups and a column of each kind. */
function table(rows: number): Uint8Array {
  const writer = new TableWriter([
    { name: 'list', dtype: 'float32', depth: 1 },
    { name: 'nested', dtype: 'float64', depth: 2 },
    { name: 'whole', dtype: 'int64' },
    { name: 'text', dtype: 'string' },
    { name: 'texts', dtype: 'string', depth: 1 },
    { name: 'image', dtype: 'image' },
  ]);
  for (const first of [0, rows]) {
    const steps = Array.from({ length: rows }, (_, i) => first + i);
    writer.append({
      list: steps.map((i) => [i, i / 2, Math.sin(i)]),
      nested: steps.map((i) => [
        [i, -i],
        [i * i, 1 / (i + 1)],
      ]),
      whole: steps.map((i) => 2 ** 40 + i),
      text: steps.map((i) => (i % 3 === 0 ? null : `é${i % 5}`)),
      texts: steps.map((i) => Array.from({ length: i % 4 }, (_, k) => `${i}.${k}`)),
      image: steps.map((i) => (i % 4 === 1 ? null : { bytes: new Uint8Array(i + 1).fill(i), path: `${i}.png` })),
    });
  }
  return writer.finish().slice();
}

describe('parquet', () => {
  const rows = 150;
  const bytes = table(rows);

  test('any range of rows of any kind of column', async () => {
    const file = await open(bytes);
    expect([file.rows, file.columns]).toEqual([300, ['list', 'nested', 'whole', 'text', 'texts', 'image']]);
    for (const [from, to] of [
      [0, 300],
      [7, 8],
      [149, 151],
      [300, 300],
      [151, 299],
    ]) {
      const steps = Array.from({ length: to - from }, (_, i) => from + i);
      expect(await file.numbers('list', from, to, 3, Float32Array)).toEqual(
        Float32Array.from(steps.flatMap((i) => [i, i / 2, Math.sin(i)])),
      );
      expect([...(await file.numbers('nested', from, to, 4, Float64Array))]).toEqual(
        steps.flatMap((i) => [i, -i, i * i, 1 / (i + 1)]),
      );
      expect([...(await file.numbers('whole', from, to, 1, Float64Array))]).toEqual(steps.map((i) => 2 ** 40 + i));
    }
    const all = Array.from({ length: 300 }, (_, i) => i);
    expect(await file.texts('text')).toEqual(all.map((i) => (i % 3 === 0 ? [] : [`é${i % 5}`])));
    expect(await file.texts('texts')).toEqual(all.map((i) => Array.from({ length: i % 4 }, (_, k) => `${i}.${k}`)));
    for (const i of [0, 1, 2, 149, 150, 157, 299]) {
      const expected = i % 4 === 1 ? null : new Uint8Array(i + 1).fill(i);
      expect(await file.bytes('image', i, 'bytes')).toEqual(expected);
    }
  });

  test('encodings and pages of other writers', async () => {
    const count = 5000;
    const values = Float32Array.from({ length: count }, (_, i) => Math.round(Math.sin(i) * 100) / 8);
    const whole = BigInt64Array.from({ length: count }, (_, i) => BigInt(i * 7 - 9));
    const words = Array.from({ length: count }, (_, i) => `word ${i % 97} ${i}`);
    const writer = new ByteWriter();
    const column = (name: string, type: 'FLOAT' | 'INT64' | 'BYTE_ARRAY') =>
      ({ name, type, repetition_type: 'REQUIRED' }) as const;
    const parquet = new ParquetWriter({
      writer,
      schema: [
        { name: 'schema', num_children: 6 },
        column('split', 'FLOAT'),
        column('plain', 'FLOAT'),
        column('few', 'FLOAT'),
        column('delta', 'INT64'),
        column('lengths', 'BYTE_ARRAY'),
        column('prefixes', 'BYTE_ARRAY'),
      ],
    });
    parquet.write({
      columnData: [
        { name: 'split', data: values, encoding: 'BYTE_STREAM_SPLIT' },
        { name: 'plain', data: values, encoding: 'PLAIN', codec: 'UNCOMPRESSED' },
        { name: 'few', data: values.map((x) => Math.round(x) + 0) },
        { name: 'delta', data: whole, encoding: 'DELTA_BINARY_PACKED' },
        {
          name: 'lengths',
          data: words.map((word) => new TextEncoder().encode(word)),
          encoding: 'DELTA_LENGTH_BYTE_ARRAY',
        },
        { name: 'prefixes', data: words.map((word) => new TextEncoder().encode(word)), encoding: 'DELTA_BYTE_ARRAY' },
      ],
      pageSize: 3000,
      rowGroupSize: 1999,
    });
    parquet.finish();
    const file = await open(writer.getBytes());
    const cut = values.subarray(1990, 4200);
    expect(await file.numbers('split', 1990, 4200, 1, Float32Array)).toEqual(cut);
    expect(await file.numbers('plain', 1990, 4200, 1, Float32Array)).toEqual(cut);
    expect(await file.numbers('few', 1990, 4200, 1, Float32Array)).toEqual(cut.map((x) => Math.round(x) + 0));
    expect([...(await file.numbers('delta', 10, 12, 1, Float64Array))]).toEqual([61, 68]);
    for (const name of ['lengths', 'prefixes']) expect((await file.texts(name)).flat()).toEqual(words);
  });

  test.each([
    ['SNAPPY', 'PLAIN'],
    ['SNAPPY', undefined],
    ['UNCOMPRESSED', 'PLAIN'],
    ['UNCOMPRESSED', 'RLE_DICTIONARY'],
  ] as const)('of a large page of images only the one asked for is read: %s, %s', async (codec, encoding) => {
    const random = randomStream(1, 0, streams.noise);
    // Half of each image is noise, which does not pack; every image comes twice, so that a dictionary pays.
    const images = Array.from({ length: 30 }, (_, i) =>
      Uint8Array.from({ length: 150_000 + 991 * i }, (_, k) =>
        k % 40_000 < 20_000 ? random.uint32(i * 50_000 + (k >> 2)) >>> (8 * (k & 3)) : i,
      ),
    );
    const data = [...images, ...images, null];
    const writer = new ByteWriter();
    const schema = [
      { name: 'schema', num_children: 1 },
      { name: 'image', type: 'BYTE_ARRAY', repetition_type: 'OPTIONAL' },
    ] as const;
    const parquet = new ParquetWriter({ writer, schema: [...schema], codec, compressors: { SNAPPY: packPieces } });
    parquet.write({ columnData: [{ name: 'image', data, encoding }], pageSize: 2 ** 26, rowGroupSize: 1000 });
    parquet.finish();
    let read = 0;
    const folder = folderOf(new Map([['a.parquet', writer.getBytes()]]));
    const counted = {
      name: 'folder',
      open: async (path: string) => {
        const source = await folder.open(path);
        const count = (start: number, end: number) => {
          read += end - start;
          return source.read(start, end);
        };
        return { ...source, read: count };
      },
    };
    const file = await new ParquetFolder(counted).open('a.parquet');
    expect(await file.bytes('image', 3)).toEqual(images[3]);
    for (const row of [0, 29, 30, 17, 59]) {
      read = 0;
      expect(await file.bytes('image', row)).toEqual(images[row % 30]);
      expect(read).toBeGreaterThan(0);
      expect(read).toBeLessThan(400_000);
    }
    expect(await file.bytes('image', 60)).toBeNull();
  });

  test.each(['PLAIN', 'RLE_DICTIONARY'] as const)(
    'large pages asked for at once are unpacked one after the other: %s',
    async (encoding) => {
      const writer = new ByteWriter();
      const schema = [
        { name: 'schema', num_children: 1 },
        { name: 'image', type: 'BYTE_ARRAY', repetition_type: 'REQUIRED' },
      ] as const;
      const parquet = new ParquetWriter({ writer, schema: [...schema], codec: 'UNCOMPRESSED' });
      const data = Array.from({ length: 12 }, (_, i) => new Uint8Array(2 ** 21).fill(i));
      parquet.write({ columnData: [{ name: 'image', data, encoding }], pageSize: 2 ** 26, rowGroupSize: 3 });
      parquet.finish();
      const folder = folderOf(new Map([['a.parquet', writer.getBytes()]]));
      let [reading, most] = [0, 0];
      const counted = {
        name: 'folder',
        open: async (path: string) => {
          const source = await folder.open(path);
          const count = async (start: number, end: number) => {
            const whole = end - start > 2 ** 22 ? 1 : 0;
            reading += whole;
            most = Math.max(most, reading);
            await new Promise((resolve) => setTimeout(resolve));
            reading -= whole;
            return source.read(start, end);
          };
          return { ...source, read: count };
        },
      };
      const file = await new ParquetFolder(counted).open('a.parquet');
      const images = await Promise.all([11, 4, 0, 7].map((row) => file.bytes('image', row)));
      expect(images.map((image) => image![5])).toEqual([11, 4, 0, 7]);
      expect(most).toBe(1);
    },
  );

  test('a damaged file is read, or refused in one line that names it', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        fc.option(fc.nat(bytes.length), { nil: bytes.length, freq: 4 }),
        async (changes, end) => {
          const damaged = bytes.slice(0, end);
          for (const [place, byte] of changes) if (place < end) damaged[place] = byte;
          try {
            const file = await open(damaged);
            for (const column of file.columns) {
              if (column === 'image') await file.bytes(column, 5, 'bytes');
              else if (column.startsWith('text')) await file.texts(column);
              else await file.numbers(column, 0, file.rows, { list: 3, nested: 4 }[column] ?? 1, Float32Array);
            }
          } catch (error) {
            expectClear(error, 'folder/a.parquet: ');
          }
        },
      ),
      { seed: 5, numRuns: 400 },
    );
  }, 60_000);

  test('a page with a wrong checksum, and one that claims to unpack to more than it can', async () => {
    const source = memorySource(bytes, 'a.parquet');
    const { metadata, schema } = await readFooter(source);
    const [chunk] = rowGroups(metadata, schema, 'a.parquet')[0].columns.values();
    const pages = await readPageTable(source, chunk, 'column "list"');
    const [page] = pages.pages;
    const read = (crc: number) =>
      readPageValues(source, chunk, pages, { ...page, header: { ...page.header, crc } }, 'column "list"');
    const crc = crc32(bytes.subarray(page.start, page.end)) | 0;
    expect((await read(crc)).values.length).toBeGreaterThan(0);
    const line = `a.parquet: column "list": damaged page at byte ${page.start} (checksum)`;
    expect(await message(read(crc ^ 1))).toBe(line);
    const unpacked = readPageTable(source, { ...chunk, codec: 'UNCOMPRESSED' }, 'column "list"');
    expect(await message(unpacked)).toMatch(
      /^a\.parquet: column "list": a page at byte \d+ says it unpacks to \d+ bytes$/,
    );
  });

  test('runs that never end, or are longer than asked for', () => {
    const read = (bytes: number[], width: number, count: number) => [
      ...readHybrid(Uint8Array.from(bytes), 0, width, new Uint8Array(count)),
    ];
    expect(read([6, 1, 3, 0b10], 1, 5)).toEqual([1, 1, 1, 0, 1]); // a run of 3 values, then 8 packed ones
    expect(read([254, 255, 255, 255, 15, 1], 1, 4)).toEqual([1, 1, 1, 1]); // 2^31 - 1 values are claimed, 4 are wanted
    expect(() => read([0, 1], 1, 1)).toThrow('a run of no values');
    expect(() => read([255, 255, 255, 255, 255, 255, 255], 1, 1)).toThrow('a run without end');
    expect(() => read([6, 1], 1, 4)).toThrow('it ends before its last value');
  });
});
