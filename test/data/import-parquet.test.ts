import fc from 'fast-check';
import type { ColumnMetaData } from 'hyparquet';
import { ByteWriter } from 'hyparquet-writer/src/bytewriter.js';
import { ParquetWriter } from 'hyparquet-writer/src/parquet-writer.js';
import { describe, expect, test } from 'vitest';
import { joinBytes, memorySource } from '../../engine/files/bytes.ts';
import { ParquetFile } from '../../model/data/import/parquet.ts';
import { pageHead, readHybrid } from '../../model/data/import/parquet-encoding.ts';
import { chunkPages, type Leaf } from '../../model/data/import/parquet-pages.ts';
import { TableWriter } from '../../model/data/parquet/writer.ts';
import { expectClear, folderOf, message } from './synthetic.ts';

const open = (bytes: Uint8Array) => ParquetFile.open(folderOf(new Map([['a.parquet', bytes]])), 'a.parquet');

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

describe('parquet files of other programs', () => {
  const rows = 150;
  const bytes = table(rows);

  test('any range of rows of any kind of column', async () => {
    const file = await open(bytes);
    expect([file.rows, [...file.columns.keys()]]).toEqual([300, ['list', 'nested', 'whole', 'text', 'texts', 'image']]);
    expect([file.width(file.leaf('list')), file.width(file.leaf('nested')), file.width(file.leaf('texts'))]).toEqual([
      3,
      4,
      null,
    ]);
    for (const [from, to] of [
      [0, 300],
      [7, 8],
      [149, 151],
      [300, 300],
      [151, 299],
    ]) {
      const steps = Array.from({ length: to - from }, (_, i) => from + i);
      expect([...(await file.numbers('list', from, to, 3))]).toEqual([
        ...Float32Array.from(steps.flatMap((i) => [i, i / 2, Math.sin(i)])),
      ]);
      expect([...(await file.numbers('nested', from, to, 4))]).toEqual(
        steps.flatMap((i) => [i, -i, i * i, 1 / (i + 1)]),
      );
      expect([...(await file.numbers('whole', from, to, 1))]).toEqual(steps.map((i) => 2 ** 40 + i));
      const lists = async (column: string, field?: string) => file.lists(file.leaf(column, field), from, to);
      expect(await lists('text')).toEqual(steps.map((i) => [i % 3 === 0 ? null : `é${i % 5}`]));
      expect(await lists('texts')).toEqual(steps.map((i) => Array.from({ length: i % 4 }, (_, k) => `${i}.${k}`)));
      expect(await lists('image', 'bytes')).toEqual(
        steps.map((i) => [i % 4 === 1 ? null : new Uint8Array(i + 1).fill(i)]),
      );
    }
    const places: number[] = [];
    for await (const { values, place } of file.pages(file.leaf('image', 'bytes'), 0, 300))
      for (const value of values as Iterable<Uint8Array>) {
        const at = place(value)!;
        expect(bytes.slice(at, at + value.length)).toEqual(new Uint8Array(value));
        places.push(at);
      }
    expect(places).toHaveLength(225);
  });

  test('a row of another width, an empty place and a range beyond the end are named', async () => {
    const writer = new TableWriter([
      { name: 'uneven', dtype: 'float32', depth: 1 },
      { name: 'holed', dtype: 'float32', depth: 1 },
    ]);
    writer.append({
      uneven: [[1, 2], [3], [4, 5]],
      holed: [
        [1, 2],
        [3, null],
        [4, 5],
      ],
    });
    const file = await open(writer.finish().slice());
    expect(await message(file.numbers('uneven', 0, 3, 2))).toBe(
      'folder/a.parquet: column "uneven" does not hold 2 numbers in row 1',
    );
    expect(await message(file.numbers('holed', 0, 3, 2))).toBe(
      'folder/a.parquet: column "holed" has an empty place in row 1, place 1 of 2',
    );
    expect(await message(file.numbers('holed', 2, 4, 2))).toBe(
      'folder/a.parquet: has 3 rows, rows 2 to 3 were expected',
    );
    expect(await message(Promise.resolve().then(() => file.leaf('none')))).toBe(
      'folder/a.parquet: no column "none"; there are uneven, holed',
    );
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
    expect(await file.numbers('split', 1990, 4200, 1)).toEqual(cut);
    expect(await file.numbers('plain', 1990, 4200, 1)).toEqual(cut);
    expect(await file.numbers('few', 1990, 4200, 1)).toEqual(cut.map((x) => Math.round(x) + 0));
    expect([...(await file.numbers('delta', 10, 12, 1))]).toEqual([61, 68]);
    for (const name of ['lengths', 'prefixes'])
      expect(
        (await file.lists(file.leaf(name), 0, count)).map(([bytes]) => new TextDecoder().decode(bytes as Uint8Array)),
      ).toEqual(words);
  });

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
            for (const [column, leaves] of file.columns) {
              if (column === 'image' || column.startsWith('text'))
                await file.lists(leaves[0], 0, Math.min(file.rows, 1000));
              else await file.numbers(column, 0, file.rows, { list: 3, nested: 4 }[column] ?? 1);
            }
          } catch (error) {
            expectClear(error, 'folder/a.parquet: ');
          }
        },
      ),
      { seed: 5, numRuns: 300 },
    );
  }, 60_000);

  test('what a page claims takes no memory before it is checked', async () => {
    const leaf: Leaf = { path: ['x'], element: { name: 'x', type: 'INT32' }, full: 1, entry: 0, lists: 0 };
    const run = [254, 255, 255, 255, 15, 1]; // 2^31 - 1 times the number 1
    const levels = (count: number) => [count, 0, 0, 0, ...run.slice(0, count)];
    const first = async (head: Uint8Array, body: number[], chunk: Partial<ColumnMetaData> = {}) => {
      const bytes = joinBytes([new Uint8Array(4), head, Uint8Array.from(body)]);
      const size = BigInt(bytes.length - 4);
      const metadata = {
        num_values: 10n,
        total_compressed_size: size,
        total_uncompressed_size: size,
        data_page_offset: 4n,
      };
      const whole = { codec: 'UNCOMPRESSED', ...metadata, ...chunk } as ColumnMetaData;
      const source = memorySource(bytes, 'a.parquet');
      for await (const { values } of chunkPages(source, leaf, whole, 0, 10)) return values;
      return null;
    };
    const before = process.memoryUsage().rss;
    // Levels and dictionary places with runs far beyond the page's values: the values are read, the rest is not.
    const plain = [...levels(6), ...new Array(40).fill(7)];
    expect(await first(pageHead(plain.length, 10, 0), plain)).toHaveLength(10);
    const dictionary = [...levels(6), 1, ...run];
    expect(await message(first(pageHead(dictionary.length, 10, 8), dictionary))).toMatch(
      /damaged page at byte 4 \(no dictionary\)/,
    );
    expect(await message(first(pageHead(plain.length, 2 ** 30, 0), plain))).toMatch(
      /says it holds 1073741824 of 10 values/,
    );
    expect(await message(first(pageHead(2 ** 31 - 8, 10, 0), plain))).toMatch(/leaves its column/);
    const huge = { num_values: 2n ** 40n, total_uncompressed_size: 2n ** 40n };
    expect(await message(first(pageHead(plain.length, 10, 0), plain, huge))).toMatch(
      /has 1099511627776 values in a row group/,
    );
    // A page of two bytes that says it unpacks to 512 MB: the header of parquet.thrift, by hand.
    const packed = Uint8Array.from([
      0x15, 0, 0x15, 0x80, 0x80, 0x80, 0x80, 0x04, 0x15, 4, 0x2c, 0x15, 20, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0,
    ]);
    const zipped = { codec: 'ZSTD', total_uncompressed_size: 2n ** 40n } as const;
    expect(await message(first(packed, [1, 2], zipped))).toMatch(/says it unpacks to 536870912 bytes/);
    expect(process.memoryUsage().rss - before).toBeLessThan(64 * 2 ** 20);
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
