import type { FilePart } from './bytes.ts';
import { crc32 } from './checksum.ts';
import { quote } from './errors.ts';
import { CHECKSUMS, checksumEntry } from './safetensors-checksums.ts';
import { byteLength, type TensorEntry, type TensorType, tensorArrays } from './safetensors-header.ts';

/** Values to write, in the typed array of their element type. */
type TensorValues = (typeof tensorArrays)[TensorType]['prototype'];

export interface TensorToWrite extends Pick<TensorEntry, 'name' | 'dtype' | 'shape'> {
  /**
   * Its values (F16 and BF16 as bit patterns), or a function that is called when the tensor is written and returns them
   * whole or in pieces, so that only one piece at a time is in memory.
   */
  readonly data: TensorValues | (() => TensorValues | Promise<TensorValues> | AsyncIterable<TensorValues>);
}

type Metadata = Readonly<Record<string, string>>;

/**
 * Writes a safetensors file, tensor by tensor, into a temporary file that is then renamed, so that the target is
 * unchanged after an error. Tensors of larger elements come first, so that each is aligned to its element size. The
 * metadata get the checksum of every tensor, which `readSafetensors` compares.
 *
 * @throws InputError for errors of the file system; Error if data do not have the stated dtype or shape
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorToWrite[],
  { metadata = {}, beforeRename }: { metadata?: Metadata; beforeRename?: () => Promise<void> } = {},
): Promise<void> {
  const { writeFileSafely } = await import('./files.ts');
  await writeFileSafely(path, verifiableParts(tensors, metadata), beforeRename);
}

/** The header comes first and is written again at the end, when the checksums in it are known. */
async function* verifiableParts(tensors: readonly TensorToWrite[], metadata: Metadata): AsyncGenerator<FilePart> {
  const ordered = inFileOrder(tensors);
  const checksums = new Map(ordered.map(({ name }) => [name, 0]));
  const header = () =>
    headerOf(ordered, { ...metadata, [CHECKSUMS]: checksumEntry(checksums, Object.entries(metadata)) });
  yield header();
  for (const tensor of ordered)
    for await (const chunk of tensorChunks(tensor)) {
      checksums.set(tensor.name, crc32(chunk, checksums.get(tensor.name)));
      yield chunk;
    }
  yield { at: 0, bytes: header() };
}

/** The bytes of a safetensors file in parts, for a target that is not a file, such as a Blob; without checksums. */
export async function* safetensorsChunks(
  tensors: readonly TensorToWrite[],
  { metadata }: { readonly metadata?: Metadata } = {},
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const ordered = inFileOrder(tensors);
  yield headerOf(ordered, metadata);
  for (const tensor of ordered) yield* tensorChunks(tensor);
}

const inFileOrder = (tensors: readonly TensorToWrite[]) =>
  [...tensors].sort((a, b) => tensorArrays[b.dtype].BYTES_PER_ELEMENT - tensorArrays[a.dtype].BYTES_PER_ELEMENT);

function headerOf(tensors: readonly TensorToWrite[], metadata?: Metadata): Uint8Array<ArrayBuffer> {
  const header: [string, unknown][] = metadata ? [['__metadata__', metadata]] : [];
  let offset = 0;
  for (const { name, dtype, shape } of tensors) {
    const end = offset + byteLength(dtype, shape);
    header.push([name, { dtype, shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const names = new Set(header.map(([name]) => name));
  if (names.size !== header.length || (names.has('__metadata__') && !metadata))
    throw new Error('writeSafetensors: two tensors have the same name, or one is named __metadata__');
  const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const padded = new Uint8Array(8 + 8 * Math.ceil(text.length / 8)).fill(0x20);
  new DataView(padded.buffer).setBigUint64(0, BigInt(padded.length - 8), true);
  padded.set(text, 8);
  return padded;
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
