import { type FileMetaData, parquetMetadataAsync, parquetSchema } from 'hyparquet';
import type { Folder } from '../../../engine/files/bytes.ts';
import { InputError, quote, reasonOf } from '../../../engine/files/errors.ts';
import { firstWhere } from '../first-where.ts';
import { chunkOf, chunkPages, type Leaf, leavesOf, type Page, secondsOf } from './parquet-pages.ts';

/** A parquet file with its footer in memory; the rest is read on request, and the file is not held open in between. */
export class ParquetFile {
  readonly rows: number;
  readonly columns: ReadonlyMap<string, readonly Leaf[]>;
  readonly #groups: readonly { start: number; end: number; chunks: FileMetaData['row_groups'][number]['columns'] }[];
  /** The numbers of the last row group that was read of each column. */
  readonly #held = new Map<string, { group: number; values: Float32Array | Float64Array }>();

  private constructor(
    readonly name: string,
    private readonly folder: Folder,
    private readonly path: string,
    metadata: FileMetaData,
  ) {
    let end = 0;
    this.#groups = metadata.row_groups.map(({ num_rows: rows, columns: chunks }, number) => {
      const start = end;
      end += Number(rows);
      if (!(end >= start && end <= 2 ** 40))
        throw new InputError(`${name}: row group ${number} says it has ${rows ?? 'no'} rows`);
      return { start, end, chunks };
    });
    this.rows = end;
    const { children } = parquetSchema(metadata);
    this.columns = new Map(children.map((node) => [node.element.name, leavesOf(node)]));
  }

  /** Reads the footer. @throws InputError if the file is missing, cut off or no parquet file */
  static async open(folder: Folder, path: string): Promise<ParquetFile> {
    const source = await folder.open(path);
    const slice = async (start: number, end = source.size) => (await source.read(start, end)).buffer;
    try {
      if (source.size < 12) throw new Error(`${source.size} bytes`);
      const metadata = await parquetMetadataAsync({ byteLength: source.size, slice }, { geoparquet: false });
      return new ParquetFile(source.name, folder, path, metadata);
    } catch (error) {
      if (error instanceof InputError) throw error;
      throw new InputError(`${source.name}: cut off, or not a parquet file: fetch it again (${reasonOf(error)})`);
    } finally {
      await source.close();
    }
  }

  /** Returns the leaf at the end of a column of single values or lists, or of its field. @throws InputError if there is none */
  leaf(column: string, field?: string): Leaf {
    const leaves = this.columns.get(column);
    if (!leaves)
      throw new InputError(
        `${this.name}: no column ${quote(column)}; there are ${[...this.columns.keys()].slice(0, 12).join(', ')}`,
      );
    const found = field === undefined ? leaves : leaves.filter(({ path }) => path.at(-1) === field);
    if (found.length !== 1)
      throw this.#error(column, field === undefined ? 'has several fields, or none' : `has no field ${quote(field)}`);
    return found[0];
  }

  /**
   * Reads rows `from` to `to` - 1 as [rows, width], lists flattened: float32 as it is, all other numbers as float64, times in seconds.
   *
   * @throws InputError if a row has another number of values, or an empty place; the message names it
   */
  async numbers(column: string, from: number, to: number, width: number): Promise<Float32Array | Float64Array> {
    this.#expectRows(from, to);
    const leaf = this.leaf(column);
    const make = leaf.element.type === 'FLOAT' ? Float32Array : Float64Array;
    let out: Float32Array | Float64Array | undefined;
    for (let group = this.#groupOf(from); group < this.#groups.length && this.#groups[group].start < to; group++) {
      const { start, end } = this.#groups[group];
      let held = this.#held.get(column);
      if (held?.group !== group) {
        this.#held.delete(column);
        held = { group, values: await this.#groupNumbers(leaf, group, width) };
        this.#held.set(column, held);
      }
      const [first, last] = [Math.max(from, start), Math.min(to, end)];
      out ??= new make((to - from) * width);
      out.set(held.values.subarray((first - start) * width, (last - start) * width), (first - from) * width);
    }
    return out ?? new make(0);
  }

  async #groupNumbers(leaf: Leaf, group: number, width: number): Promise<Float32Array | Float64Array> {
    const { start, end } = this.#groups[group];
    const column = leaf.path[0];
    const make = leaf.element.type === 'FLOAT' ? Float32Array : Float64Array;
    const parts: (Float32Array | Float64Array)[] = [];
    const unit = secondsOf(leaf.element);
    let done = 0;
    const row = (at: number) => start + Math.floor(at / width);
    for await (const { count, repetition, definition, values } of this.pages(leaf, start, end)) {
      const empty = definition?.findIndex((level) => level < leaf.full) ?? -1;
      const uneven = repetition ? firstUneven(repetition, done % width, width) : -1;
      if (uneven >= 0 && (empty < 0 || uneven <= empty + 1))
        throw this.#error(column, `does not hold ${width} numbers in row ${row(Math.max(0, done + uneven - 1))}`);
      if (empty >= 0)
        throw this.#error(
          column,
          `has an empty place in row ${row(done + empty)}, place ${(done + empty) % width} of ${width}`,
        );
      if (!repetition && width !== 1) throw this.#error(column, `has one number a row, ${width} were expected`);
      const wrong = values.length > 0 && !/number|bigint|boolean/.test(typeof values[0]);
      if (wrong) throw this.#error(column, 'holds texts or bytes, numbers were expected');
      let part = values;
      if (!(part instanceof make)) {
        part = new make(count);
        for (let i = 0; i < count; i++) (part as Float64Array)[i] = Number(values[i]) * unit;
      }
      parts.push(part as Float64Array);
      done += count;
    }
    if (done !== (end - start) * width)
      throw this.#error(column, `has ${done} numbers in ${end - start} rows, ${width} a row were expected`);
    if (parts.length === 1) return parts[0];
    const out = new make(done);
    let at = 0;
    for (const part of parts) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  }

  /** Reads rows `from` to `to` - 1 of a leaf, each as a list: of its one value, or of those of its lists; null for an empty place. */
  async lists(leaf: Leaf, from: number, to: number): Promise<unknown[][]> {
    this.#expectRows(from, to);
    const rows: unknown[][] = [];
    for await (const { row, count, repetition, definition, values } of this.pages(leaf, from, to)) {
      let [at, next] = [row - 1, 0];
      for (let i = 0; i < count; i++) {
        if (!repetition || repetition[i] === 0) at += 1;
        const there = !definition || definition[i] === leaf.full;
        if (at >= from && at < to) {
          rows[at - from] ??= [];
          if (there) rows[at - from].push(values[next]);
          else if (definition[i] >= leaf.entry) rows[at - from].push(null); // below it, the list is empty
        }
        if (there) next += 1;
      }
    }
    const missing = Array.from({ length: to - from }, (_, i) => rows[i]).findIndex((list) => !list);
    if (missing >= 0) throw this.#error(leaf.path[0], `has no row ${from + missing}`);
    return rows;
  }

  /** The values of a leaf in each row, if the footer says that all rows have the same number of them; null otherwise. */
  width(leaf: Leaf): number | null {
    const counts = this.#groups.map(
      ({ start, end, chunks }) => Number(chunkOf(chunks, leaf)?.num_values) / (end - start),
    );
    const [width] = counts;
    return Number.isInteger(width) && counts.every((own) => own === width) ? width : null;
  }

  /** Whether the footer says that no row among `from` to `to` - 1 lacks a value of the leaf. */
  isFull(leaf: Leaf, from: number, to: number): boolean {
    return this.#groups.every(
      ({ start, end, chunks }) => end <= from || start >= to || chunkOf(chunks, leaf)?.statistics?.null_count === 0n,
    );
  }

  /** Decodes the pages of a leaf with rows among `from` to `to` - 1, one after the other. @throws InputError if one is damaged */
  async *pages(leaf: Leaf, from: number, to: number): AsyncGenerator<Page> {
    for (let group = this.#groupOf(from); group < this.#groups.length && this.#groups[group].start < to; group++) {
      const { start, chunks } = this.#groups[group];
      const source = await this.folder.open(this.path);
      try {
        yield* chunkPages(source, leaf, chunkOf(chunks, leaf), start, to);
      } finally {
        await source.close();
      }
    }
  }

  #groupOf(row: number): number {
    return firstWhere(this.#groups.length, (group) => this.#groups[group].end > row);
  }

  #expectRows(from: number, to: number): void {
    if (!(from >= 0 && from <= to && to <= this.rows))
      throw new InputError(`${this.name}: has ${this.rows} rows, rows ${from} to ${to - 1} were expected`);
  }

  #error(column: string, complaint: string): InputError {
    return new InputError(`${this.name}: column ${quote(column)} ${complaint}`);
  }
}

/** Finds the first place at which a row of `width` values begins too early or too late; -1 if there is none. */
function firstUneven(repetition: Uint8Array, start: number, width: number): number {
  let inRow = start;
  for (let i = 0; i < repetition.length; i++) {
    if ((repetition[i] === 0) !== (inRow === 0)) return i;
    inRow = inRow + 1 === width ? 0 : inRow + 1;
  }
  return -1;
}
