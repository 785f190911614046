import { inflateSync } from 'fflate';
import { type ByteSource, readRange } from '../../../engine/files/bytes.ts';
import { InputError, quote, reasonOf } from '../../../engine/files/errors.ts';
import { crc32 } from '../checksum.ts';

/** The end of the directory lies in these last bytes, before a comment of at most 64 KiB. */
const END_BYTES = 22 + 65535;
/** Deflate unpacks a byte to at most this many. */
const MOST_UNPACKED = 1032;

/** Lists the files of a zip archive below 4 GiB. @throws InputError if it is damaged, cut off, or no such archive */
export async function readZip(source: ByteSource) {
  const tail = await readRange(source, Math.max(0, source.size - END_BYTES), source.size, 'the archive');
  const end = new DataView(tail.buffer);
  let at = tail.length - 22;
  while (at >= 0 && end.getUint32(at, true) !== 0x06054b50) at -= 1;
  if (at < 0) throw new InputError(`${source.name}: cut off, or no zip archive`);
  const [length, first] = [end.getUint32(at + 12, true), end.getUint32(at + 16, true)];
  const unlike = new InputError(`${source.name}: damaged: its end does not say where its directory of files lies`);
  if (first + length !== source.size - tail.length + at) throw unlike;
  const bytes = await readRange(source, first, first + length, "the archive's directory");
  const view = new DataView(bytes.buffer);
  const entries = [];
  for (let place = 0; place < length; ) {
    const own = Math.min(length, place + 46);
    if (own < place + 46 || view.getUint32(place, true) !== 0x02014b50)
      throw new InputError(`${source.name}: damaged: no entry at byte ${first + place} of the archive's directory`);
    const [name, extra, comment] = [28, 30, 32].map((field) => view.getUint16(place + field, true));
    const [crc, packed, size] = [16, 20, 24].map((field) => view.getUint32(place + field, true));
    const text = new TextDecoder().decode(bytes.subarray(own, own + name));
    const offset = view.getUint32(place + 42, true);
    // Checksums do not cover names, but each name stands twice.
    const twin = await readRange(source, offset, offset + 30 + name, `the header of ${quote(text)}`);
    if (
      new DataView(twin.buffer).getUint32(0, true) !== 0x04034b50 ||
      new TextDecoder().decode(twin.subarray(30)) !== text
    )
      throw new InputError(
        `${source.name}: damaged: ${quote(text)} of the archive's directory is not at byte ${offset}`,
      );
    entries.push({
      name: text,
      method: view.getUint16(place + 10, true),
      crc,
      packed,
      size,
      offset,
    });
    place = own + name + extra + comment;
  }
  if (entries.length !== end.getUint16(at + 10, true)) throw unlike;
  return entries;
}

/** A file as the archive's directory lists it: the bytes in the archive, the bytes unpacked, and the offset of its header. */
type ZipEntry = Awaited<ReturnType<typeof readZip>>[number];

/** Unpacks a file. @throws InputError if it is damaged: its size or checksum is wrong, or it cannot be unpacked */
export async function readZipEntry(source: ByteSource, entry: ZipEntry): Promise<Uint8Array> {
  const { name, method, crc, packed, size, offset } = entry;
  const what = `file ${quote(name)} of the archive`;
  const fail = (complaint: string) => new InputError(`${source.name}: ${what} ${complaint}`);
  if (size > packed * MOST_UNPACKED) throw fail(`says it unpacks from ${packed} to ${size} bytes: damaged`);
  const head = new DataView((await readRange(source, offset, offset + 30, what)).buffer);
  const start = offset + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const body = await readRange(source, start, start + packed, what);
  if (method !== 0 && method !== 8) throw fail(`is packed by method ${method}; 0 and 8 are read, as numpy writes`);
  let bytes: Uint8Array = body;
  try {
    if (method === 8) bytes = inflateSync(body);
  } catch (error) {
    throw fail(`is damaged (${reasonOf(error)})`);
  }
  if (bytes.length !== size || crc32(bytes) !== crc) throw fail('is damaged (checksum): fetch the archive again');
  return bytes;
}
