import { spawnSync } from 'node:child_process';
import { mkdtemp, open, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { checksum, crc32 } from '../engine/files/checksum.ts';
import { InputError } from '../engine/files/errors.ts';
import { encodeBfloat16, encodeFloat16 } from '../engine/files/half.ts';
import { readSafetensors } from '../engine/files/safetensors.ts';
import { type TensorArray, type TensorType, tensorArrays } from '../engine/files/safetensors-header.ts';
import { safetensorsChunks, type TensorToWrite, writeSafetensors } from '../engine/files/safetensors-writer.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-safetensors-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** A file of any header and data. */
function fileOf(header: unknown, data: number | Uint8Array = 0, length?: number): Uint8Array {
  const text = typeof header === 'string' ? header : JSON.stringify(header);
  const bytes = new TextEncoder().encode(text);
  const body = typeof data === 'number' ? new Uint8Array(data) : data;
  const file = new Uint8Array(8 + bytes.length + body.length);
  new DataView(file.buffer).setBigUint64(0, BigInt(length ?? bytes.length), true);
  file.set(bytes, 8);
  file.set(body, 8 + bytes.length);
  return file;
}

async function bytesOf(tensors: readonly TensorToWrite[], metadata?: Record<string, string>): Promise<Uint8Array> {
  const chunks: BlobPart[] = [];
  for await (const chunk of safetensorsChunks(tensors, { metadata })) chunks.push(chunk.slice());
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/** The message of the error of opening `file` and reading every tensor. */
async function complaint(file: Uint8Array): Promise<string> {
  try {
    const opened = await readSafetensors(file, 'x.safetensors');
    for (const { name, dtype } of opened.tensors.values()) await opened.read(name, dtype);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    expect(error.message).not.toContain('\n');
    expect(error.message).toMatch(/^x\.safetensors: /);
    return error.message;
  }
  return 'no error';
}

const anyTensors = fc.uniqueArray(
  fc
    .record({
      name: fc.string({ unit: 'binary', minLength: 1, maxLength: 12 }).filter((name) => name !== '__metadata__'),
      dtype: fc.constantFrom(...(Object.keys(tensorArrays) as TensorType[])),
      shape: fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 3 }),
      seed: fc.integer({ min: 0, max: 255 }),
    })
    .map(({ name, dtype, shape, seed }) => {
      const kind = tensorArrays[dtype];
      const elements = shape.reduce((product, size) => product * size, 1);
      const bytes = Uint8Array.from({ length: elements * kind.BYTES_PER_ELEMENT }, (_, i) => (i * 37 + seed) % 251);
      return { name, dtype, shape, data: new kind(bytes.buffer) as TensorArray };
    }),
  { selector: ({ name }) => name, maxLength: 6 },
);

describe('safetensors round trip', () => {
  test('any tensors, in memory, as a Blob and as a file', async () => {
    await fc.assert(
      fc.asyncProperty(anyTensors, fc.dictionary(fc.string(), fc.string()), async (tensors, metadata) => {
        const bytes = await bytesOf(tensors, metadata);
        const path = join(folder, 'any.safetensors');
        await writeSafetensors(path, tensors, { metadata });
        for (const source of [bytes, bytes.slice().buffer, new Blob([bytes.slice()]), path]) {
          const file = await readSafetensors(source as Uint8Array);
          expect(new Map(file.metadata)).toEqual(new Map(Object.entries(metadata)));
          expect(file.tensors.size).toBe(tensors.length);
          for (const { name, dtype, shape, data } of tensors) {
            expect(file.entry(name).start % tensorArrays[dtype].BYTES_PER_ELEMENT).toBe(0);
            expect(await file.read(name, dtype, { shape })).toEqual(data);
          }
          await file.close();
        }
      }),
      { seed: 3, numRuns: 60 },
    );
  });

  test('tensors made when their turn comes, whole and in pieces', async () => {
    const made: string[] = [];
    const piece = (from: number) => Float32Array.from([from, from + 1, from + 2]);
    const bytes = await bytesOf([
      {
        name: 'pieces',
        dtype: 'F32',
        shape: [2, 3],
        data: async function* () {
          made.push('first piece');
          yield piece(0);
          made.push('second piece');
          yield piece(3);
        },
      },
      {
        name: 'whole',
        dtype: 'I32',
        shape: [1],
        data: async () => {
          made.push('whole');
          return Int32Array.of(-7);
        },
      },
    ]);
    expect(made).toEqual(['first piece', 'second piece', 'whole']);
    const file = await readSafetensors(bytes);
    expect([...(await file.read('pieces', 'F32'))]).toEqual([0, 1, 2, 3, 4, 5]);
    expect([...(await file.read('pieces', 'F32', { rows: [1, 2] }))]).toEqual([3, 4, 5]);
    expect([...(await file.read('whole', 'I32'))]).toEqual([-7]);
  });

  test('halves and doubles as float32', async () => {
    const numbers = Float32Array.from([1.5, -0.25, 3]);
    const file = await readSafetensors(
      await bytesOf([
        { name: 'f16', dtype: 'F16', shape: [3], data: encodeFloat16(numbers) },
        { name: 'bf16', dtype: 'BF16', shape: [3], data: encodeBfloat16(numbers) },
        { name: 'f32', dtype: 'F32', shape: [3], data: numbers },
        { name: 'f64', dtype: 'F64', shape: [3], data: Float64Array.from(numbers) },
        { name: 'ids', dtype: 'I32', shape: [1], data: Int32Array.of(4) },
      ]),
      'x.safetensors',
    );
    for (const name of ['f16', 'bf16', 'f32', 'f64'])
      expect(await file.readFloat32(name, { shape: [3] })).toEqual(numbers);
    await expect(file.readFloat32('ids')).rejects.toThrow(
      'x.safetensors: tensor "ids" has dtype I32, a floating-point',
    );
  });
});

describe('safetensors read into pieces of rows', async () => {
  const values = Float32Array.from({ length: 10 }, (_, i) => i);
  const into = async (name: string, rows: number[], data = values) => {
    const written: Float32Array[] = [];
    const pieces = rows.map((count) => ({ shape: [count, 2], write: (own: Float32Array) => void written.push(own) }));
    const shape = [rows.reduce((sum, count) => sum + count), 2];
    const file = await bytesOf([
      { name: 'a', dtype: 'F32', shape: [5, 2], data },
      { name: 'b', dtype: 'BF16', shape: [5, 2], data: encodeBfloat16(data) },
    ]);
    await (await readSafetensors(file, 'x.safetensors')).readInto(name, { shape, pieces });
    return written;
  };

  test.each(['a', 'b'])('each piece gets its rows of %s', async (name) => {
    expect(await into(name, [2, 2, 1])).toEqual([values.subarray(0, 4), values.subarray(4, 8), values.subarray(8)]);
    expect(await into(name, [5])).toEqual([values]);
  });

  test('another shape, and a number that is none, are named by the whole tensor', async () => {
    await expect(into('a', [2, 2])).rejects.toThrow('x.safetensors: tensor "a" has shape [5, 2], [4, 2] was expected');
    const bad = values.map((value) => (value === 9 ? Number.NaN : value));
    await expect(into('b', [2, 2, 1], bad)).rejects.toThrow('damaged: tensor "b" holds NaN at element 9');
  });
});

describe('safetensors: what is asked for is not there', async () => {
  const bytes = await bytesOf([{ name: 'weight', dtype: 'F32', shape: [2, 3], data: new Float32Array(6) }]);
  const file = await readSafetensors(bytes, 'x.safetensors');
  test.each([
    [
      'missing name',
      () => file.read('bias', 'F32'),
      'x.safetensors: tensor "bias" is not in the file (it has "weight")',
    ],
    ['wrong dtype', () => file.read('weight', 'F16'), 'x.safetensors: tensor "weight" has dtype F32, F16 was expected'],
    [
      'wrong shape',
      () => file.read('weight', 'F32', { shape: [3, 2] }),
      'x.safetensors: tensor "weight" has shape [2, 3], [3, 2] was expected',
    ],
    [
      'rows beyond the end',
      () => file.read('weight', 'F32', { rows: [1, 3] }),
      'x.safetensors: tensor "weight" has 2 rows; rows 1 to 3 do not exist',
    ],
  ])('%s', async (_, read, message) => {
    await expect(read()).rejects.toThrow(new InputError(message));
  });
});

describe('safetensors: lies in the header', () => {
  const entry = (dtype: unknown, shape: unknown, data_offsets: unknown) => ({ dtype, shape, data_offsets });
  test.each<[string, Uint8Array, RegExp]>([
    ['empty', new Uint8Array(0), /cut off: 0 bytes/],
    ['seven bytes', new Uint8Array(7), /cut off: 7 bytes/],
    ['header longer than the file', fileOf({}, 0, 100), /cut off, or not .* header of 100 bytes, only 2 bytes follow/],
    ['absurd header length', fileOf({}, 0, 2 ** 52), /not a safetensors file: its first 8 bytes are no length/],
    ['not JSON', fileOf('{"a": '), /header is not JSON/],
    ['not UTF-8', fileOf({}, Uint8Array.of(0xff), 3), /header is not JSON/],
    ['a list', fileOf([]), /not a JSON object/],
    ['metadata of numbers', fileOf({ __metadata__: { epoch: 3 } }), /__metadata__ .* strings/],
    ['metadata is text', fileOf({ __metadata__: [1] }), /__metadata__ .* strings/],
    ['entry is a number', fileOf({ a: 5 }), /tensor "a" has a header entry that is not an object/],
    ['unknown dtype', fileOf({ a: entry('F8', [1], [0, 1]) }, 1), /tensor "a" has the unknown dtype "F8"/],
    ['inherited name as dtype', fileOf({ a: entry('toString', [1], [0, 1]) }, 1), /unknown dtype "toString"/],
    ['negative size', fileOf({ a: entry('U8', [-1], [0, 1]) }, 1), /tensor "a" has a shape .*\[-1\]/],
    ['half a size', fileOf({ a: entry('U8', [0.5], [0, 1]) }, 1), /tensor "a" has a shape/],
    ['no shape', fileOf({ a: entry('U8', null, [0, 1]) }, 1), /tensor "a" has a shape/],
    ['backward range', fileOf({ a: entry('U8', [1], [1, 0]) }, 1), /tensor "a" has data_offsets/],
    ['three offsets', fileOf({ a: entry('U8', [1], [0, 1, 2]) }, 1), /tensor "a" has data_offsets/],
    [
      'shape and range disagree',
      fileOf({ a: entry('F32', [2, 2], [0, 12]) }, 12),
      /tensor "a" of dtype F32 and shape \[2,2\] needs 16 bytes, its range has 12/,
    ],
    [
      'product of sizes overflows',
      fileOf({ a: entry('F32', [2 ** 40, 2 ** 40], [0, 0]) }),
      /tensor "a" of dtype F32 .* its range has 0/,
    ],
    ['out of range', fileOf({ a: entry('U8', [9], [0, 9]) }, 8), /tensor "a" is cut off or out of range/],
    [
      'far out of range',
      fileOf({ a: entry('U8', [2 ** 50], [0, 2 ** 50]) }, 8),
      /tensor "a" is cut off or out of range/,
    ],
    [
      'overlap',
      fileOf({ a: entry('U8', [4], [0, 4]), b: entry('U8', [4], [3, 7]) }, 7),
      /tensor "b" overlaps the tensor before it by 1 bytes/,
    ],
    [
      'hole',
      fileOf({ a: entry('U8', [1], [0, 1]), b: entry('U8', [1], [2, 3]) }, 3),
      /1 bytes before tensor "b" belong/,
    ],
    [
      'bytes after the end',
      fileOf({ a: entry('U8', [1], [0, 1]) }, 3),
      /2 bytes after the last tensor belong to no tensor/,
    ],
    ['name of two lines', fileOf({ 'a\nb': 5 }), /tensor "a\\nb" has/],
  ])('%s', async (_, file, message) => {
    expect(await complaint(file)).toMatch(message);
  });

  test('a file cut off anywhere is an error', async () => {
    await fc.assert(
      fc.asyncProperty(
        anyTensors,
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        async (tensors, part) => {
          const bytes = await bytesOf(tensors);
          expect(await complaint(bytes.subarray(0, Math.floor(part * bytes.length)))).not.toBe('no error');
        },
      ),
      { seed: 4 },
    );
  });

  test('a damaged file gives its tensors or one line, never another error', async () => {
    const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 8 });
    let errors = 0;
    await fc.assert(
      fc.asyncProperty(anyTensors, damage, async (tensors, changes) => {
        const bytes = await bytesOf(tensors, { case: 'damage' });
        for (const [place, value] of changes) bytes[place % bytes.length] = value;
        if ((await complaint(bytes)) !== 'no error') errors++;
      }),
      { seed: 5, numRuns: 400 },
    );
    expect(errors).toBeGreaterThan(100);
  });

  test('any JSON as header gives its tensors or one line', async () => {
    const word = fc.oneof(fc.constantFrom('F32', 'U8', 'dtype'), fc.nat({ max: 9 }), fc.jsonValue());
    const value = fc.record({ dtype: word, shape: fc.oneof(word, fc.array(word)), data_offsets: fc.array(word) });
    await fc.assert(
      fc.asyncProperty(fc.dictionary(fc.string(), fc.oneof(value, fc.jsonValue())), async (header) => {
        await complaint(fileOf(header, 9));
      }),
      { seed: 6, numRuns: 400 },
    );
  });
});

describe('checksums', () => {
  const tensors: TensorToWrite[] = [
    { name: 'a', dtype: 'F32', shape: [2, 3], data: Float32Array.from({ length: 6 }, (_, i) => i) },
    { name: '__proto__', dtype: 'U8', shape: [5], data: Uint8Array.of(1, 2, 3, 4, 5) },
    { name: 'empty', dtype: 'U8', shape: [0], data: new Uint8Array(0) },
  ];

  test('that of a browser is that of node', () => {
    const own = checksum(0xedb88320);
    const bytes = Uint8Array.from({ length: 1001 }, (_, i) => (i * i * 31) % 251);
    for (const length of [0, 1, 3, 4, 7, 1001])
      for (const before of [0, 1, 0xfffffff0])
        expect(own(bytes.subarray(0, length), before)).toBe(crc32(bytes.subarray(0, length), before));
    expect(own(new TextEncoder().encode('123456789'))).toBe(0xcbf43926);
  });

  test('any changed bit of a tensor is refused by the name of the tensor, and no other tensor is', async () => {
    const path = join(folder, 'checked.safetensors');
    await writeSafetensors(path, tensors, { metadata: { key: 'value' } });
    const bytes = new Uint8Array(await readFile(path));
    const whole = await readSafetensors(bytes);
    await whole.verify();
    expect([...whole.metadata]).toEqual([['key', 'value']]);
    const data = Math.min(...Array.from(whole.tensors.values(), ({ start }) => start));
    for (let i = data; i < bytes.length; i++)
      for (const bit of [1, 128]) {
        bytes[i] ^= bit;
        const file = await readSafetensors(bytes, 'x');
        const { name } = [...file.tensors.values()].find(({ start, end }) => start <= i && i < end)!;
        const line = `x: damaged: tensor "${name}" was changed after it was written (its checksum differs)`;
        await expect(file.verify()).rejects.toThrow(new InputError(line));
        for (const { name: own, dtype } of file.tensors.values())
          if (own === name) await expect(file.read(own, dtype, { rows: [1, 2] })).rejects.toThrow(line);
          else await file.read(own, dtype);
        bytes[i] ^= bit;
      }
  });

  test('any changed byte of the header is refused, unless it changes nothing', async () => {
    const path = join(folder, 'checked.safetensors');
    await writeSafetensors(path, tensors, { metadata: { key: 'value' } });
    const bytes = new Uint8Array(await readFile(path));
    const whole = await readSafetensors(bytes);
    const first = Math.min(...Array.from(whole.tensors.values(), ({ start }) => start));
    for (let i = 8; i < first; i++) {
      bytes[i] ^= 1;
      const refusal = await readSafetensors(bytes, 'x').then(
        async (file) => {
          const found = [...file.tensors.values()];
          const isSame = JSON.stringify(found) === JSON.stringify([...whole.tensors.values()]);
          return file.verify().then(
            () => (isSame ? null : 'other tensors are read'),
            (error) => error,
          );
        },
        (error) => error,
      );
      if (refusal !== null) expect(refusal, `byte ${i}`).toBeInstanceOf(InputError);
      bytes[i] ^= 1;
    }
  });
});

describe('safetensors files on disk', () => {
  const big = (): TensorToWrite[] => [
    { name: 'a', dtype: 'F32', shape: [1000], data: new Float32Array(1000).fill(1) },
    { name: 'b', dtype: 'F32', shape: [1000], data: () => new Float32Array(1000).fill(2) },
  ];

  test('missing file and folder', async () => {
    await expect(readSafetensors(join(folder, 'none'))).rejects.toThrow(
      /none: cannot open it: no such file or folder$/,
    );
    await expect(readSafetensors(folder)).rejects.toThrow(/: cannot read it: is a folder, not a file$/);
    await expect(writeSafetensors(join(folder, 'no/where'), big())).rejects.toThrow(
      /where: cannot write it: no such file/,
    );
  });

  test('a file that shrinks after it was opened', async () => {
    const path = join(folder, 'shrinks.safetensors');
    await writeSafetensors(path, big());
    const file = await readSafetensors(path);
    await truncate(path, 5000);
    expect((await file.read('a', 'F32'))[999]).toBe(1);
    await expect(file.read('b', 'F32')).rejects.toThrow(/cut off while it was being read: tensor "b" needs 4000 bytes/);
    await file.close();
  });

  test('a full disk, at any write: one line, the old file intact, no temporary file', async () => {
    const path = join(folder, 'full.safetensors');
    await writeFile(path, 'old');
    const before = await readdir(folder);
    const handle = await open(path);
    const prototype = Object.getPrototypeOf(handle);
    await handle.close();
    for (const failing of [0, 1, 2]) {
      const write = prototype.write;
      let calls = 0;
      const spy = vi.spyOn(prototype, 'write').mockImplementation(function (this: unknown, ...parts: unknown[]) {
        if (calls++ === failing) {
          return Promise.reject(
            Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC', syscall: 'write' }),
          );
        }
        return write.apply(this, parts);
      });
      await expect(writeSafetensors(path, big())).rejects.toThrow(
        new InputError(`${path}: cannot write it: the disk is full; free some space and try again`),
      );
      spy.mockRestore();
      expect(calls).toBe(failing + 1);
      expect(await readdir(folder)).toEqual(before);
      expect(await readFile(path, 'utf8')).toBe('old');
    }
  });

  test('a program that ends in the middle of writing: the old file intact, no temporary file', async () => {
    const path = join(folder, 'left.safetensors');
    await writeFile(path, 'old');
    const before = await readdir(folder);
    const writer = JSON.stringify(new URL('../engine/files/files.ts', import.meta.url).href);
    const script = `import { readdirSync } from 'node:fs';
      import { writeFileSafely } from ${writer};
      await writeFileSafely(${JSON.stringify(path)}, (async function* () {
        yield 'new';
        yield 'new';
        console.log(readdirSync(${JSON.stringify(folder)}).length);
        process.exit(3);
      })());`;
    const options = ['--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', script];
    const { status, stdout } = spawnSync(process.execPath, options, { encoding: 'utf8' });
    expect({ status, files: Number(stdout) }).toEqual({ status: 3, files: before.length + 1 });
    expect(await readdir(folder)).toEqual(before);
    expect(await readFile(path, 'utf8')).toBe('old');
  });

  test('data that is not what it is said to be, or cannot be made: nothing stays', async () => {
    const before = await readdir(folder);
    const path = join(folder, 'wrong.safetensors');
    const write = (data: TensorToWrite['data']) =>
      writeSafetensors(path, [{ name: 'w', dtype: 'F32', shape: [3], data }]);
    await expect(write(new Float32Array(2))).rejects.toThrow('tensor "w" of shape [3] got 4 bytes too few');
    await expect(write(new Float32Array(5))).rejects.toThrow('tensor "w" of shape [3] got 8 bytes or more too many');
    await expect(write(new Uint32Array(3))).rejects.toThrow('tensor "w" has dtype F32, but its data is a Uint32Array');
    await expect(write(() => Promise.reject(new Error('device lost')))).rejects.toThrow('device lost');
    const twice = { name: 'w', dtype: 'U8', shape: [1], data: new Uint8Array(1) } as const;
    await expect(writeSafetensors(path, [twice, twice])).rejects.toThrow('two tensors have the same name');
    expect(await readdir(folder)).toEqual(before);
  });
});

const fixtures = join(import.meta.dirname, 'fixtures');
describe('safetensors written by others', () => {
  test('every fixture opens and every tensor reads', async () => {
    const names = (await readdir(fixtures)).filter((name) => name.endsWith('.safetensors'));
    expect(names.length).toBeGreaterThan(10);
    for (const name of names) {
      const file = await readSafetensors(join(fixtures, name));
      expect(file.metadata.get('case')).toBe(name.split('.')[0]);
      for (const { name: tensor, dtype, shape } of file.tensors.values()) await file.read(tensor, dtype, { shape });
      await file.close();
    }
  });
});
