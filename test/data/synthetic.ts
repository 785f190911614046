import encodeJpegImage, { init as startEncoder } from '@jsquash/jpeg/encode.js';
import fc from 'fast-check';
import { expect } from 'vitest';
import { memorySource } from '../../engine/files/bytes.ts';
import { InputError } from '../../engine/files/errors.ts';
import { safetensorsChunks } from '../../engine/files/safetensors-writer.ts';
import type { Dataset, Episode, Image } from '../../model/data/dataset.ts';
import type { ListedFolder } from '../../model/data/import/source.ts';

/** Makes an episode of given actions; its states are the actions times ten. */
export function episodeOf(id: string, actions: number[][], instructions: string[] = []): Episode {
  const flat = Float32Array.from(actions.flat());
  return {
    id,
    length: actions.length,
    actions: flat,
    states: flat.map((value) => value * 10),
    instructions,
    cameras: [],
    image: async () => null,
  };
}

/** Makes a data set of episodes of the given lengths; action = [episode, step]. */
export function datasetOf(lengths: readonly number[], rate = 5): Dataset {
  const episodes = lengths.map((length, e) =>
    episodeOf(
      `ep${e}`,
      Array.from({ length }, (_, step) => [e, step]),
      e % 2 ? [`word ${e}a`, `word ${e}b`] : [],
    ),
  );
  return { name: 'made', rate, actionDimension: 2, stateDimension: 2, cameras: [], episodes };
}

/** Makes an image of smooth colours. */
export function gradientImage(width: number, height: number): Image {
  const pixels = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    pixels.set(
      [Math.floor(((i % width) * 255) / width), Math.floor((Math.floor(i / width) * 255) / height), 90],
      3 * i,
    );
  }
  return { width, height, pixels };
}

let encoder: Promise<unknown> | undefined;

async function startJpegEncoder(): Promise<unknown> {
  // Node's modules are loaded here, because other helpers of this file also run in a browser.
  const [{ readFile }, { createRequire }] = await Promise.all([import('node:fs/promises'), import('node:module')]);
  const path = createRequire(import.meta.url).resolve('@jsquash/jpeg/codec/enc/mozjpeg_enc.wasm');
  const module = await WebAssembly.compile(await readFile(path));
  return (startEncoder as unknown as (module: WebAssembly.Module) => Promise<unknown>)(module);
}

/** Encodes an image as a JPEG file of high quality (node only). */
export async function encodeJpeg({ width, height, pixels }: Image): Promise<Uint8Array<ArrayBuffer>> {
  encoder ??= startJpegEncoder();
  await encoder;
  const data = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let i = 0; i < width * height; i++) data.set(pixels.subarray(3 * i, 3 * i + 3), 4 * i);
  const image = { width, height, data, colorSpace: 'srgb' } as ImageData;
  return new Uint8Array(await encodeJpegImage(image, { quality: 95 }));
}

/** The files of a data folder by path. */
export type Files = Map<string, Uint8Array>;

/** Makes a folder in memory. */
export function folderOf(files: Files): ListedFolder {
  return {
    name: 'folder',
    async list(path = '') {
      const start = path === '' ? '' : `${path}/`;
      const inside = [...files.keys()].filter((file) => file.startsWith(start));
      return [...new Set(inside.map((file) => file.slice(start.length).split('/')[0]))].sort();
    },
    async open(path) {
      const bytes = files.get(path);
      if (!bytes) throw new InputError(`folder/${path}: cannot open it: no such file or folder`);
      return memorySource(bytes, `folder/${path}`);
    },
  };
}

export function text(value: unknown): Uint8Array {
  return new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value));
}

/** Makes the actions file of tables `{ 'ep0/action': rows }`. */
export async function actionsFile(tables: Record<string, number[][]>): Promise<Uint8Array> {
  const chunks: BlobPart[] = [];
  const tensors = Object.entries(tables).map(([name, rows]) => ({
    name,
    dtype: 'F32' as const,
    shape: [rows.length, rows[0].length],
    data: Float32Array.from(rows.flat()),
  }));
  for await (const chunk of safetensorsChunks(tensors)) chunks.push(chunk.slice());
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/** Makes rows of [count, width], all different. */
export const rows = (count: number, width: number, first = 0) =>
  Array.from({ length: count }, (_, step) => Array.from({ length: width }, (_, d) => first + step + d / 4));

/** Expects `work` to fail with an InputError of one line, and returns it. */
export const message = async (work: Promise<unknown>): Promise<string> => {
  const error = await work.then(
    () => null,
    (error) => error,
  );
  expect(error).toBeInstanceOf(InputError);
  expect(error.message).not.toContain('\n');
  return error.message;
};

/** Expects an InputError of one line about `file` that is not an engine's own complaint about damaged data. */
export function expectClear(error: unknown, file: string): void {
  expect(error).toBeInstanceOf(InputError);
  const { message } = error as Error;
  expect(message.slice(0, file.length)).toBe(file);
  expect(message).not.toMatch(
    /\n|Cannot (read|conv)|(of|a page of) undefined|undefined [a-z]|not a function|not iterable|DataView|typed array|call stack|llocation|of bounds/,
  );
}

/** Lists every path to a value inside a JSON value. */
function pathsOf(value: unknown, path: string[] = []): string[][] {
  const inner = typeof value === 'object' && value !== null ? Object.entries(value) : [];
  return [...(path.length > 0 ? [path] : []), ...inner.flatMap(([key, own]) => pathsOf(own, [...path, key]))];
}

/**
 * Replaces one value after another in the JSON file `name` of `files` by any JSON value, and expects that the files open,
 * or fail with an InputError of one line.
 */
export async function replacingValues(
  files: Files,
  name: string,
  open: (files: Files) => Promise<unknown>,
  numRuns: number,
) {
  const source = new TextDecoder().decode(files.get(name));
  const paths = pathsOf(JSON.parse(source));
  const odd = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }),
    fc.constantFrom([{ toString: 1 }], { '\\n': '\\n' }, -1, 0, 1e300, 2 ** 53, '', '../..', '{x}', null),
  );
  const property = fc.asyncProperty(fc.constantFrom(...paths), odd, fc.boolean(), async (path, value, remove) => {
    const json = JSON.parse(source);
    // biome-ignore lint/suspicious/noExplicitAny: any JSON
    const parent = path.slice(0, -1).reduce((own: any, key) => own[key], json);
    if (remove) delete parent[path.at(-1)!];
    else parent[path.at(-1)!] = value;
    await open(new Map(files).set(name, text(json))).catch((error) => expectClear(error, 'folder'));
  });
  await fc.assert(property, { seed: 11, numRuns });
}
