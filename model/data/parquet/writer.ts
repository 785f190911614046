import type { SchemaElement } from 'hyparquet';
import { ByteWriter } from 'hyparquet-writer/src/bytewriter.js';
import { ParquetWriter } from 'hyparquet-writer/src/parquet-writer.js';

/** A column to write: plain values, lists, lists of lists ..., or image files. */
export interface TableColumn {
  readonly name: string;
  readonly dtype: 'float32' | 'float64' | 'int64' | 'string' | 'image';
  /** Lists around a value: 0 for a plain value. */
  readonly depth?: number;
  /** Values of each list, where all have as many. */
  readonly length?: number;
}

/** An image file in a row. */
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

/** What Hugging Face's datasets library keeps of a column's type, so that images come back as images. */
function feature({ dtype, depth = 0, length = -1 }: TableColumn): unknown {
  if (dtype === 'image') return { _type: 'Image' };
  const value = { dtype, _type: 'Value' };
  if (depth === 0) return value;
  return { feature: feature({ name: '', dtype, depth: depth - 1 }), length, _type: 'Sequence' };
}

/** A parquet file (snappy) made in memory, one row group for each `append`. */
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

  /** Bytes so far. */
  get size(): number {
    return this.#bytes.offset;
  }

  /** Rows by column: numbers, lists of numbers, texts, lists of texts, image cells. */
  append(rows: Readonly<Record<string, readonly unknown[]>>): void {
    const columnData = this.columns.map(({ name, dtype }) => {
      const data = dtype === 'int64' ? rows[name].map(toBigInt) : [...rows[name]];
      return { name, data, statistics: dtype !== 'image' };
    });
    this.#writer.write({ columnData, rowGroupSize: Math.max(1, columnData[0].data.length) });
  }

  finish(): Uint8Array {
    this.#writer.finish();
    return this.#bytes.getBytes();
  }
}

const toBigInt = (value: unknown): unknown => (Array.isArray(value) ? value.map(toBigInt) : BigInt(value as number));
