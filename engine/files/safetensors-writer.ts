import { quote } from './errors.ts';
import { byteLength, type TensorEntry, type TensorType, tensorArrays } from './safetensors.ts';

/** Values to write, in the typed array of their element type. */
type TensorValues = (typeof tensorArrays)[TensorType]['prototype'];

export interface TensorToWrite extends Pick<TensorEntry, 'name' | 'dtype' | 'shape'> {
  /**
   * Its values (F16 and BF16 as bit patterns), or a function that is called when the tensor is written and returns them
   * whole or in pieces, so that only one piece at a time is in memory.
   */
  readonly data: TensorValues | (() => TensorValues | Promise<TensorValues> | AsyncIterable<TensorValues>);
}

type WriteOptions = { readonly metadata?: Readonly<Record<string, string>> };

/**
 * Writes a safetensors file, tensor by tensor, into a temporary file that is then renamed, so that the target is
 * unchanged after an error. Tensors of larger elements come first, so that each is aligned to its element size.
 *
 * @throws InputError for errors of the file system; Error if data do not have the stated dtype or shape
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorToWrite[],
  options: WriteOptions = {},
): Promise<void> {
  const { writeFileSafely } = await import('./files.ts');
  await writeFileSafely(path, safetensorsChunks(tensors, options));
}

/** The bytes of a safetensors file in parts, for a target that is not a file, such as a Blob. */
export async function* safetensorsChunks(
  tensors: readonly TensorToWrite[],
  options: WriteOptions = {},
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const ordered = [...tensors].sort(
    (a, b) => tensorArrays[b.dtype].BYTES_PER_ELEMENT - tensorArrays[a.dtype].BYTES_PER_ELEMENT,
  );
  const header: [string, unknown][] = options.metadata ? [['__metadata__', options.metadata]] : [];
  let offset = 0;
  for (const { name, dtype, shape } of ordered) {
    const end = offset + byteLength(dtype, shape);
    header.push([name, { dtype, shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const names = new Set(header.map(([name]) => name));
  if (names.size !== header.length || (names.has('__metadata__') && !options.metadata))
    throw new Error('writeSafetensors: two tensors have the same name, or one is named __metadata__');
  const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const padded = new Uint8Array(8 + 8 * Math.ceil(text.length / 8)).fill(0x20);
  new DataView(padded.buffer).setBigUint64(0, BigInt(padded.length - 8), true);
  padded.set(text, 8);
  yield padded;
  for (const tensor of ordered) yield* tensorChunks(tensor);
}

async function* tensorChunks({ name, dtype, shape, data }: TensorToWrite): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const made = typeof data === 'function' ? data() : data;
  const pieces = Symbol.asyncIterator in made ? made : [await made];
  let left = byteLength(dtype, shape);
  for await (const piece of pieces) {
    if (!(piece instanceof tensorArrays[dtype]))
      throw new Error(
        `writeSafetensors: tensor ${quote(name)} has dtype ${dtype}, but its data is a ${piece.constructor.name}`,
      );
    left -= piece.byteLength;
    if (left < 0) break;
    yield new Uint8Array(piece.buffer as ArrayBuffer, piece.byteOffset, piece.byteLength);
  }
  if (left !== 0) {
    const difference = left > 0 ? `${left} bytes too few` : `${-left} bytes or more too many`;
    throw new Error(`writeSafetensors: tensor ${quote(name)} of shape [${shape.join(', ')}] got ${difference}`);
  }
}
