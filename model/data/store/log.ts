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

export interface LogWriter {
  append(json: unknown, parts: readonly Uint8Array[]): Promise<readonly PartPlace[]>;
  /** Closes the log with its directory, in place of an earlier one of its name. */
  finish(directory: unknown): Promise<Log>;
  /** Leaves the log as it is, to be resumed. */
  stop(): Promise<void>;
}

export interface Logs {
  /** A finished log; null if there is none, or if its directory is damaged. */
  open(name: string): Promise<Log | null>;
  /** Begins a log with the records of an interrupted one, of which `accepts` says how many are kept; none without it. */
  begin(
    name: string,
    accepts?: (records: readonly LogRecord[]) => Promise<number>,
  ): Promise<{ readonly earlier: readonly LogRecord[]; readonly writer: LogWriter }>;
}

/** Logs that are gone with the data set that they are of. */
export const memoryLogs = (): Logs => ({
  open: async () => null,
  async begin() {
    const all: Uint8Array<ArrayBuffer>[] = [];
    let held = 0;
    const keep = (bytes: Uint8Array): PartPlace => {
      held += bytes.length;
      return [all.push(bytes as Uint8Array<ArrayBuffer>) - 1, bytes.length, 0];
    };
    const read = async function* (places: readonly PartPlace[]) {
      for (const [at] of places) yield all[at];
    };
    const writer: LogWriter = {
      append: async (_, parts) => parts.map(keep),
      finish: async (directory) => ({ directory, held, read }),
      stop: async () => {},
    };
    return { earlier: [], writer };
  },
});

/** The first of some parts. */
export async function partAt(log: Log, place: PartPlace): Promise<Uint8Array<ArrayBuffer>> {
  for await (const part of log.read([place])) return part;
  throw new RangeError('a log gives a part for each place');
}
