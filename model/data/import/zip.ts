import { inflateSync } from 'fflate';
import { type ByteSource, readRange } from '../../../engine/files/bytes.ts';
import { crc32 } from '../../../engine/files/checksum.ts';
import { InputError, quote, reasonOf } from '../../../engine/files/errors.ts';

// Zip archives as numpy writes them: files are stored, and can be read in place, or packed by deflate.

/** The bytes of the largest array that is held in memory: numbers, texts, and whatever is packed. */
const LIMIT = 2 ** 30;
/** Deflate unpacks a byte to at most this many. */
const MOST_UNPACKED = 1032;
/** The bytes of which a checksum is made at once. */
const CHECKED = 2 ** 20;

/** A file in an archive: its bytes there and unpacked, and where its data begin. */
export type ArchiveFile = Awaited<ReturnType<typeof readDirectory>>[number];

const damaged = (file: ByteSource, { name }: ArchiveFile, why: string) =>
  new InputError(`${file.name}: file ${quote(name)} of the archive is damaged (${why}): fetch the archive again`);

/** What was unpacked, while memory lasts: the pictures of one episode after another are of the same file. */
const unpacked = new WeakMap<ArchiveFile, WeakRef<Uint8Array<ArrayBuffer>>>();

/** Reads bytes of a file: in place, or by unpacking all of it, to as many bytes as the directory says. */
export async function readFile(
  file: ByteSource,
  entry: ArchiveFile,
  from: number,
  to: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const { name, method, crc, packed, size, start } = entry;
  const what = `file ${quote(name)} of the archive`;
  const wanted = method === 0 ? to - from : size;
  if (wanted > LIMIT)
    throw new InputError(
      `${file.name}: ${what} has ${wanted} bytes; above ${LIMIT} only pictures that np.savez saved are read`,
    );
  if (method === 0) return readRange(file, start + from, start + to, what);
  const held = unpacked.get(entry)?.deref();
  if (held) return held.slice(from, to);
  let bytes = await readRange(file, start, start + packed, what);
  try {
    bytes = inflateSync(bytes, { out: new Uint8Array(size) });
  } catch (error) {
    throw damaged(file, entry, reasonOf(error));
  }
  if (bytes.length < size || crc32(bytes) !== crc) throw damaged(file, entry, 'checksum');
  unpacked.set(entry, new WeakRef(bytes));
  return bytes.slice(from, to);
}

/** Compares the checksums of the files that are not packed. */
export async function checkStored(file: ByteSource, entries: readonly ArchiveFile[]): Promise<void> {
  for (const entry of entries.filter(({ method }) => method === 0)) {
    let crc = 0;
    for (let at = 0; at < entry.size; at += CHECKED)
      crc = crc32(await readFile(file, entry, at, Math.min(entry.size, at + CHECKED)), crc);
    if (crc !== entry.crc) throw damaged(file, entry, 'checksum');
  }
}

/** Lists the files of a zip archive below 4 GiB. @throws InputError if it is damaged, cut off, or no such archive */
export async function readDirectory(file: ByteSource) {
  const fail = (complaint: string) => new InputError(`${file.name}: ${complaint}`);
  // The end of the directory lies in these last bytes, before a comment, which numpy does not write.
  const at = Math.max(0, file.size - 22);
  const end = new DataView((await readRange(file, at, file.size, 'the archive')).buffer);
  if (end.byteLength < 22 || end.getUint32(0, true) !== 0x06054b50) throw fail('cut off, or no zip archive of numpy');
  const [length, first] = [end.getUint32(12, true), end.getUint32(16, true)];
  if (first === 0xffffffff) throw fail('it has 4 GiB or more, and smaller archives are read');
  const unlike = fail('damaged: its end does not say where its directory of files lies');
  if (first + length !== at) throw unlike;
  const bytes = await readRange(file, first, at, "the archive's directory");
  const view = new DataView(bytes.buffer);
  const entries = [];
  for (let place = 0; place < length; ) {
    if (place + 46 > length || view.getUint32(place, true) !== 0x02014b50)
      throw fail(`damaged: no entry at byte ${first + place} of the archive's directory`);
    const [method, nameLength, extra, comment] = [10, 28, 30, 32].map((field) => view.getUint16(place + field, true));
    const [crc, packed, size, offset] = [16, 20, 24, 42].map((field) => view.getUint32(place + field, true));
    const name = new TextDecoder().decode(bytes.subarray(place + 46, place + 46 + nameLength));
    const own = `file ${quote(name)} of the archive`;
    if (size === 0xffffffff)
      throw fail(`${own} has 2 GiB or more (zip64), and smaller ones are read: save parts of it`);
    if (method !== 0 && method !== 8)
      throw fail(`${own} is packed by method ${method}; 0 and 8 are read, as numpy writes`);
    if (method === 0 ? size !== packed : size > packed * MOST_UNPACKED)
      throw fail(`${own} says it unpacks from ${packed} to ${size} bytes: damaged`);
    // Checksums do not cover names, but each name stands twice.
    const twin = await readRange(file, offset, offset + 30 + nameLength, `the header of ${quote(name)}`);
    const header = new DataView(twin.buffer);
    if (header.getUint32(0, true) !== 0x04034b50 || new TextDecoder().decode(twin.subarray(30)) !== name)
      throw fail(`damaged: ${own} is not at byte ${offset}`);
    const start = offset + 30 + header.getUint16(26, true) + header.getUint16(28, true);
    entries.push({ name, method, crc, packed, size, start });
    place += 46 + nameLength + extra + comment;
  }
  if (entries.length !== end.getUint16(10, true)) throw unlike;
  return entries;
}
