/**
 * The index of a data set: a log of records, closed by a directory. A record is plain data (JSON), numbers, and tables of pictures.
 * The index of a folder on disk is a file in the cache (index-file-node.ts); other folders have theirs in memory.
 */

import { InputError } from '../../../engine/files/errors.ts';

/** A part of an index is not what its directory says. */
export class DamagedIndex extends InputError {}

/** Where a part of a record lies: its first byte, its bytes and their CRC-32. */
export type PartPlace = readonly [at: number, bytes: number, check: number];
/** The places of a record's JSON, numbers and tables. */
export type RecordPlace = readonly [PartPlace, PartPlace, PartPlace];

export interface IndexReader {
  /** Parts of records, in their order; those that follow each other are read together. @throws DamagedIndex */
  read(places: readonly PartPlace[]): AsyncIterable<Uint8Array<ArrayBuffer>>;
}

export interface IndexWriter {
  append(json: unknown, numbers: Uint8Array<ArrayBuffer>, tables: Uint8Array<ArrayBuffer>): Promise<RecordPlace>;
  /** Closes the log with its directory, and makes it the index of the data set. */
  finish(directory: unknown): Promise<IndexReader>;
  /** Leaves the log as it is, to be resumed. */
  stop(): Promise<void>;
}

/** An earlier record, of a log that was begun and not finished. */
export interface EarlierRecord {
  readonly json: unknown;
  readonly place: RecordPlace;
}

export interface DataIndex {
  /** Whether files are watched for changes, so that the index can be used again. */
  readonly kept: boolean;
  /** The finished index; null if there is none, or if it is damaged. */
  open(): Promise<{ readonly directory: unknown; readonly reader: IndexReader } | null>;
  /** Begins a log with the records of an interrupted one, of which `accepts` says how many are kept. */
  begin(accepts: (records: readonly EarlierRecord[]) => Promise<number>): Promise<{
    readonly earlier: readonly EarlierRecord[];
    readonly writer: IndexWriter;
  }>;
}

/** An index that is gone with the data set that it is of. */
export function memoryIndex(): DataIndex {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const held = (bytes: Uint8Array<ArrayBuffer>): PartPlace => [parts.push(bytes) - 1, bytes.length, 0];
  const reader: IndexReader = {
    async *read(places) {
      for (const [at] of places) yield parts[at];
    },
  };
  const writer: IndexWriter = {
    append: async (_, numbers, tables) => [[0, 0, 0], held(numbers), held(tables)],
    finish: async () => reader,
    stop: async () => {},
  };
  return { kept: false, open: async () => null, begin: async () => ({ earlier: [], writer }) };
}
