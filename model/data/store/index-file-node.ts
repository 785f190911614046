import { access, type FileHandle, mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { parseJson, readRange } from '../../../engine/files/bytes.ts';
import { fileError, openFile } from '../../../engine/files/files.ts';
import { crc32 } from '../checksum.ts';
import {
  DamagedIndex,
  type DataIndex,
  type EarlierRecord,
  type IndexReader,
  type IndexWriter,
  type PartPlace,
  type RecordPlace,
} from './index-log.ts';

// This file runs under node only. A record is a head (HEAD bytes: mark, then length and CRC-32 of each of three parts, then the CRC-32
// of the head) and the parts, each padded to 8 bytes. The last record holds the directory, and the last TAIL bytes say where it begins.

const MARK = 0x58444e49; // "INDX"
const HEAD = 48;
const TAIL = 16;
/** The bytes read at a time. */
const BLOCK = 2 ** 24;

const padded = (bytes: number) => Math.ceil(bytes / 8) * 8;

function headOf(parts: readonly Uint8Array[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(HEAD));
  view.setUint32(0, MARK, true);
  for (const [i, part] of parts.entries()) {
    view.setFloat64(8 + 12 * i, part.length, true);
    view.setUint32(16 + 12 * i, crc32(part), true);
  }
  view.setUint32(44, crc32(new Uint8Array(view.buffer, 0, 44)), true);
  return new Uint8Array(view.buffer);
}

/** Reads a head at byte `at`; null if there is none. */
function placesIn(head: Uint8Array, at: number): RecordPlace | null {
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  if (head.length < HEAD || view.getUint32(0, true) !== MARK) return null;
  if (view.getUint32(44, true) !== crc32(head.subarray(0, 44))) return null;
  let next = at + HEAD;
  const places = [0, 1, 2].map((i): PartPlace => {
    const bytes = view.getFloat64(8 + 12 * i, true);
    next += padded(bytes);
    return [next - padded(bytes), bytes, view.getUint32(16 + 12 * i, true)];
  });
  return places as unknown as RecordPlace;
}

function fileReader(path: string): IndexReader {
  const damaged = () =>
    new DamagedIndex(
      `${path}: the index is damaged, or was made anew since the data set was opened: delete it, and open the data set again`,
    );
  return {
    async *read(places) {
      const source = await openFile(path);
      try {
        for (let i = 0; i < places.length; ) {
          const start = places[i][0];
          let next = i + 1;
          let end = start + places[i][1];
          for (; next < places.length; next++) {
            const [at, bytes] = places[next];
            if (at < end || at + bytes - start > BLOCK) break;
            end = at + bytes;
          }
          if (end > source.size) throw damaged();
          const block = await readRange(source, start, end, 'the index');
          for (; i < next; i++) {
            const [at, bytes, check] = places[i];
            const part = block.subarray(at - start, at - start + bytes);
            if (crc32(part) !== check) throw damaged();
            yield part;
          }
        }
      } finally {
        await source.close();
      }
    },
  };
}

async function readIndex(path: string): ReturnType<DataIndex['open']> {
  const source = await openFile(path).catch(() => null);
  if (!source) return null;
  try {
    if (source.size < HEAD + TAIL) return null;
    const tail = new DataView((await source.read(source.size - TAIL, source.size)).buffer);
    const at = tail.byteLength === TAIL && tail.getUint32(8, true) === MARK ? tail.getFloat64(0, true) : source.size;
    const places = placesIn(await source.read(at, at + HEAD), at);
    if (!places || places[0][0] + places[0][1] > source.size) return null;
    const json = await source.read(places[0][0], places[0][0] + places[0][1]);
    if (crc32(json) !== places[0][2]) return null;
    return { directory: parseJson(json, path, 'damaged'), reader: fileReader(path) };
  } finally {
    await source.close();
  }
}

/** The logs that this process is writing. */
const writing = new Set<string>();
let begun = 0;

/** Whether another program still writes a log; one of another machine is never taken over. */
function isWritten(name: string): boolean {
  const [host, process_] = name.split(',');
  if (host !== hostname()) return true;
  if (Number(process_) === process.pid) return writing.has(name);
  try {
    process.kill(Number(process_), 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Removes the indexes of data sets that are gone. */
async function sweep(cache: string): Promise<void> {
  for (const name of await readdir(cache)) {
    const place = await readFile(join(cache, name, 'place'), 'utf8').catch(() => null);
    const gone =
      place !== null &&
      (await access(place).then(
        () => false,
        () => true,
      ));
    if (gone) await rm(join(cache, name), { recursive: true, force: true });
  }
}

/**
 * The index of the data set at `place` in a folder of the cache, which is made if it is not there.
 *
 * @throws Error of node if that cannot be done
 */
export async function indexInFolder(folder: string, place: string): Promise<DataIndex> {
  await mkdir(folder, { recursive: true });
  const path = join(folder, 'index');
  return {
    kept: true,
    open: () => readIndex(path),
    async begin(accepts) {
      const name = `${hostname()},${process.pid},${begun++}.part`;
      const part = join(folder, name);
      writing.add(name);
      await sweep(dirname(folder));
      await writeFile(join(folder, 'place'), place);
      const abandoned = (await readdir(folder)).filter((own) => own.endsWith('.part') && !isWritten(own));
      let earlier: EarlierRecord[] = [];
      for (const own of abandoned) {
        // Of several programs one takes the log over.
        if (
          earlier.length === 0 &&
          (await rename(join(folder, own), part).then(
            () => true,
            () => false,
          ))
        ) {
          const whole = await wholeRecords(part);
          earlier = whole.slice(0, await accepts(whole));
        } else await rm(join(folder, own), { force: true });
      }
      const handle = await open(part, earlier.length > 0 ? 'r+' : 'w').catch((error) => {
        throw fileError(error, part, 'write it');
      });
      const last = earlier.at(-1)?.place[2];
      const end = last ? last[0] + padded(last[1]) : 0;
      await handle.truncate(end);
      return { earlier, writer: fileWriter(handle, end, part, path, () => writing.delete(name)) };
    },
  };
}

function fileWriter(handle: FileHandle, begin: number, part: string, path: string, done: () => void): IndexWriter {
  let end = begin;
  const write = async (bytes: Uint8Array) => {
    for (let at = 0; at < bytes.length; ) {
      const piece = bytes.subarray(at, at + BLOCK);
      const { bytesWritten } = await handle.write(piece, 0, piece.length, end + at).catch((error) => {
        throw fileError(error, part, 'write it');
      });
      at += bytesWritten;
    }
    end += bytes.length;
  };
  const append: IndexWriter['append'] = async (json, ...others) => {
    const parts = [new TextEncoder().encode(JSON.stringify(json)), ...others];
    const head = headOf(parts);
    const places = placesIn(head, end)!;
    for (const own of [head, ...parts]) {
      await write(own);
      await write(new Uint8Array(padded(own.length) - own.length));
    }
    return places;
  };
  const stop = async () => {
    done();
    await handle.close();
  };
  return {
    append,
    async finish(directory) {
      const tail = new DataView(new ArrayBuffer(TAIL));
      tail.setFloat64(0, end, true);
      tail.setUint32(8, MARK, true);
      await append(directory, new Uint8Array(0), new Uint8Array(0));
      await write(new Uint8Array(tail.buffer));
      await handle.sync();
      await stop();
      await rename(part, path);
      return fileReader(path);
    },
    stop,
  };
}

/** The records of an unfinished log up to the first that is cut off. */
async function wholeRecords(path: string): Promise<EarlierRecord[]> {
  const source = await openFile(path);
  const records: EarlierRecord[] = [];
  try {
    for (let at = 0; ; ) {
      const place = placesIn(await source.read(at, at + HEAD), at);
      if (!place) return records;
      const parts: Uint8Array[] = [];
      for (const [start, bytes, check] of place) {
        const part = start + bytes > source.size ? null : await source.read(start, start + bytes);
        if (!part || crc32(part) !== check) return records;
        parts.push(part);
      }
      records.push({ json: parseJson(parts[0], path, 'damaged'), place });
      at = place[2][0] + padded(place[2][1]);
    }
  } finally {
    await source.close();
  }
}
