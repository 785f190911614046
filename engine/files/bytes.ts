import { InputError } from './errors.ts';
import { nonFinite } from './json-nan.ts';

/** A source of bytes that is read by range: a file, a Blob or memory. */
export interface ByteSource {
  /** Name in error messages: a path or a description. */
  readonly name: string;
  readonly size: number;
  /** A copy of bytes start ... end - 1; fewer if the source has become shorter than `size`. */
  read(start: number, end: number): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/** A folder of files, which are named by paths with `/` as the separator. */
export interface Folder {
  readonly name: string;
  /** @throws InputError if there is no such file */
  open(path: string): Promise<ByteSource>;
}

/** A part of a file that is written: what follows there, or what takes the place of what was written from byte `at` on. */
export type FilePart = Uint8Array | string | { readonly at: number; readonly bytes: Uint8Array };

export function memorySource(data: Blob | Uint8Array | ArrayBuffer, name: string): ByteSource {
  const close = async () => {};
  if (data instanceof Blob) {
    const read = async (start: number, end: number) => new Uint8Array(await data.slice(start, end).arrayBuffer());
    return { name, size: data.size, read, close };
  }
  const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : data;
  return { name, size: bytes.length, read: async (start, end) => new Uint8Array(bytes.subarray(start, end)), close };
}

/** A copy of all parts, one after the other. */
export function joinBytes(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/**
 * Reads bytes start ... end - 1 of a source.
 *
 * @throws InputError if the source ends before `end`; `what` names the missing part
 */
export async function readRange(
  source: ByteSource,
  start: number,
  end: number,
  what: string,
): Promise<Uint8Array<ArrayBuffer>> {
  if (end > source.size)
    throw new InputError(
      `${source.name}: cut off: ${what} needs bytes ${start} to ${end}, the file has ${source.size}`,
    );
  const bytes = await source.read(start, end);
  if (bytes.length !== end - start)
    throw new InputError(
      `${source.name}: cut off while it was being read: ${what} needs ${end - start} bytes, ${bytes.length} came`,
    );
  return bytes;
}

/** Parses a whole source as JSON. @throws InputError if it is not UTF-8 or not JSON, or has over `limit` bytes */
export async function readJson(source: ByteSource, limit = 256 * 2 ** 20): Promise<unknown> {
  if (source.size > limit)
    throw new InputError(`${source.name}: ${source.size} bytes is too large for a JSON file here (at most ${limit})`);
  const bytes = await readRange(source, 0, source.size, 'the JSON text');
  return parseJson(bytes, source.name, 'not a JSON file, or cut off');
}

/**
 * Parses UTF-8 bytes as JSON. `where` precedes the place of a NaN.
 *
 * @throws InputError `name: complaint (the parser's message)`, or the place of a number that is not finite
 */
export function parseJson(bytes: Uint8Array, name: string, complaint: string, where = ''): unknown {
  let text = '';
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    return JSON.parse(text);
  } catch (error) {
    const found = nonFinite(text);
    throw new InputError(
      found
        ? `${name}: ${where}${found}, for which JSON has no number (Python writes it): replace it by a finite one`
        : `${name}: ${complaint} (${error instanceof Error ? error.message : error})`,
    );
  }
}
