/**
 * A run whose device is lost goes on: the adapter is opened again, and the last checkpoint read. A training step depends on weights,
 * optimizer state, seed and number alone, so that the steps since then come out the same when they are taken again.
 */
import { type Device, DeviceLostError, InputError, OutOfMemoryError } from '../../engine/index.ts';
import type { Model } from '../architecture/model.ts';
import type { Checkpoint } from './checkpoint.ts';
import { openNewest } from './kept-checkpoints.ts';
import { savingOptions } from './memory-plan.ts';
import type { RunListener } from './prepare-run.ts';
import type { RunSettings } from './run-settings.ts';

/** So many losses within so many steps end a run: its own work may be what the driver does not survive. */
const MOST_LOSSES = 3;
const WITHIN_STEPS = 10;
/** So many losses without a checkpoint in between end it too: it would never arrive. */
const MOST_LOSSES_UNSAVED = 10;
/** A driver that is being reset takes a while. */
const OPENING_SECONDS = [0, 1, 4, 15];

/** How far a run has come, in all of its attempts. */
export interface RunMark {
  /** Training steps done. */
  step: number;
  /** Whether a checkpoint was written since the device was opened. */
  saved: boolean;
  /** The step that it was resumed from. */
  readonly resumedAt: number;
  /** Spent on attempts that ended with the loss of the device. */
  secondsLost: number;
}

interface Run {
  readonly settings: RunSettings;
  readonly resume?: Checkpoint;
  readonly listener: RunListener;
}

interface Options<Result> {
  /** Path of the checkpoint. */
  readonly checkpointPath: string;
  /** Uses the result while it is on the device; called again, with the checkpoint's, if the device is lost meanwhile. */
  readonly onResult?: (result: Result) => Promise<void>;
}

/**
 * The result of `train`, with the model that `begin` makes or that the checkpoint of `resume` holds. Both are called again after the
 * device was lost, with the last checkpoint as `resume`, if there is one.
 *
 * @throws InputError if the device is lost again and again or does not open again, and if memory runs out; else what `train` throws
 */
export async function unlessLost<Own extends Run, Result>(
  device: Device,
  run: Own,
  { checkpointPath, onResult }: Options<Result>,
  begin: () => Promise<Model>,
  train: (model: Model, run: Own, mark: RunMark) => Promise<Result>,
): Promise<Result> {
  const { settings, listener } = run;
  let { resume } = run;
  const resumedAt = resume?.progress.step ?? 0;
  const mark: RunMark = { step: resumedAt, saved: false, resumedAt, secondsLost: 0 };
  const start = performance.now();
  /** Steps taken in all attempts, at each loss. */
  const losses: number[] = [];
  let [taken, unsaved] = [0, 0];
  let path = resume?.path;
  for (;;) {
    const begun = mark.step;
    let model: Model | undefined;
    try {
      model = resume ? await resume.loadModel(device) : await begin();
      const result = await train(model, { ...run, resume }, mark);
      await onResult?.(result);
      return result;
    } catch (error) {
      model?.dispose();
      await resume?.close();
      const loss = await device.errors.explained(error);
      if (loss instanceof OutOfMemoryError) {
        device.memory.runsOut();
        const isKept = mark.saved || path !== undefined;
        const advice = isKept
          ? 'or free memory, and --resume goes on from the last checkpoint'
          : savingOptions(settings);
        throw new InputError([loss.message, advice].filter((own) => own !== '').join(isKept ? ', ' : ': '));
      }
      if (!(loss instanceof DeviceLostError)) throw error;
      taken += mark.step - begun;
      losses.push(taken);
      unsaved = mark.saved ? 1 : unsaved + 1;
      if (mark.saved) path = checkpointPath;
      const what = `${loss.reason}, at step ${mark.step} of ${settings.steps}`;
      const kept = path === undefined ? 'nothing was saved' : '--resume goes on from the last checkpoint';
      const first = losses.at(-MOST_LOSSES);
      const often =
        first !== undefined && taken - first < WITHIN_STEPS
          ? `${MOST_LOSSES} losses within ${WITHIN_STEPS} steps`
          : unsaved >= MOST_LOSSES_UNSAVED && `${unsaved} losses since the last checkpoint`;
      if (often)
        throw new InputError(
          `${what}: ${often}; its driver may stop work that takes long, which a smaller --batch shortens; ${kept}`,
        );
      await openAgain(device, `${what}; ${kept}`);
      resume =
        path === undefined ? undefined : await openNewest(path, { verify: true, note: (line) => listener.note(line) });
      Object.assign(mark, { step: resume?.progress.step ?? 0, saved: false });
      listener.note(
        `${what}; it is open again, and the run goes on ${path === undefined ? 'from the beginning' : `from step ${mark.step}, ${path}`}`,
      );
      mark.secondsLost = (performance.now() - start) / 1000;
    }
  }
}

export async function openAgain(device: Device, what: string): Promise<void> {
  for (const [i, seconds] of OPENING_SECONDS.entries()) {
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    try {
      return await device.reopen();
    } catch (error) {
      if (i === OPENING_SECONDS.length - 1)
        throw new InputError(`${what}; it does not open again: ${error instanceof Error ? error.message : error}`);
    }
  }
}
