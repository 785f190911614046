/**
 * Checksums in a safetensors file: an entry of its `__metadata__`, which other programs ignore. It is the JSON of an object with the CRC-32
 * of each tensor's bytes by its name, and that of the other metadata by `__metadata__`, in eight hexadecimal digits each.
 */
import { parseJson } from './bytes.ts';
import { crc32 } from './checksum.ts';
import { InputError, quote } from './errors.ts';

/** The key of the entry. */
export const CHECKSUMS = 'insula.crc32';

export const hexadecimal = (checksum: number): string => checksum.toString(16).padStart(8, '0');

/** The checksum of metadata, in whichever order they stand. */
export const metadataChecksum = (metadata: Iterable<readonly [string, string]>): string =>
  hexadecimal(crc32(new TextEncoder().encode(JSON.stringify([...metadata].sort()))));

/** The entry for tensors with these checksums; its length depends on the names alone. */
export function checksumEntry(
  tensors: ReadonlyMap<string, number>,
  metadata: Iterable<readonly [string, string]>,
): string {
  const words = Array.from(tensors, ([name, checksum]) => [name, hexadecimal(checksum)]);
  return JSON.stringify({ __metadata__: metadataChecksum(metadata), ...Object.fromEntries(words) });
}

/**
 * The checksums in an entry; none without an entry.
 *
 * @throws InputError if they are not those of tensors of these names
 */
export function checksumsIn(file: string, entry: string | undefined, tensors: Iterable<string>): Map<string, string> {
  if (entry === undefined) return new Map();
  const damaged = 'damaged: its checksums';
  const json = parseJson(new TextEncoder().encode(entry), file, `${damaged} are not JSON`);
  const checksums = new Map(Object.entries((json ?? {}) as Record<string, string>));
  for (const name of ['__metadata__', ...tensors])
    if (!/^[0-9a-f]{8}$/.test(checksums.get(name) ?? ''))
      throw new InputError(`${file}: ${damaged} lack that of ${quote(name)}`);
  return checksums;
}
