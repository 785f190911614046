/**
 * The last two checkpoints of a run (node only): `checkpoint.safetensors`, and that of the save before beside it,
 * `checkpoint.previous.safetensors`. At every moment one of the two is whole, and a damaged one has the other behind it.
 */
import { InputError } from '../../engine/files/errors.ts';
import { type Checkpoint, OtherFormatError, openCheckpoint } from './checkpoint.ts';

/** The path of the checkpoint that was at `path` before. */
export const previousOf = (path: string): string => path.replace(/(\.safetensors)?$/, '.previous$1');

/** Whether there is one of the two checkpoints of `path`. */
export async function hasCheckpoint(path: string): Promise<boolean> {
  const { kindOfPath } = await import('../../engine/files/files.ts');
  return (await kindOfPath(path)) !== null || (await kindOfPath(previousOf(path))) !== null;
}

/**
 * Opens the newest of the two that is whole; with `verify` one whose checksums agree. The previous one stands in for one that is missing
 * or damaged, and not for one that is whole and cannot be read: a run that went on from it would replace the newer one.
 *
 * @throws InputError if there is none, or if the newer one may be whole
 */
export async function openNewest(
  path: string,
  { verify, note }: { verify: boolean; note(line: string): void },
): Promise<Checkpoint> {
  const opened = async (own: string) => {
    const checkpoint = await openCheckpoint(own);
    try {
      if (verify) await checkpoint.verify();
      return checkpoint;
    } catch (error) {
      await checkpoint.close();
      throw error;
    }
  };
  try {
    return await opened(path);
  } catch (error) {
    const { kindOfPath } = await import('../../engine/files/files.ts');
    const previous = previousOf(path);
    if (!(error instanceof InputError) || mayBeWhole(error) || (await kindOfPath(previous)) === null) throw error;
    const checkpoint = await opened(previous).catch((other) => {
      throw other instanceof InputError ? new InputError(`${error.message}; and ${other.message}`) : other;
    });
    note(`warning: ${error.message}; step ${checkpoint.progress.step} of the save before is in ${previous}`);
    return checkpoint;
  }
}

/** Whether the system did not let a file be read that is there, or it is one of another version. */
const mayBeWhole = (error: InputError) =>
  error instanceof OtherFormatError ||
  (error.cause !== undefined && !['ENOENT', 'EIO'].includes((error.cause as NodeJS.ErrnoException).code ?? ''));

/** Makes the checkpoint of `path`, if there is one, the previous one too, before another takes its place. */
export async function keepAsPrevious(path: string): Promise<void> {
  const [{ kindOfPath }, { link, rename }] = await Promise.all([
    import('../../engine/files/files.ts'),
    import('node:fs/promises'),
  ]);
  if ((await kindOfPath(path)) === null) return;
  await removePrevious(path);
  // A file system without links has the previous one alone until the new one comes.
  await link(path, previousOf(path)).catch(() => rename(path, previousOf(path)));
}

/** Removes the one of the two checkpoints of `path` that is not `kept`, if that one is there. Returns whether this made room. */
export async function makeRoom(path: string, kept: string | undefined): Promise<boolean> {
  const { kindOfPath } = await import('../../engine/files/files.ts');
  if (kept === undefined || (await kindOfPath(kept)) === null) return false;
  return removed(kept === path ? previousOf(path) : path);
}

/** Removes the previous checkpoint of `path`, if there is one. */
export async function removePrevious(path: string): Promise<void> {
  await removed(previousOf(path));
}

/** Removes a file; false if there is none. */
async function removed(path: string): Promise<boolean> {
  const [{ fileError }, { rm }] = await Promise.all([
    import('../../engine/files/files.ts'),
    import('node:fs/promises'),
  ]);
  return rm(path).then(
    () => true,
    (error) => {
      if (error.code === 'ENOENT') return false;
      throw fileError(error, path, 'remove it');
    },
  );
}
