import { joinBytes } from '../../engine/files/bytes.ts';
import { crc32c } from '../../engine/files/checksum.ts';
import { masked } from '../../model/data/import/tfrecord.ts';
import { text } from './synthetic.ts';

// These functions write TFRecord files of tf.train.Example.

export const join8 = (...parts: ArrayLike<number>[]) => joinBytes(parts.map((part) => Uint8Array.from(part)));
export const utf8 = (words: string) => new TextEncoder().encode(words);

function varint(value: number): number[] {
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) + 128);
  return [...bytes, Number(rest)];
}
const field = (number: number, body: ArrayLike<number>) => join8([number * 8 + 2], varint(body.length), body);

/** A list of floats, in one run or as single values. */
export const floats = (values: number[], packed = true) => {
  const bytes = new Uint8Array(Float32Array.from(values).buffer);
  if (packed) return field(2, field(1, bytes));
  return field(2, join8(...values.map((_, i) => join8([13], bytes.subarray(4 * i, 4 * i + 4)))));
};
export const integers = (values: number[], packed = true) =>
  field(3, packed ? field(1, values.flatMap(varint)) : values.flatMap((value) => [8, ...varint(value)]));
export const byteList = (values: Uint8Array[]) => field(1, join8(...values.map((value) => field(1, value))));
export const texts = (...values: string[]) => byteList(values.map(utf8));
export const example = (features: Record<string, Uint8Array>) =>
  field(
    1,
    join8(...Object.entries(features).map(([key, value]) => field(1, join8(field(1, utf8(key)), field(2, value))))),
  );

export function writeRecord(body: Uint8Array): Uint8Array {
  const head = new DataView(new ArrayBuffer(12));
  head.setBigUint64(0, BigInt(body.length), true);
  head.setUint32(8, masked(crc32c(new Uint8Array(head.buffer, 0, 8))), true);
  const tail = new DataView(new ArrayBuffer(4));
  tail.setUint32(0, masked(crc32c(body)), true);
  return join8(new Uint8Array(head.buffer), body, new Uint8Array(tail.buffer));
}

/** One shard of the given records. */
export const shard = (...records: Record<string, Uint8Array>[]) =>
  join8(...records.map((features) => writeRecord(example(features))));

/** A dataset_info.json of the set "made" with a split "train". */
export const datasetInfo = (shardLengths: string[], change: object = {}) =>
  text({ name: 'made', fileFormat: 'tfrecord', splits: [{ name: 'train', shardLengths }], ...change });
