/**
 * Makes a 32-bit cyclic redundancy check from its reversed polynomial. The argument `before` is the check of the
 * preceding bytes. Four bytes are processed at a time: table k holds the effect of a byte that k bytes follow.
 */
export function checksum(polynomial: number): (bytes: Uint8Array, before?: number) => number {
  const table = Int32Array.from({ length: 256 }, (_, byte) => {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1;
    return crc;
  });
  const followed = (own: Int32Array) => own.map((crc) => (crc >>> 8) ^ table[crc & 255]);
  const [one, two] = [followed(table), followed(followed(table))];
  const three = followed(two);
  return (bytes, before = 0) => {
    let crc = ~before;
    let i = 0;
    for (; i + 4 <= bytes.length; i += 4) {
      crc ^= bytes[i] | (bytes[i + 1] << 8) | (bytes[i + 2] << 16) | (bytes[i + 3] << 24);
      crc = three[crc & 255] ^ two[(crc >>> 8) & 255] ^ one[(crc >>> 16) & 255] ^ table[crc >>> 24];
    }
    for (; i < bytes.length; i++) crc = table[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
    return ~crc >>> 0;
  };
}

/** The CRC-32 of zip, parquet and checkpoints: that of node's zlib, which is ten times as fast, or in a browser the one above. */
export const crc32: ReturnType<typeof checksum> =
  globalThis.process?.getBuiltinModule?.('node:zlib').crc32 ?? checksum(0xedb88320);

/** Bytes that are read together. */
const PART = 2 ** 24;

/** The CRC-32 of bytes start ... end - 1 of a source, of which one part at a time is in memory. */
export async function crc32Between(
  read: (start: number, end: number) => Promise<Uint8Array>,
  start: number,
  end: number,
): Promise<number> {
  let found = 0;
  for (let at = start; at < end; at += PART) found = crc32(await read(at, Math.min(end, at + PART)), found);
  return found;
}

/** The CRC-32C (Castagnoli) of TFRecord files. */
export const crc32c = checksum(0x82f63b78);
