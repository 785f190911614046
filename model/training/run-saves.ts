/** The saves of a run: what of its state may take the place of what is on the disk, and what happens where it cannot. */
import { InputError, reasonOf } from '../../engine/files/errors.ts';
import type { AdamW } from '../../kernels/index.ts';
import type { Model } from '../architecture/model.ts';
import { type BaseReference, removeOtherBases } from './base-file.ts';
import { type Checkpoint, type CheckpointSettings, saveBase, saveCheckpoint } from './checkpoint.ts';
import type { RunHistory } from './history.ts';
import { keepAsPrevious, makeRoom, previousOf, removePrevious } from './kept-checkpoints.ts';
import { NotFiniteError } from './saved-model.ts';

export const AGAINST_DIVERGENCE = 'begin anew with a lower learning rate (--rates of insula train) or another --seed';

/** The code of an error of the file system, also of one that was made a line about its file. */
export function codeOf(error: unknown): string | undefined {
  const { code, syscall } = ((error instanceof InputError ? error.cause : error) ?? {}) as NodeJS.ErrnoException;
  return syscall === undefined ? undefined : code;
}

export class RunSaves {
  private savedStep: number | null = null;
  /** The file of the weights that low-rank adaptation keeps, once it is written. */
  private base?: BaseReference;

  constructor(
    private readonly path: string,
    private readonly trained: { readonly model: Model; readonly optimizer: AdamW },
    private readonly settings: CheckpointSettings,
    /** The checkpoint that the run goes on from. */
    private readonly resume: Checkpoint | undefined,
    private readonly note: (line: string) => void,
  ) {
    const { base } = resume ?? {};
    if (base && [path, previousOf(path)].includes(base.checkpointPath)) this.base = base;
  }

  /**
   * Saves a checkpoint, unless this step is saved already. A disk that is full or gone is a note, because the next save tries again,
   * unless this is the last one. Returns whether it was saved.
   *
   * @throws InputError for a state that is not finite; the checkpoint that is there stays
   */
  async save(step: number, history: RunHistory, isLast: boolean): Promise<boolean> {
    if (step === this.savedStep) return false;
    const { path, note } = this;
    try {
      await this.write(step, history).catch(async (error) => {
        const isFull = ['ENOSPC', 'EDQUOT'].includes(codeOf(error) ?? '');
        if (!isFull || !(await makeRoom(path, this.kept?.path))) throw error;
        note(`warning: ${error.message}; the older checkpoint goes, to make room`);
        await this.write(step, history);
      });
    } catch (error) {
      const line = `step ${step} is not saved: ${reasonOf(error)}${await this.keptStep()}`;
      if (error instanceof NotFiniteError)
        throw new InputError(`${line}; training has diverged: ${AGAINST_DIVERGENCE}`);
      if (codeOf(error) === undefined) throw error;
      if (isLast) throw new InputError(line);
      // The frozen weights may be gone with their folder.
      if (codeOf(error) === 'ENOENT') this.base = undefined;
      note(`warning: ${line}; training goes on, and the next save tries again`);
      return false;
    }
    if (this.savedStep === null) await removeOtherBases(path, this.base);
    this.savedStep = step;
    return true;
  }

  /** The newest whole checkpoint of this run, and its step; undefined if there is none yet. */
  private get kept(): { readonly path: string; readonly step: number } | undefined {
    const { savedStep, path, resume } = this;
    if (savedStep !== null) return { path, step: savedStep };
    return resume && { path: resume.path, step: resume.progress.step };
  }

  private async keptStep(): Promise<string> {
    const { kindOfPath } = await import('../../engine/files/files.ts');
    const { kept } = this;
    return kept && (await kindOfPath(kept.path)) !== null ? `; ${kept.path} keeps step ${kept.step}` : '';
  }

  private async write(step: number, history: RunHistory): Promise<void> {
    const { path, settings } = this;
    const { model, optimizer } = this.trained;
    if (settings.configuration.lora) this.base ??= await saveBase(path, model);
    await saveCheckpoint(path, model, optimizer, settings, { step, history }, this.base, async () => {
      const { kept } = this;
      // A step that is saved again, after its last measurements, leaves the one before it where it is.
      if (kept?.path === path) await (kept.step !== step && keepAsPrevious(path));
      // A damaged checkpoint leaves the previous one, which the run went on from, where it is; that of another run goes.
      else if (kept?.path !== previousOf(path)) await removePrevious(path);
    });
  }
}
