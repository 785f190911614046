import type { SchemaElement } from 'hyparquet';
import { ByteWriter, type ColumnSource, ParquetWriter } from 'hyparquet-writer';

/** A column to write: single values, lists, nested lists, or image files. */
export interface TableColumn {
  readonly name: string;
  readonly dtype: 'float32' | 'float64' | 'int64' | 'string' | 'image';
  /** The number of lists around a value; 0 for a single value. */
  readonly depth?: number;
  /** The length of each list, if all have the same. */
  readonly length?: number;
}

/** A row group stores repeated image files once in a dictionary of so many bytes; beyond, each row has its own. */
const DICTIONARY_BYTES = 2 ** 27;

/** An image file in a row. Rows that show the same image share one cell. */
export interface ImageCell {
  readonly bytes: Uint8Array;
  readonly path: string;
}

const physical = {
  float32: { type: 'FLOAT' },
  float64: { type: 'DOUBLE' },
  int64: { type: 'INT64' },
  string: { type: 'BYTE_ARRAY', converted_type: 'UTF8', logical_type: { type: 'STRING' } },
  image: { type: 'BYTE_ARRAY' },
} as const;

function elements({ name, dtype, depth = 0 }: TableColumn): SchemaElement[] {
  const optional = { repetition_type: 'OPTIONAL' } as const;
  if (dtype === 'image') {
    const fields = [
      { name: 'bytes', ...optional, ...physical.image },
      { name: 'path', ...optional, ...physical.string },
    ];
    return [{ name, ...optional, num_children: 2 }, ...fields];
  }
  if (depth === 0) return [{ name, ...optional, ...physical[dtype] }];
  const list = { name, ...optional, num_children: 1, converted_type: 'LIST', logical_type: { type: 'LIST' } } as const;
  const repeated = { name: 'list', repetition_type: 'REPEATED', num_children: 1 } as const;
  return [list, repeated, ...elements({ name: 'element', dtype, depth: depth - 1 })];
}

/** Describes a column's type to Hugging Face's datasets library, so that images come back as images. */
function feature({ dtype, depth = 0, length = -1 }: TableColumn): unknown {
  if (dtype === 'image') return { _type: 'Image' };
  const value = { dtype, _type: 'Value' };
  if (depth === 0) return value;
  return { feature: feature({ name: '', dtype, depth: depth - 1 }), length, _type: 'Sequence' };
}

/** Makes a parquet file in memory, a row group for each `append`; snappy packs numbers and texts, not images. */
export class TableWriter {
  readonly #bytes = new ByteWriter();
  readonly #writer: ParquetWriter;

  /** @param metadata further entries of the file's key-value metadata */
  constructor(
    private readonly columns: readonly TableColumn[],
    metadata: Readonly<Record<string, unknown>> = {},
  ) {
    const features = Object.fromEntries(columns.map((column) => [column.name, feature(column)]));
    const notes = { huggingface: { info: { features } }, ...metadata };
    this.#writer = new ParquetWriter({
      writer: this.#bytes,
      schema: [
        { name: 'schema', repetition_type: 'REQUIRED', num_children: columns.length },
        ...columns.flatMap(elements),
      ],
      kvMetadata: Object.entries(notes).map(([key, value]) => ({ key, value: JSON.stringify(value) })),
      createdBy: 'insula',
    });
  }

  get size(): number {
    return this.#bytes.offset;
  }

  /** Adds rows by column: numbers, lists of numbers, texts, lists of texts, or image cells. */
  append(rows: Readonly<Record<string, readonly unknown[]>>): void {
    const columnData = this.columns.map(({ name, dtype }) => {
      if (dtype === 'image') return imageColumn(name, rows[name] as readonly (ImageCell | null)[]);
      return { name, data: dtype === 'int64' ? rows[name].map(toBigInt) : [...rows[name]] };
    });
    this.#writer.write({ columnData, rowGroupSize: Math.max(1, columnData[0].data.length) });
  }

  /** Returns the bytes written since the last call, and releases them. */
  take(): Uint8Array {
    const bytes = this.#bytes.getBytes().slice();
    this.#bytes.index = 0;
    return bytes;
  }

  /** Ends the file, and returns the bytes that were not taken yet. */
  finish(): Uint8Array {
    this.#writer.finish();
    return this.take();
  }
}

/** Makes a column of images without compression, which would not shrink them; each can be read without the others. */
function imageColumn(name: string, data: readonly (ImageCell | null)[]): ColumnSource {
  const different = [...new Set(data)];
  const bytes = different.reduce((sum, cell) => sum + (cell?.bytes.length ?? 0), 0);
  const once = different.length < data.length && bytes <= DICTIONARY_BYTES;
  return {
    name,
    data: [...data],
    encoding: once ? 'RLE_DICTIONARY' : 'PLAIN',
    codec: 'UNCOMPRESSED',
    statistics: false,
  };
}

const toBigInt = (value: unknown): unknown => (Array.isArray(value) ? value.map(toBigInt) : BigInt(value as number));
