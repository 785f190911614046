import type { Column } from '@uwdata/flechette';

// The library that reads Arrow trusts every count and offset in a file. This file checks them: those of the messages
// before the library reads them, those of the columns afterwards. A message is a flatbuffer; the numbers of its fields
// stand in Arrow's Message.fbs and Schema.fbs.

/** The largest number of fields of a schema, nested ones included, and their deepest level. */
const [MOST_FIELDS, DEEPEST] = [4096, 32];
const kinds = { schema: 1, dictionary: 2, records: 3 };

/** A view of the bytes of one flatbuffer; reading beyond them throws a RangeError. */
class Flatbuffer {
  #fields = 0;

  constructor(private readonly view: DataView) {}

  /** Finds the value of field `number` of a table; 0 if it is left out. */
  field(table: number, number: number): number {
    const entries = table - this.view.getInt32(table, true);
    const size = this.view.getUint16(entries, true);
    const offset = 4 + 2 * number < size ? this.view.getUint16(entries + 4 + 2 * number, true) : 0;
    return offset && table + offset;
  }

  follow(place: number): number {
    return place + this.view.getUint32(place, true);
  }

  /** Finds the elements of the vector in field `number` of a table. */
  vector(table: number, number: number, stride: number): number[] {
    const place = this.field(table, number);
    if (place === 0) return [];
    const start = this.follow(place);
    const count = this.view.getUint32(start, true);
    if (count * stride > this.view.byteLength - start - 4) throw new Error('a list leaves its message');
    return Array.from({ length: count }, (_, i) => start + 4 + i * stride);
  }

  /** Reads a non-negative 64-bit integer; 0 if it is left out. */
  size(place: number): number {
    const value = place === 0 ? 0 : Number(this.view.getBigInt64(place, true));
    if (!(value >= 0 && Number.isSafeInteger(value))) throw new Error(`a length of ${value}`);
    return value;
  }

  /** Checks a message, and returns the length of its body in bytes. */
  message(): number {
    const root = this.follow(0);
    const kind = this.view.getUint8(this.field(root, 1));
    const header = this.follow(this.field(root, 2));
    const body = this.size(this.field(root, 3));
    if (kind === kinds.schema) this.#schemaFields(header, 1, 0);
    else if (kind === kinds.records) this.#records(header, body);
    else if (kind === kinds.dictionary) this.#records(this.follow(this.field(header, 1)), body);
    else throw new Error(`a message of kind ${kind}`);
    return body;
  }

  /** Checks the fields of a schema (its field 1), or of a field (its field 5). */
  #schemaFields(table: number, number: number, depth: number): void {
    if (depth > DEEPEST) throw new Error('its fields lie too deep');
    for (const place of this.vector(table, number, 4)) {
      this.#fields += 1;
      if (this.#fields > MOST_FIELDS) throw new Error(`it has over ${MOST_FIELDS} fields`);
      this.#schemaFields(this.follow(place), 5, depth + 1);
    }
    this.vector(table, number + 1, 4); // metadata
  }

  #records(table: number, body: number): void {
    this.size(this.field(table, 0));
    for (const place of this.vector(table, 1, 16)) this.size(place);
    for (const place of this.vector(table, 2, 16))
      if (this.size(place) + this.size(place + 8) > body) throw new Error('a buffer leaves its message');
    if (this.vector(table, 4, 8).length > 0) throw new Error('it has columns of views, which are not read here');
  }
}

/**
 * Finds the stream of messages in Arrow bytes, and checks each. In the file format the stream follows the magic bytes.
 *
 * @throws Error if a count, a length or an offset is wrong, or the mark at the end is missing
 */
export function checkedStream(bytes: Uint8Array): Uint8Array {
  const isFile = new TextDecoder().decode(bytes.subarray(0, 6)) === 'ARROW1';
  const stream = bytes.subarray(isFile ? 8 : 0);
  const view = new DataView(stream.buffer, stream.byteOffset, stream.length);
  for (let at = 0; ; ) {
    if (at + 8 > stream.length) throw new Error('cut off: the mark at its end is missing');
    if (view.getInt32(at, true) !== -1) throw new Error(`no message at byte ${at}`);
    const length = view.getInt32(at + 4, true);
    if (length === 0) return stream.subarray(0, at + 8);
    if (length < 0 || length > stream.length - at - 8)
      throw new Error(`cut off: a message of ${length} bytes at ${at}`);
    at += 8 + length + new Flatbuffer(new DataView(stream.buffer, stream.byteOffset + at + 8, length)).message();
    if (at > stream.length) throw new Error(`cut off: ${at - stream.length} bytes of its last message are missing`);
  }
}

/** The types that are read (Type in Schema.fbs): numbers, booleans, times, texts, bytes, lists and structs of them. */
const readTypes = [2, 3, 4, 5, 6, 10, 12, 13, 15, 16, 19, 20, 21];
const BOOL = 6;

/** The library's representation of a column in one message. */
interface Batch {
  readonly length: number;
  readonly nullCount: number;
  readonly type: { readonly typeId: number; readonly stride?: number };
  readonly validity?: Uint8Array;
  readonly offsets?: Int32Array | BigInt64Array;
  readonly values?: ArrayLike<unknown>;
  readonly children?: readonly Batch[];
}

/** @throws Error if a column has fewer values than it states, a list in it leaves them, or its type is not read */
export function checkColumn(column: Column<unknown>): void {
  for (const batch of column.data) checkBatch(batch as unknown as Batch);
}

function checkBatch({ length, nullCount, type, validity, offsets, values, children = [] }: Batch): void {
  if (!readTypes.includes(type.typeId)) throw new Error(`values of type ${type.typeId}, which are not read here`);
  if (nullCount > 0 && validity && validity.length * 8 < length)
    throw new Error('it does not say which places are empty');
  for (const child of children) checkBatch(child);
  const held = children.length > 0 ? Math.min(...children.map((child) => child.length)) : (values?.length ?? 0);
  if (!offsets) {
    if (held * (type.typeId === BOOL ? 8 : 1) < length * (type.stride ?? 1))
      throw new Error('it has fewer values than rows');
    return;
  }
  if (offsets.length < length + 1) throw new Error('it has fewer lists than rows');
  for (let i = 0; i < length; i++)
    if (offsets[i] < 0 || offsets[i + 1] < offsets[i] || offsets[i + 1] > held)
      throw new Error(`list ${i} leaves its values`);
}
