import type { SchemaTree } from 'hyparquet';
import { getMaxDefinitionLevel } from 'hyparquet/src/schema.js';
import type { ByteSource, Folder } from '../../../engine/files/bytes.ts';
import { InputError, quote } from '../../../engine/files/errors.ts';
import { firstWhere } from '../first-where.ts';
import { MemoryCache } from '../memory-cache.ts';
import { readFooter, rowGroups } from './footer.ts';
import { inTurn, type LargePage, largePage, readLargeValue } from './large-pages.ts';
import { type ColumnChunk, type PageTable, readPageTable } from './pages.ts';
import { type PageValues, readPageValues } from './values.ts';

/** The bytes of decoded pages kept in memory for all files of a reader. */
const PAGE_CACHE_BYTES = 256 * 2 ** 20;
/** The bytes of footers and page tables kept in memory. */
const FILE_CACHE_BYTES = 128 * 2 ** 20;

/** The most numbers that can be requested at once. */
const NUMBERS_LIMIT = 2 ** 26;
/** The most rows of a column of texts that are read. */
const TEXTS_LIMIT = 2 ** 22;

/** The values of a page, or their places in a large page of byte arrays. */
type HeldPage = PageValues | LargePage;

const fileCache = () => new MemoryCache<ParquetFile>(FILE_CACHE_BYTES, (file) => file.footerBytes);
const pageCache = () =>
  new MemoryCache<HeldPage>(PAGE_CACHE_BYTES, (page) => {
    if ('pieces' in page) return page.starts.byteLength * 2 + page.pieces.byteLength;
    const { values, definition, repetition } = page;
    const bytes = Array.isArray(values) ? [...new Set(values)] : null; // rows that refer to a dictionary share its values
    const own = bytes ? bytes.reduce((sum, { length }) => sum + length + 100, 0) : (values as Float32Array).byteLength;
    return own + (definition?.length ?? 0) + (repetition?.length ?? 0);
  });

/** The parquet files of one folder; recently read parts of them are kept in memory up to fixed limits. */
export class ParquetFolder {
  #files = fileCache();
  #pages = pageCache();

  constructor(readonly folder: Folder) {}

  /** @throws InputError if the file is missing, cut off or no parquet file */
  open(path: string): Promise<ParquetFile> {
    return this.#files.get(path, () => ParquetFile.open(this.folder, path, this.#pages));
  }

  forget(): void {
    [this.#files, this.#pages] = [fileCache(), pageCache()];
  }
}

/** A parquet file with its footer in memory; the rest is read on request, and no file is held open in between. */
export class ParquetFile {
  readonly #tables = new Map<ColumnChunk, Promise<PageTable>>();
  /** The file while something in it is being read. */
  #open: { source: ReturnType<typeof lazily>; readers: number } | null = null;

  private constructor(
    readonly name: string,
    readonly rows: number,
    /** The names of the top-level columns. */
    readonly columns: readonly string[],
    readonly footerBytes: number,
    private readonly path: string,
    private readonly folder: Folder,
    private readonly schema: SchemaTree,
    private readonly groups: ReturnType<typeof rowGroups>,
    private readonly pages: MemoryCache<HeldPage>,
  ) {}

  static async open(folder: Folder, path: string, pages: MemoryCache<HeldPage>): Promise<ParquetFile> {
    const source = await folder.open(path);
    try {
      if (source.size < 12) throw new InputError(`${source.name}: cut off: ${source.size} bytes is no parquet file`);
      const { metadata, schema } = await readFooter(source);
      const groups = rowGroups(metadata, schema, source.name);
      const columns = schema.children.map(({ element }) => element.name);
      const rows = groups.at(-1)?.end ?? 0;
      const held = (metadata.metadata_length ?? 0) * 8;
      return new ParquetFile(source.name, rows, columns, held, path, folder, schema, groups, pages);
    } finally {
      await source.close();
    }
  }

  /** Reads rows `from` to `to` - 1 as [rows, width], nested lists flattened. @throws InputError for other widths */
  async numbers<T extends Float32Array | Float64Array>(
    column: string,
    from: number,
    to: number,
    width: number,
    make: new (length: number) => T,
  ): Promise<T> {
    const path = this.#leaf(column);
    const fail = (complaint: string) => this.#error(column, complaint);
    if (!(from >= 0 && from <= to && to <= this.rows)) {
      throw new InputError(`${this.name}: has ${this.rows} rows, rows ${from} to ${to - 1} were expected`);
    }
    if ((to - from) * width > NUMBERS_LIMIT) throw fail(`has too many numbers in rows ${from} to ${to - 1}`);
    let out: T | undefined;
    for (let number = this.#groupOf(from); number < this.groups.length && this.groups[number].start < to; number++) {
      const { start, end, columns } = this.groups[number];
      const chunk = columns.get(path)!;
      if (chunk.values !== (end - start) * width) {
        const held = `has ${chunk.values} values in ${end - start} rows`;
        throw fail(`${held}, ${width} a row ${width === 1 ? 'was' : 'were'} expected`);
      }
      const [first, last] = [(Math.max(from, start) - start) * width, (Math.min(to, end) - start) * width];
      await this.#eachPage(chunk, column, first, last, ({ values, repetition, definition }, place) => {
        if (Array.isArray(values)) throw fail('holds texts or bytes, numbers were expected');
        const missing = definition && values.length < definition.length;
        if (missing) throw fail(`has an empty place near row ${start + Math.floor(place / width)}`);
        if (repetition) {
          const uneven = firstUneven(repetition, place % width, width);
          if (uneven >= 0) {
            throw fail(`does not hold ${width} values in row ${start + Math.floor((place + uneven) / width)}`);
          }
        }
        out ??= new make((to - from) * width); // allocated only after a page could be read, because the file's counts may lie
        const [low, high] = [Math.max(first, place), Math.min(last, place + values.length)];
        out.set(values.subarray(low - place, high - place), start * width + low - from * width);
      });
    }
    return out ?? new make(0);
  }

  /** Reads all rows of a column of texts, or of lists of texts, as a list for each row. */
  async texts(column: string): Promise<string[][]> {
    const path = this.#leaf(column);
    if (this.rows > TEXTS_LIMIT) throw this.#error(column, `has ${this.rows} rows of texts, more than are read here`);
    const rows: string[][] = [];
    const decoder = new TextDecoder();
    for (const { columns } of this.groups) {
      const chunk = columns.get(path)!;
      const full = getMaxDefinitionLevel(chunk.schemaPath);
      await this.#eachPage(chunk, column, 0, chunk.values, ({ values, definition, repetition }) => {
        if (!Array.isArray(values)) throw this.#error(column, 'holds no texts');
        let next = 0;
        const count = definition?.length ?? values.length;
        for (let i = 0; i < count; i++) {
          if (!repetition || repetition[i] === 0) rows.push([]);
          if (!definition || definition[i] === full) rows.at(-1)?.push(decoder.decode(values[next++]));
        }
      });
    }
    if (rows.length !== this.rows) throw this.#error(column, `has ${rows.length} rows of ${this.rows}`);
    return rows;
  }

  /** Reads row `row` of a column of byte arrays, or of field `field` in a column of structs; null if it is empty. */
  async bytes(column: string, row: number, field?: string): Promise<Uint8Array | null> {
    const path = this.#leaf(column, field);
    const group = this.groups.at(this.#groupOf(row));
    if (!group || row < 0) throw new InputError(`${this.name}: has ${this.rows} rows, row ${row} was expected`);
    const chunk = group.columns.get(path)!;
    const full = getMaxDefinitionLevel(chunk.schemaPath);
    const at = row - group.start;
    const what = `column ${quote(column)}`;
    return this.#reading(async (open) => {
      const table = await this.#table(chunk, what, open);
      const page = table.pages.find(({ first, values }) => first <= at && at < first + values);
      if (!page) return null;
      const unpack = async () => {
        const values = await readPageValues(await open(), chunk, table, page, what);
        return (await largePage(await open(), chunk, values, what)) ?? values;
      };
      const held = await this.pages.get(`${this.path}:${page.start}:bytes`, () =>
        inTurn([page, table.dictionary], unpack),
      );
      const { definition } = held;
      let number = at - page.first;
      if (definition) {
        if (definition[number] !== full) return null;
        number = definition.subarray(0, number).filter((level) => level === full).length;
      }
      if ('pieces' in held) return readLargeValue(await open(), held, number, what);
      if (!Array.isArray(held.values) || held.repetition)
        throw this.#error(column, 'holds no bytes, one image a row was expected');
      return held.values[number];
    });
  }

  #error(column: string, complaint: string): InputError {
    return new InputError(`${this.name}: column ${quote(column)} ${complaint}`);
  }

  has(column: string): boolean {
    return this.columns.includes(column);
  }

  #leaf(column: string, field?: string): string {
    let node = this.schema.children.find(({ element }) => element.name === column);
    if (!node) {
      const there = this.columns.slice(0, 12).join(', ');
      throw new InputError(`${this.name}: no column ${quote(column)}; there are ${there}`);
    }
    while (node.children.length > 0) {
      const inner: SchemaTree | undefined = field
        ? node.children.find(({ element }) => element.name === field)
        : node.children[0];
      if (!inner || (!field && node.children.length > 1))
        throw this.#error(column, field ? `has no field ${quote(field)}` : 'has several fields');
      node = inner;
    }
    return node.path.join('\n');
  }

  /** Calls `use` with each page that holds leaf values between `from` and `to`, and the number of its first value. */
  async #eachPage(
    chunk: ColumnChunk,
    column: string,
    from: number,
    to: number,
    use: (page: PageValues, first: number) => void,
  ): Promise<void> {
    const what = `column ${quote(column)}`;
    await this.#reading(async (open) => {
      const table = await this.#table(chunk, what, open);
      for (const page of table.pages) {
        if (page.first + page.values <= from || page.first >= to) continue;
        const make = async () => readPageValues(await open(), chunk, table, page, what);
        use((await this.pages.get(`${this.path}:${page.start}`, make)) as PageValues, page.first);
      }
    });
  }

  /** Finds the row group of a row; the number of groups if the row lies behind all of them. */
  #groupOf(row: number): number {
    return firstWhere(this.groups.length, (i) => this.groups[i].end > row);
  }

  async #reading<T>(use: (open: () => Promise<ByteSource>) => Promise<T>): Promise<T> {
    this.#open ??= { source: lazily(() => this.folder.open(this.path)), readers: 0 };
    const own = this.#open;
    own.readers += 1;
    try {
      return await use(own.source.get);
    } finally {
      own.readers -= 1;
      if (own.readers === 0) {
        this.#open = null;
        await own.source.close();
      }
    }
  }

  #table(chunk: ColumnChunk, what: string, open: () => Promise<ByteSource>): Promise<PageTable> {
    let table = this.#tables.get(chunk);
    if (!table) {
      table = open().then((file) => readPageTable(file, chunk, what));
      this.#tables.set(chunk, table);
      table.catch(() => this.#tables.delete(chunk));
    }
    return table;
  }
}

/** Makes a source that is opened when it is first used. */
function lazily(open: () => Promise<ByteSource>) {
  let source: Promise<ByteSource> | undefined;
  return {
    get: () => {
      source ??= open();
      return source;
    },
    close: async () => (await source?.catch(() => null))?.close(),
  };
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
