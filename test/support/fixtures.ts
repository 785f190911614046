import type { Numbers } from './numbers.ts';

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
const folder = new URL('../../../shared/fixtures', import.meta.url);

/** Whether the golden fixtures beside the repository can be read: from disk, or in a browser from the page's server. */
export const haveFixtures = fileSystem
  ? fileSystem.existsSync(folder)
  : (await fetch(`${folder}/README.md`, { method: 'HEAD' })).ok;
export const fixturesMissing = haveFixtures ? '' : ' (skipped: ../shared/fixtures is not there)';

function readBytes(file: string): Uint8Array<ArrayBuffer> {
  const url = new URL(`${folder}/${file}`);
  if (fileSystem) return new Uint8Array(fileSystem.readFileSync(url));
  // Tests read fixtures while they are collected. A page can read at once only as text, here with a byte in each character.
  const request = new XMLHttpRequest();
  request.open('GET', url, false);
  request.overrideMimeType('text/plain; charset=x-user-defined');
  request.send();
  if (request.status !== 200) throw new Error(`${url} answered ${request.status}`);
  return Uint8Array.from(request.responseText, (character) => character.charCodeAt(0));
}

/** Reads `<name>.json` and the safetensors files `<name><suffix>.safetensors`. */
export function readFixture(name: string, suffixes: string[] = ['']): Fixture {
  const decode = (bytes: Uint8Array) => JSON.parse(new TextDecoder().decode(bytes));
  const settings = decode(readBytes(`${name}.json`));
  const tensors = new Map<string, { data: Float32Array | Int32Array | Uint8Array; shape: number[] }>();
  for (const suffix of suffixes) {
    const bytes = readBytes(`${name}${suffix}.safetensors`);
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

export function asNumbers(data: Numbers): Float32Array {
  return data instanceof Float32Array ? data : Float32Array.from(data);
}
