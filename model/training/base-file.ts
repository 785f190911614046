/**
 * The weights that a run with low-rank adaptation keeps as they are: one safetensors file in the folder of its checkpoints, written once.
 * A checkpoint names it with the checksum of its bytes.
 */
import { reasonOf } from '../../engine/files/errors.ts';
import { safetensorsChunks, type TensorToWrite } from '../../engine/files/safetensors-writer.ts';
import { InputError, readSafetensors, type SafetensorsFile } from '../../engine/index.ts';
import { crc32 } from '../data/checksum.ts';
import { contentsOf, metadataOf } from './saved-model.ts';

export const BASE_FORMAT = 'insula frozen weights 1';
const NAME = 'base.safetensors';
/** Bytes that are read together. */
const PART = 2 ** 24;

/** A base as a checkpoint beside it names it. */
export interface BaseReference {
  readonly file: string;
  /** The CRC-32 of the file. */
  readonly checksum: number;
}

/** The path of a file in the folder of another file. */
const beside = (path: string, file: string) => path.replace(/[^/\\]*$/, () => file);

/** Writes the base of the checkpoints in the folder of `checkpointPath`, into a temporary file that is renamed. */
export async function writeBase(checkpointPath: string, tensors: readonly TensorToWrite[]): Promise<BaseReference> {
  let checksum = 0;
  async function* parts() {
    for await (const part of safetensorsChunks(tensors, { metadata: metadataOf({ format: BASE_FORMAT }) })) {
      checksum = crc32(part, checksum);
      yield part;
    }
  }
  const { writeFileSafely } = await import('../../engine/files/files.ts');
  await writeFileSafely(beside(checkpointPath, NAME), parts());
  return { file: NAME, checksum };
}

/** @throws InputError if the base of a checkpoint is missing, or another file has its name */
export async function openBase(checkpointPath: string, { file, checksum }: BaseReference): Promise<SafetensorsFile> {
  const path = beside(checkpointPath, file);
  const { openFile } = await import('../../engine/files/files.ts');
  const what = `which holds the frozen weights of ${checkpointPath}`;
  const source = await openFile(path).catch((error) => {
    throw new InputError(`${reasonOf(error)}, ${what}: put the file back that the run wrote beside it`);
  });
  try {
    let found = 0;
    for (let start = 0; start < source.size; start += PART)
      found = crc32(await source.read(start, Math.min(source.size, start + PART)), found);
    if (found !== checksum)
      throw new InputError(
        `${path}: not the file of this name ${what}: its checksum is ${found}, not ${checksum}; put the file back that the run wrote beside it`,
      );
    return await readSafetensors(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** Removes the base of a run that a run without one has replaced. */
export async function removeBase(checkpointPath: string): Promise<void> {
  const path = beside(checkpointPath, NAME);
  const file = await readSafetensors(path).catch(() => null);
  if (!file) return;
  const isBase = file.metadata.size > 0 && formatOf(file) === BASE_FORMAT;
  await file.close();
  if (!isBase) return;
  const { rm } = await import('node:fs/promises');
  await rm(path);
}

function formatOf(file: SafetensorsFile): unknown {
  try {
    return contentsOf(file, 'base').format;
  } catch {
    return undefined;
  }
}
