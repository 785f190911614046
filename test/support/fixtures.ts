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
const folder = fileSystem ? new URL('../../../shared/fixtures/', import.meta.url) : null;

/** Whether the golden fixtures beside the repository can be read here. */
export const haveFixtures = folder !== null && fileSystem!.existsSync(folder);
export const fixturesMissing = haveFixtures ? '' : ' (skipped: ../shared/fixtures is not there)';

/** Reads `<name>.json` and the safetensors files `<name><suffix>.safetensors`. */
export function readFixture(name: string, suffixes: string[] = ['']): Fixture {
  const settings = JSON.parse(fileSystem!.readFileSync(new URL(`${name}.json`, folder!), 'utf8'));
  const tensors = new Map<string, { data: Float32Array | Int32Array | Uint8Array; shape: number[] }>();
  for (const suffix of suffixes) {
    const bytes = fileSystem!.readFileSync(new URL(`${name}${suffix}.safetensors`, folder!));
    const headerLength = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.subarray(8, 8 + headerLength).toString('utf8'));
    for (const [key, entry] of Object.entries<{ dtype: string; shape: number[]; data_offsets: [number, number] }>(
      header,
    )) {
      if (key === '__metadata__') continue;
      const [start, end] = entry.data_offsets.map((offset) => offset + 8 + headerLength);
      const data = new Uint8Array(bytes.subarray(start, end)).buffer;
      const view = { F32: Float32Array, I32: Int32Array, U8: Uint8Array }[entry.dtype]!;
      tensors.set(key, { data: new view(data), shape: entry.shape });
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
