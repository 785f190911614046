// Runs of small numbers in parquet files, and the headers of pages, which are structs in Thrift's compact protocol.
// Source: github.com/apache/parquet-format, Encodings.md and parquet.thrift; github.com/apache/thrift, doc/specs/thrift-compact-protocol.md.

export interface PageHeader {
  readonly kind: 'data' | 'dictionary' | 'index';
  /** The bytes of the page in the file, and unpacked. */
  readonly packed: number;
  readonly unpacked: number;
  readonly crc: number | null;
  readonly count: number;
  readonly encoding: number;
  /** Of a page of the second version: the bytes of its levels, which are not packed; `stored` if its values are not either. */
  readonly levels: readonly [number, number] | null;
  readonly stored: boolean;
}

type Thrift = number | boolean | Uint8Array | { readonly [field: number]: Thrift } | readonly Thrift[];
type Fields = { readonly [field: number]: Thrift };

/** Reads a page header and its size in bytes. @throws Error if it is cut off or damaged */
export function readHeader(bytes: Uint8Array): { header: PageHeader; size: number } {
  const { fields, size } = readThrift(bytes);
  const number = (from: Fields, field: number) => Number(from[field] ?? 0);
  const type = number(fields, 1);
  const inner = (fields[[5, 6, 7, 8][type]] ?? {}) as Fields;
  const second = type === 3;
  if (type === 0 && (number(inner, 3) !== 3 || number(inner, 4) !== 3))
    throw new Error('levels that are not run-length encoded');
  const header: PageHeader = {
    kind: (['data', 'index', 'dictionary', 'data'] as const)[type] ?? 'index',
    unpacked: number(fields, 2),
    packed: number(fields, 3),
    crc: fields[4] === undefined ? null : number(fields, 4),
    count: number(inner, 1),
    encoding: number(inner, second ? 4 : 2),
    levels: second ? [number(inner, 6), number(inner, 5)] : null,
    stored: second && inner[7] === false,
  };
  return { header, size };
}

/** Reads a struct; integers are exact up to 53 bits. */
function readThrift(bytes: Uint8Array): { fields: Fields; size: number } {
  let at = 0;
  const next = () => {
    if (at >= bytes.length) throw new Error('its header is cut off');
    return bytes[at++];
  };
  const whole = () => {
    let [value, scale, byte] = [0, 1, 0];
    do {
      byte = next();
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte & 128 && scale < 2 ** 70);
    return value;
  };
  const signed = () => {
    const value = whole();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  };
  const value = (type: number, depth: number): Thrift => {
    if (depth > 8) throw new Error('its header is nested too deeply');
    if (type === 1 || type === 2) return type === 1;
    if (type === 3) return next();
    if (type <= 6) return signed();
    if (type === 7 || type === 8) {
      const length = type === 7 ? 8 : whole();
      if (!(length <= bytes.length - at)) throw new Error('its header is cut off');
      at += length;
      return bytes.subarray(at - length, at);
    }
    if (type === 9 || type === 10) {
      const head = next();
      const count = head >> 4 === 15 ? whole() : head >> 4;
      if (!(count <= bytes.length - at)) throw new Error('its header is cut off');
      return Array.from({ length: count }, () => ((head & 15) <= 2 ? next() === 1 : value(head & 15, depth + 1)));
    }
    if (type === 12) return struct(depth + 1);
    throw new Error('its header is damaged');
  };
  const struct = (depth: number): Fields => {
    const fields: Record<number, Thrift> = {};
    let field = 0;
    for (let head = next(); head !== 0; head = next()) {
      field = head >> 4 === 0 ? signed() : field + (head >> 4);
      fields[field] = value(head & 15, depth);
    }
    return fields;
  };
  return { fields: struct(0), size: at };
}

/** Writes the header of a plain data page of the first version. */
export function pageHead(length: number, count: number, encoding: number): Uint8Array {
  const bytes: number[] = [];
  const number = (value: number) => {
    bytes.push(0x15); // the next field, of 32 bits
    let rest = value * 2;
    for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
    bytes.push(rest);
  };
  for (const value of [0, length, length]) number(value);
  bytes.push(0x2c); // the next field but one, a struct
  for (const value of [count, encoding, 3, 3]) number(value);
  return Uint8Array.from([...bytes, 0, 0]);
}

/** Reads parquet's hybrid of runs and packed bits (Encodings.md, "RLE") from byte `start` until `out` is full. */
export function readHybrid<T extends Uint8Array | Uint32Array>(
  bytes: Uint8Array,
  start: number,
  width: number,
  out: T,
): T {
  if (!(width <= 24)) throw new Error(`values of ${width} bits`);
  if (width === 0) return out;
  let offset = start;
  const next = () => {
    if (offset >= bytes.length) throw new Error('it ends before its last value');
    return bytes[offset++];
  };
  let done = 0;
  while (done < out.length) {
    let [header, shift, byte] = [0, 0, 0];
    do {
      byte = next();
      header += (byte & 127) * 2 ** shift;
      shift += 7;
      if (shift > 35) throw new Error('a run without end');
    } while (byte & 128);
    const run = Math.floor(header / 2);
    if (run === 0) throw new Error('a run of no values');
    if (header % 2 === 0) {
      let value = 0;
      for (let i = 0; i < width; i += 8) value |= next() << i;
      const end = Math.min(out.length, done + run);
      out.fill(value, done, end);
      done = end;
      continue;
    }
    const end = Math.min(out.length, done + run * 8);
    const mask = (1 << width) - 1;
    const after = offset + run * width;
    let [held, bits] = [0, 0];
    while (done < end) {
      while (bits < width) {
        held |= next() << bits;
        bits += 8;
      }
      out[done++] = held & mask;
      held >>>= width;
      bits -= width;
    }
    offset = after;
  }
  return out;
}
