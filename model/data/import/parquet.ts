import {
  type ColumnMetaData,
  type FileMetaData,
  parquetMetadataAsync,
  parquetSchema,
  type SchemaElement,
  type SchemaTree,
} from 'hyparquet';
import { type Folder, readRange } from '../../../engine/files/bytes.ts';
import { InputError, quote, reasonOf } from '../../../engine/files/errors.ts';
import { decodePages, type Leaf, type Page, VALUES_LIMIT } from './parquet-pages.ts';

/** A page whose values begin in row `row` of the file, or before it if the list of that row goes on in it. */
interface FilePage extends Page {
  readonly row: number;
}

type Numbers = Float32Array<ArrayBuffer> | Float64Array<ArrayBuffer>;
type Columns = FileMetaData['row_groups'][number]['columns'];
/** The rows of a row group. */
interface Group {
  readonly start: number;
  readonly end: number;
  readonly columns: Columns;
}

/** Whether byte arrays of this kind are texts. */
export const isText = ({ type, logical_type: logical, converted_type: converted }: SchemaElement) =>
  type === 'BYTE_ARRAY' && /^(STRING|JSON|ENUM|UTF8)$/.test(logical?.type ?? converted ?? '');

/** A parquet file with its footer in memory; the rest is read a row group at a time, and the file is not held open in between. */
export class ParquetFile {
  readonly rows: number;
  readonly columns: ReadonlyMap<string, readonly Leaf[]>;
  readonly #groups: readonly Group[];
  /** The rows, or numbers, of the last row group that was read of each leaf. */
  readonly #held = new Map<Leaf, { start: number; values: unknown }>();

  private constructor(
    readonly name: string,
    private readonly folder: Folder,
    private readonly path: string,
    metadata: FileMetaData,
  ) {
    let end = 0;
    this.#groups = metadata.row_groups.map(({ num_rows: rows, columns }, number) => {
      const start = end;
      end += Number(rows);
      if (!(end >= start && end <= 2 ** 40)) throw new Error(`row group ${number} says it has ${rows} rows`);
      return { start, end, columns };
    });
    this.rows = end;
    this.columns = new Map(parquetSchema(metadata).children.map((node) => [node.element.name, leavesOf(node)]));
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
    if (!leaves) {
      const known = [...this.columns.keys()].slice(0, 12).join(', ');
      throw new InputError(`${this.name}: no column ${quote(column)}; there are ${known}`);
    }
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
  async numbers(column: string, from: number, to: number, width: number): Promise<Numbers> {
    const leaf = this.leaf(column);
    const make = leaf.element.type === 'FLOAT' ? Float32Array : Float64Array;
    this.#expectRows(from, to);
    let out: Numbers | undefined;
    for (const group of this.#groupsOf(from, to)) {
      const values = await this.#hold(leaf, group, () => this.#numbersOf(leaf, group, width));
      const [first, last] = [Math.max(from, group.start), Math.min(to, group.end)];
      out ??= new make((to - from) * width);
      out.set(values.subarray((first - group.start) * width, (last - group.start) * width), (first - from) * width);
    }
    return out ?? new make(0);
  }

  async #numbersOf(leaf: Leaf, { start, end }: Group, width: number): Promise<Numbers> {
    const [column] = leaf.path;
    if (!((end - start) * width <= VALUES_LIMIT))
      throw this.#error(column, `does not hold ${width} numbers in row ${start}`);
    const out = new (leaf.element.type === 'FLOAT' ? Float32Array : Float64Array)((end - start) * width);
    let at = 0;
    for await (const { count, repetition, definition, values } of this.pages(leaf, start, end)) {
      if (!/number|bigint|boolean|undefined/.test(typeof values[0]))
        throw this.#error(column, 'holds texts or bytes, numbers were expected');
      for (let i = 0; i < count; i++, at++) {
        const place = at % width;
        const row = start + (at - place) / width;
        // A row must begin at its first place, and only there.
        if (repetition ? (repetition[i] === 0) !== (place === 0) : width !== 1)
          throw this.#error(column, `does not hold ${width} numbers in row ${place === 0 ? row - 1 : row}`);
        if (definition && definition[i] < leaf.full)
          throw this.#error(column, `has an empty place in row ${row}, place ${place} of ${width}`);
        out[at] = Number(values[i]);
      }
    }
    if (at !== out.length) throw this.#error(column, `does not hold ${width} numbers in row ${end - 1}`);
    return out;
  }

  /** Reads rows `from` to `to` - 1 of a leaf, each as a list: of its one value, or of those of its lists; null for an empty place, or list. */
  async lists(leaf: Leaf, from: number, to: number): Promise<unknown[][]> {
    this.#expectRows(from, to);
    const lists: unknown[][] = [];
    for (const group of this.#groupsOf(from, to)) {
      const own = await this.#hold(leaf, group, () => this.#listsOf(leaf, group));
      lists.push(...own.slice(Math.max(0, from - group.start), to - group.start));
    }
    return lists;
  }

  async #listsOf(leaf: Leaf, { start, end }: Group): Promise<unknown[][]> {
    const rows: unknown[][] = [];
    for await (const { count, repetition, definition, values } of this.pages(leaf, start, end)) {
      let next = 0;
      for (let i = 0; i < count; i++) {
        if (!repetition || repetition[i] === 0) rows.push([]);
        const there = !definition || definition[i] === leaf.full;
        rows.at(-1)!.push(there ? values[next++] : null);
      }
    }
    return rows;
  }

  /** Decodes the pages of a leaf with rows among `from` to `to` - 1, and those before them in their row group. */
  async *pages(leaf: Leaf, from: number, to: number): AsyncGenerator<FilePage> {
    for (const group of this.#groupsOf(from, to)) yield* this.#pages(leaf, group, to);
  }

  /** The values of a leaf in each row, if the footer says that all rows have the same number of them; null otherwise. */
  width(leaf: Leaf): number | null {
    const counts = this.#groups.map(
      ({ start, end, columns }) => Number(chunkOf(columns, leaf)?.num_values) / (end - start),
    );
    const [width] = counts;
    return Number.isInteger(width) && counts.every((own) => own === width) ? width : null;
  }

  /** Whether the footer says that no row among `from` to `to` - 1 lacks a value of the leaf. */
  isFull(leaf: Leaf, from: number, to: number): boolean {
    return this.#groupsOf(from, to).every(({ columns }) => chunkOf(columns, leaf)?.statistics?.null_count === 0n);
  }

  /** Makes what is read of a leaf in a row group, or returns it if it is that of the last row group. */
  async #hold<T>(leaf: Leaf, { start }: Group, make: () => Promise<T>): Promise<T> {
    const held = this.#held.get(leaf);
    if (held?.start === start) return held.values as T;
    this.#held.delete(leaf);
    const values = await make();
    this.#held.set(leaf, { start, values });
    return values;
  }

  async *#pages(leaf: Leaf, { start, end, columns }: Group, to: number): AsyncGenerator<FilePage> {
    const source = await this.folder.open(this.path);
    try {
      const chunk = chunkOf(columns, leaf);
      if (!chunk) throw new Error('it lies in another file, which is not read here');
      const at = Number(chunk.dictionary_page_offset || chunk.data_page_offset);
      const bytes = await readRange(
        source,
        at,
        at + Number(chunk.total_compressed_size),
        `column ${quote(leaf.path[0])}`,
      );
      let row = start;
      for await (const page of decodePages(bytes, at, leaf, chunk)) {
        const { count, repetition } = page;
        if (row === start && repetition?.[0]) throw new Error('its first row lacks its beginning');
        const begun = repetition ? repetition.reduce((sum, level) => sum + (level === 0 ? 1 : 0), 0) : count;
        if (row + begun > end) throw new Error(`it has more than ${end - start} rows`);
        yield { ...page, row };
        row += begun;
        if (row >= to && to < end) return;
      }
      if (row !== end) throw new Error(`it has ${row - start} of ${end - start} rows`);
    } catch (error) {
      if (error instanceof InputError) throw error;
      throw this.#error(leaf.path[0], `is damaged in the row group that begins with row ${start} (${reasonOf(error)})`);
    } finally {
      await source.close();
    }
  }

  #groupsOf(from: number, to: number) {
    return this.#groups.filter(({ start, end }) => end > from && start < to);
  }

  #expectRows(from: number, to: number): void {
    if (!(from >= 0 && from <= to && to <= this.rows))
      throw new InputError(`${this.name}: has ${this.rows} rows, rows ${from} to ${to - 1} were expected`);
  }

  #error(column: string, complaint: string): InputError {
    return new InputError(`${this.name}: column ${quote(column)} ${complaint}`);
  }
}

/** Lists the leaves of a top-level column, or of a part of it at the given levels. */
function leavesOf({ element, children, path }: SchemaTree, outer = 0, around = 0): Leaf[] {
  const full = outer + (element.repetition_type === 'REQUIRED' ? 0 : 1);
  const lists = around + (element.repetition_type === 'REPEATED' ? 1 : 0);
  return children.length === 0
    ? [{ path, element, full, lists }]
    : children.flatMap((own) => leavesOf(own, full, lists));
}

/** What the footer says about a leaf in a row group. */
function chunkOf(columns: Columns, { path }: Leaf): ColumnMetaData | undefined {
  const found = columns.find(({ meta_data: own }) => own?.path_in_schema.join('\n') === path.join('\n'));
  return found?.file_path ? undefined : found?.meta_data;
}
