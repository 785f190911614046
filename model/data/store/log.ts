/**
 * A log: records of plain data (JSON) with parts of bytes, closed by a directory that says what lies where. The index of a data set is one,
 * and so are the unpacked pictures of an episode. Those of a folder on disk are files in the cache (log-node.ts), others lie in memory.
 */
import { InputError } from '../../../engine/files/errors.ts';

/** A part of a log is not what its directory says. */
export class DamagedLog extends InputError {}

/** Where a part lies: its first byte, its bytes and their CRC-32. */
export type PartPlace = readonly [at: number, bytes: number, check: number];

export interface Log {
  readonly directory: unknown;
  /** The bytes that it takes in memory. */
  readonly held: number;
  /** Parts in the order of their places; those that follow each other are read together. @throws DamagedLog */
  read(places: readonly PartPlace[]): AsyncIterable<Uint8Array<ArrayBuffer>>;
}

export interface LogRecord {
  readonly json: unknown;
  readonly parts: readonly PartPlace[];
}

type Append = (json: unknown, parts: readonly Uint8Array[]) => Promise<readonly PartPlace[]>;

export interface Logs {
  /** A finished log; null if there is none, or if its directory is damaged. */
  open(name: string): Promise<Log | null>;
  /**
   * Writes a log in place of an earlier one of its name. What was written until an error stays, to be resumed.
   *
   * @param fill appends records after those that are kept of an interrupted log, and makes the directory
   * @param accepts says how many records of an interrupted log are kept; none without it
   */
  write(
    name: string,
    fill: (append: Append, kept: readonly LogRecord[]) => Promise<unknown>,
    accepts?: (records: readonly LogRecord[]) => Promise<number>,
  ): Promise<Log>;
}

/** Logs that are gone with the data set that they are of. */
export const memoryLogs = (): Logs => ({
  open: async () => null,
  async write(_, fill) {
    const all: Uint8Array<ArrayBuffer>[] = [];
    const keep = (bytes: Uint8Array): PartPlace => [all.push(bytes as Uint8Array<ArrayBuffer>) - 1, bytes.length, 0];
    const directory = await fill(async (_, parts) => parts.map(keep), []);
    const read = async function* (places: readonly PartPlace[]) {
      for (const [at] of places) yield all[at];
    };
    return { directory, held: all.reduce((sum, { length }) => sum + length, 0), read };
  },
});

/** Reads one part of a log. */
export async function partAt(log: Log, place: PartPlace): Promise<Uint8Array<ArrayBuffer>> {
  let part = new Uint8Array(0);
  for await (const own of log.read([place])) part = own;
  return part;
}
