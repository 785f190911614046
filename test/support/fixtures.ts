import { describe, test } from 'vitest';

/** A golden case: settings, and tensors by name. See the README beside the fixtures. */
export interface Fixture {
  // biome-ignore lint/suspicious/noExplicitAny: settings differ from case to case
  settings: any;
  get(name: string): { data: Float32Array | Int32Array | Uint8Array; shape: number[] };
  has(name: string): boolean;
  names: string[];
}

const node = typeof process === 'object' && process.versions?.node !== undefined;
const fileSystem = node ? await import(/* @vite-ignore */ 'node:fs') : null;
const committed = new URL('../fixtures', import.meta.url);
const shared = new URL('../../../shared/fixtures', import.meta.url);

/** Bytes of the file in test/fixtures or else in ../shared/fixtures; null where neither has it. */
function findBytes(file: string): Uint8Array<ArrayBuffer> | null {
  for (const folder of [committed, shared]) {
    const bytes = readBytes(new URL(`${folder}/${file}`));
    if (bytes) return bytes;
  }
  return null;
}

function readBytes(url: URL): Uint8Array<ArrayBuffer> | null {
  if (fileSystem) return fileSystem.existsSync(url) ? new Uint8Array(fileSystem.readFileSync(url)) : null;
  // Tests read fixtures while they are collected. A page can read at once only as text, here with a byte in each character.
  const request = new XMLHttpRequest();
  request.open('GET', url, false);
  request.overrideMimeType('text/plain; charset=x-user-defined');
  request.send();
  if (request.status !== 200) return null;
  return Uint8Array.from(request.responseText, (character) => character.charCodeAt(0));
}

/** The tests of a golden case; one skipped test, which says why, where the files of the case are missing. */
export function describeFixture(name: string, tests: () => void): void {
  if (findBytes(`${name}.json`)) describe(name, tests);
  else test.skip(`${name} (skipped: it is in neither test/fixtures nor ../shared/fixtures)`);
}

/** Reads `<name>.json` and the safetensors files `<name><suffix>.safetensors`. */
export function readFixture(name: string, suffixes: string[] = ['']): Fixture {
  const decode = (bytes: Uint8Array) => JSON.parse(new TextDecoder().decode(bytes));
  const read = (file: string) => {
    const bytes = findBytes(file);
    if (!bytes) throw new Error(`${file} is in neither test/fixtures nor ../shared/fixtures`);
    return bytes;
  };
  const settings = decode(read(`${name}.json`));
  const tensors = new Map<string, { data: Float32Array | Int32Array | Uint8Array; shape: number[] }>();
  for (const suffix of suffixes) {
    const bytes = read(`${name}${suffix}.safetensors`);
    const data = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const { __metadata__: _, ...header } = decode(bytes.subarray(8, data));
    for (const [key, entry] of Object.entries<{ dtype: string; shape: number[]; data_offsets: [number, number] }>(
      header,
    )) {
      const [start, end] = entry.data_offsets;
      const view = { F32: Float32Array, I32: Int32Array, U8: Uint8Array }[entry.dtype]!;
      tensors.set(key, { data: new view(bytes.buffer.slice(data + start, data + end)), shape: entry.shape });
    }
  }
  return {
    settings,
    names: [...tensors.keys()],
    has: (key) => tensors.has(key),
    get(key) {
      const found = tensors.get(key);
      if (!found) throw new Error(`fixture ${name} has no tensor ${key}`);
      return found;
    },
  };
}

/** The pass rule of the fixtures' README for f32: ten times the error of the reference program in f32, at least 1e-5. */
export function fixtureTolerance(fixture: Fixture, name: string): number {
  return Math.max(10 * (fixture.settings.float32RelativeError?.[name] ?? 0), 1e-5);
}
