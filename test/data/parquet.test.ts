import fc from 'fast-check';
import { ByteWriter } from 'hyparquet-writer/src/bytewriter.js';
import { ParquetWriter } from 'hyparquet-writer/src/parquet-writer.js';
import { describe, expect, test } from 'vitest';
import { InputError } from '../../engine/errors.ts';
import { ParquetFolder } from '../../model/data/parquet/file.ts';
import { readHybrid } from '../../model/data/parquet/values.ts';
import { TableWriter } from '../../model/data/parquet/writer.ts';
import { folderOf } from './synthetic.ts';

const open = (bytes: Uint8Array) => new ParquetFolder(folderOf(new Map([['a.parquet', bytes]]))).open('a.parquet');

/** Two row groups of a column of each kind. */
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
            expect(error).toBeInstanceOf(InputError);
            expect((error as Error).message).toMatch(/^folder\/a\.parquet: [^\n]+$/);
          }
        },
      ),
      { seed: 5, numRuns: 400 },
    );
  }, 60_000);

  test('runs that never end, or are longer than asked for', () => {
    const read = (bytes: number[], width: number, count: number) => [
      ...readHybrid(Uint8Array.from(bytes), 0, width, new Uint8Array(count)),
    ];
    expect(read([6, 1, 3, 0b10], 1, 5)).toEqual([1, 1, 1, 0, 1]); // a run of 3, then 8 packed
    expect(read([254, 255, 255, 255, 15, 1], 1, 4)).toEqual([1, 1, 1, 1]); // 2^31 - 1 said, 4 wanted
    expect(() => read([0, 1], 1, 1)).toThrow('a run of no values');
    expect(() => read([255, 255, 255, 255, 255, 255, 255], 1, 1)).toThrow('a run without end');
    expect(() => read([6, 1], 1, 4)).toThrow('it ends before its last value');
  });
});
