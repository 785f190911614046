/**
 * The weights that a run with low-rank adaptation keeps as they are: one safetensors file in the folder of its checkpoints, written once.
 * It is named by the checksum of its bytes, so that the one of an earlier run stays until a checkpoint names the new one.
 */
import { crc32, crc32Between } from '../../engine/files/checksum.ts';
import { hexadecimal } from '../../engine/files/safetensors-checksums.ts';
import { safetensorsChunks, type TensorToWrite } from '../../engine/files/safetensors-writer.ts';
import { InputError, readSafetensors, type SafetensorsFile } from '../../engine/index.ts';
import { contentsOf, metadataOf } from './saved-model.ts';

export const BASE_FORMAT = 'insula frozen weights 1';
const UNNAMED = 'base.safetensors';
const NAMES = /^base(-[0-9a-f]{8})?\.safetensors$/;

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
  const [{ writeFileSafely }, { rename }] = await Promise.all([
    import('../../engine/files/files.ts'),
    import('node:fs/promises'),
  ]);
  await writeFileSafely(beside(checkpointPath, UNNAMED), parts());
  const file = `base-${hexadecimal(checksum)}.safetensors`;
  await rename(beside(checkpointPath, UNNAMED), beside(checkpointPath, file));
  return { file, checksum };
}

/** @throws InputError if the base of a checkpoint is missing, or another file has its name */
export async function openBase(checkpointPath: string, { file, checksum }: BaseReference): Promise<SafetensorsFile> {
  const path = beside(checkpointPath, file);
  const refusal = (problem: string) =>
    new InputError(
      `${checkpointPath} needs ${file} beside it, which ${problem}: copy both, or write one file with insula convert --checkpoint`,
    );
  const { kindOfPath, openFile } = await import('../../engine/files/files.ts');
  if ((await kindOfPath(path)) === null) throw refusal('is missing');
  const source = await openFile(path);
  try {
    if ((await crc32Between(source.read, 0, source.size)) !== checksum) throw refusal('has another checksum');
    return await readSafetensors(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** Removes the bases of earlier runs from the folder of a checkpoint that names `kept`, or none. */
export async function removeOtherBases(checkpointPath: string, kept?: BaseReference): Promise<void> {
  const { readdir, rm } = await import('node:fs/promises');
  for (const name of await readdir(beside(checkpointPath, '') || '.')) {
    if (!NAMES.test(name) || name === kept?.file) continue;
    const path = beside(checkpointPath, name);
    if (await isBase(path)) await rm(path);
  }
}

/** Another program may have written a file of such a name. */
async function isBase(path: string): Promise<boolean> {
  const file = await readSafetensors(path).catch(() => null);
  try {
    return file !== null && contentsOf(file, 'base').format === BASE_FORMAT;
  } catch {
    return false;
  } finally {
    await file?.close();
  }
}
