import fc from 'fast-check';
import type { ColumnMetaData } from 'hyparquet';
import { ByteWriter, ParquetWriter } from 'hyparquet-writer';
import { describe, expect, test } from 'vitest';
import { joinBytes } from '../../engine/files/bytes.ts';
import { ParquetFile } from '../../model/data/import/parquet.ts';
import { decodePages, type Leaf, pageHead } from '../../model/data/import/parquet-pages.ts';
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
      expect(await lists('texts')).toEqual(
        steps.map((i) => (i % 4 === 0 ? [null] : Array.from({ length: i % 4 }, (_, k) => `${i}.${k}`))),
      );
      expect(await lists('image', 'bytes')).toEqual(
        steps.map((i) => [i % 4 === 1 ? null : new Uint8Array(i + 1).fill(i)]),
      );
    }
    const places: number[] = [];
    for await (const { values, place } of file.pages(file.leaf('image', 'bytes'), 0, 300))
      for (const value of values as Uint8Array[]) {
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
        { name: 'schema', num_children: 5 },
        column('split', 'FLOAT'),
        column('plain', 'FLOAT'),
        column('few', 'FLOAT'),
        column('delta', 'INT64'),
        column('lengths', 'BYTE_ARRAY'),
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
    const decoded = await file.lists(file.leaf('lengths'), 0, count);
    expect(decoded.map(([bytes]) => new TextDecoder().decode(bytes as Uint8Array))).toEqual(words);
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
  });

  test('what a page claims takes no memory before it is checked', async () => {
    const leaf: Leaf = { path: ['x'], element: { name: 'x', type: 'INT32' }, full: 1, lists: 0 };
    const levels = (...runs: number[]) => [runs.length, 0, 0, 0, ...runs];
    const endless = [254, 255, 255, 255, 15, 1]; // 2^31 - 1 times the number 1
    const values = new Array(40).fill(7);
    const first = async (head: Uint8Array, body: number[], chunk: Partial<ColumnMetaData> = {}) => {
      const bytes = joinBytes([head, Uint8Array.from(body)]);
      const metadata = { num_values: 10n, total_uncompressed_size: BigInt(bytes.length) };
      const whole = { codec: 'UNCOMPRESSED', ...metadata, ...chunk } as ColumnMetaData;
      for await (const { values } of decodePages(bytes, 4, leaf, whole)) return values;
      return null;
    };
    const page = (body: number[], encoding = 0, count = 10, length = body.length) =>
      first(pageHead(0, length, [count, encoding, 3, 3]), body);
    const before = process.memoryUsage().rss;
    expect(await page([...levels(20, 1), ...values])).toHaveLength(10);
    expect(await page([...levels(6, 1, 3, 0b1111111), ...values])).toHaveLength(10); // a run of 3 values, then packed ones
    const refused = (reading: Promise<unknown>, complaint: string) => expect(reading).rejects.toThrow(complaint);
    await refused(page([...levels(...endless), ...values]), 'a run of 2147483647 among 10 values');
    await refused(page([...levels(20, 1), 1, ...endless], 8), 'a run of 2147483647 among 10 values');
    await refused(page([...levels(20, 1), 1, 20, 1], 8), 'a value is not in the dictionary');
    await refused(page([...levels(0, 1), ...values]), 'a run of no values');
    await refused(page([...levels(...new Array(11).fill(255)), ...values]), 'a number without end');
    await refused(page([...levels(6, 1), ...values]), 'a page is cut off');
    await refused(page([...levels(20, 1), ...values], 7), 'encoding DELTA_BYTE_ARRAY');
    await refused(page([...levels(20, 1), ...values], 0, 2 ** 30), 'says it holds 1073741824 of 10 values');
    await refused(page([...levels(20, 1), ...values], 0, 10, 2 ** 30), 'leaves its column');
    const many = first(pageHead(0, 46, [10, 0, 3, 3]), [], { num_values: 2n ** 40n });
    await refused(many, 'says it holds 1099511627776 values');
    // A page of two bytes that says it unpacks to 512 MB: the header of parquet.thrift, by hand.
    const packed = Uint8Array.from([
      0x15, 0, 0x15, 0x80, 0x80, 0x80, 0x80, 0x04, 0x15, 4, 0x2c, 0x15, 20, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0,
    ]);
    const zipped = { codec: 'ZSTD', total_uncompressed_size: 2n ** 40n } as const;
    await refused(first(packed, [1, 2], zipped), 'says it unpacks to 536870912 bytes');
    expect(process.memoryUsage().rss - before).toBeLessThan(64 * 2 ** 20);
  });
});
