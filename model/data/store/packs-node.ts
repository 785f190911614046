import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { readRange } from '../../../engine/files/bytes.ts';
import { openFile, writeFileSafely } from '../../../engine/files/files.ts';
import { MemoryCache } from '../memory-cache.ts';
import { expectCount, inTurn, type Packs, packedPicture, unpackedPicture } from './pictures.ts';

// This file runs under node only.

/** The bytes of tables that are held. */
const TABLE_BYTES = 2 ** 24;

/** Packs in a folder: pictures one after the other, then float64 the end of each, and their count. Each is written atomically. */
export function packsInFolder(folder: string): Packs {
  const turn = inTurn();
  const tables = new MemoryCache<Float64Array>(TABLE_BYTES, (ends) => ends.byteLength);
  const pathOf = (name: string) => join(folder, `${createHash('sha256').update(name).digest('hex').slice(0, 24)}.pack`);
  const readEnds = async (path: string): Promise<Float64Array | null> => {
    const source = await openFile(path).catch(() => null);
    if (!source) return null;
    try {
      const [count] = new Float64Array((await readRange(source, source.size - 8, source.size, 'its table')).buffer);
      return new Float64Array(
        (await readRange(source, source.size - 8 * count - 8, source.size - 8, 'its table')).buffer,
      );
    } finally {
      await source.close();
    }
  };
  return {
    async get(name, index, count, make) {
      const path = pathOf(name);
      const ends = await tables.get(path, () =>
        turn(async () => {
          const kept = await readEnds(path);
          if (kept) return kept;
          const made: number[] = [];
          const parts = async function* () {
            for await (const picture of make()) {
              const bytes = packedPicture(picture);
              made.push((made.at(-1) ?? 0) + bytes.length);
              yield bytes;
            }
            expectCount(name, made.length, count);
            yield new Uint8Array(Float64Array.from([...made, made.length]).buffer);
          };
          await mkdir(folder, { recursive: true });
          await writeFileSafely(path, parts());
          return Float64Array.from(made);
        }),
      );
      const source = await openFile(path);
      try {
        return unpackedPicture(await readRange(source, ends[index - 1] ?? 0, ends[index], 'a picture'));
      } finally {
        await source.close();
      }
    },
  };
}
