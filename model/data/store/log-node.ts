import { existsSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { type ByteSource, joinBytes, readRange } from '../../../engine/files/bytes.ts';
import { crc32 } from '../../../engine/files/checksum.ts';
import { fileError, openFile } from '../../../engine/files/files.ts';
import { DamagedLog, type Log, type LogRecord, type Logs, type PartPlace } from './log.ts';

// This file runs under node only. A record is a head (float64 the length of a text, uint32 its CRC-32 and that of the head so far), the
// text (JSON of the record, and of the length and CRC-32 of each part) and the parts. The directory is the last record, and the file's last 8 bytes are a float64, the place of that.

const HEAD = 16;
const TAIL = 8;
/** The bytes read at a time. */
const BLOCK = 2 ** 24;

function placesAt(begin: number, sizes: readonly (readonly [bytes: number, check: number])[]): PartPlace[] {
  let end = begin;
  return sizes.map(([bytes, check]) => {
    end += bytes;
    return [end - bytes, bytes, check];
  });
}

/** Makes the record that begins at byte `at`. */
function recordOf(json: unknown, parts: readonly Uint8Array[], at: number) {
  const sizes = parts.map((part) => [part.length, crc32(part)] as const);
  const text = new TextEncoder().encode(JSON.stringify([json, sizes]));
  const head = new DataView(new ArrayBuffer(HEAD));
  head.setFloat64(0, text.length, true);
  head.setUint32(8, crc32(text), true);
  head.setUint32(12, crc32(new Uint8Array(head.buffer, 0, 12)), true);
  const bytes = joinBytes([new Uint8Array(head.buffer), text, ...parts]);
  return { bytes, places: placesAt(at + HEAD + text.length, sizes) };
}

/** Reads the record at byte `at` without its parts; null if it is not whole. */
async function recordAt(source: ByteSource, at: number): Promise<(LogRecord & { end: number }) | null> {
  if (!(Number.isSafeInteger(at) && at >= 0 && at + HEAD <= source.size)) return null;
  const head = await source.read(at, at + HEAD);
  const view = new DataView(head.buffer);
  if (head.length < HEAD || view.getUint32(12, true) !== crc32(head.subarray(0, 12))) return null;
  const begin = at + HEAD + view.getFloat64(0, true);
  const text = await source.read(at + HEAD, begin);
  if (view.getUint32(8, true) !== crc32(text)) return null;
  const [json, sizes] = JSON.parse(new TextDecoder().decode(text));
  const parts = placesAt(begin, sizes);
  const end = parts.reduce((_, [last, bytes]) => last + bytes, begin);
  return end <= source.size ? { json, parts, end } : null;
}

/** The records of an unfinished log up to the first that is cut off. */
async function recordsOf(path: string): Promise<(LogRecord & { end: number })[]> {
  const source = await openFile(path);
  const records = [];
  try {
    for (let next = await recordAt(source, 0); next; next = await recordAt(source, next.end)) records.push(next);
  } finally {
    await source.close();
  }
  return records;
}

async function openLog(path: string): Promise<Log | null> {
  const source = await openFile(path).catch(() => null);
  try {
    if (!source || source.size < TAIL) return null;
    const [at] = new Float64Array((await readRange(source, source.size - TAIL, source.size, 'its end')).buffer);
    const record = await recordAt(source, at);
    return record && record.end === source.size - TAIL ? fileLog(path, record.json, source.size - at) : null;
  } finally {
    await source?.close();
  }
}

function fileLog(path: string, directory: unknown, held: number): Log {
  const damaged = () =>
    new DamagedLog(
      `${path}: it is damaged, or was made anew since the data set was opened: delete it, and open the data set again`,
    );
  const read = async function* (places: readonly PartPlace[]) {
    const source = await openFile(path).catch(() => {
      throw damaged();
    });
    try {
      let [from, block] = [0, new Uint8Array(0)];
      for (const [i, [at, bytes, check]] of places.entries()) {
        if (at < from || at + bytes > from + block.length) {
          const ahead = i + 1 < places.length ? Math.max(bytes, BLOCK) : bytes;
          [from, block] = [at, await source.read(at, Math.min(at + ahead, source.size))];
        }
        const part = block.slice(at - from, at - from + bytes);
        if (part.length !== bytes || crc32(part) !== check) throw damaged();
        yield part;
      }
    } finally {
      await source.close();
    }
  };
  return { directory, held, read };
}

/** The unfinished logs that this process is writing. */
const writing = new Set<string>();
let begun = 0;

/** Whether an unfinished log, NAME,HOST,PROCESS,NUMBER.part, is still written; one of another machine is never taken over. */
function isWritten(file: string): boolean {
  const [, host, id] = file.split(',');
  if (host !== hostname()) return true;
  if (Number(id) === process.pid) return writing.has(file);
  try {
    return process.kill(Number(id), 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Removes the folders of data sets that are gone. */
async function sweep(cache: string): Promise<void> {
  for (const name of await readdir(cache)) {
    const place = await readFile(join(cache, name, 'place'), 'utf8').catch(() => null);
    // A place that is still empty is just being written by whoever makes another index at the same time.
    if (place && !existsSync(place)) await rm(join(cache, name), { recursive: true, force: true });
  }
}

/**
 * The logs of the data set at `place`, in a folder of the cache, which is made if it is not there.
 *
 * @throws Error of node if that cannot be done
 */
export async function logsInFolder(folder: string, place: string): Promise<Logs> {
  if (await mkdir(folder, { recursive: true })) {
    await writeFile(join(folder, 'place'), place);
    await sweep(dirname(folder));
  }
  return {
    open: (name) => openLog(join(folder, name)),
    async write(name, fill, accepts) {
      const part = `${name},${hostname()},${process.pid},${begun++}.part`;
      const [path, own] = [join(folder, name), join(folder, part)];
      const failed = (error: unknown) => {
        throw fileError(error, own, 'write it');
      };
      writing.add(part);
      try {
        const kept = await takeOver(folder, name, own, accepts);
        const handle = await open(own, 'a').catch(failed);
        let end = kept.at(-1)?.end ?? 0;
        const append = async (json: unknown, parts: readonly Uint8Array[]) => {
          const { bytes, places } = recordOf(json, parts, end);
          await handle.appendFile(bytes).catch(failed);
          end += bytes.length;
          return places;
        };
        try {
          await handle.truncate(end);
          const directory = await fill(append, kept);
          const begin = end;
          await append(directory, []);
          await handle.appendFile(new Uint8Array(Float64Array.of(begin).buffer)).catch(failed);
          await handle.sync();
          await handle.close();
          await rename(own, path);
          return fileLog(path, directory, end - begin);
        } finally {
          await handle.close();
        }
      } finally {
        writing.delete(part);
      }
    },
  };
}

/** Goes on with a log that a program has left unfinished, and removes other such logs. */
async function takeOver(folder: string, name: string, own: string, accepts: Parameters<Logs['write']>[2]) {
  const left = (await readdir(folder)).filter((file) => file.startsWith(`${name},`) && !isWritten(file));
  let kept: Awaited<ReturnType<typeof recordsOf>> = [];
  for (const file of left.map((file) => join(folder, file))) {
    // One of several programs takes the log over.
    const taken =
      kept.length === 0 &&
      (await rename(file, own).then(
        () => true,
        () => false,
      ));
    if (!taken || !accepts) await rm(file, { force: true });
    else {
      const whole = await recordsOf(own);
      kept = whole.slice(0, await accepts(whole));
    }
  }
  return kept;
}
