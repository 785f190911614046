/** `insula pretrain`: a vision-language model learns from questions about pictures. */
import { join } from 'node:path';
import { pretrainingPacks } from '../bench/tabletop/packs.ts';
import { writeJson } from '../engine/files/files.ts';
import { openTunedDevice } from '../kernels/tuning.ts';
import { type Losses, type RunHistory, skippedLines } from '../model/training/history.ts';
import { imagePacks, type PackSource } from '../model/training/packs.ts';
import { presetNamed } from '../model/training/presets.ts';
import {
  type PretrainingResult,
  preparePretraining,
  pretrainingSettings,
  runPretraining,
} from '../model/training/pretrain.ts';
import { most, type RunSettings } from '../model/training/run-settings.ts';
import { EventFile } from '../model/training/tensorboard.ts';
import { command, type Result } from './command.ts';
import { commandLine } from './command-line.ts';
import { openQuestions } from './data.ts';
import { CACHE_FOLDER, deviceOptions, memoryFor, memoryOption, WORK_FOLDER } from './device.ts';
import { checkpointNote, presetNote } from './notes.ts';
import { flag, number, outputFolder, text } from './options.ts';
import { PLANNED_SCENES, type PlanSummary, plannedFrom, planOf, planOption } from './plan.ts';
import { type Conclusion, concluded } from './pretraining-scores.ts';
import { describe, type Progress } from './progress.ts';
import { resumedSettings, runFolder } from './run-folder.ts';
import { presetValues, questionsHelp, runOptions } from './run-options.ts';
import { SCENES, type Seeing, seeingLines } from './seeing.ts';

const values = (field: 'steps' | 'batch') => presetValues(({ pretraining }) => pretraining[field]);

export interface PretrainingSummary extends Pick<PretrainingResult, 'finished' | 'step' | 'resumedAt' | 'seconds'> {
  readonly checkpoint: string;
  /** The model, its scores and its report; null for an interrupted run. */
  readonly model: string | null;
  readonly scores: Seeing | null;
  readonly report: string | null;
  readonly adapter: string;
  readonly heldOut: Losses | null;
}

export const pretrain = command({
  options: {
    preset: runOptions.preset,
    steps: number(`training steps; ${values('steps')} by default`, 0, { to: most.steps }),
    batch: number(`pictures in a batch; ${values('batch')} by default`, 1),
    questions: text(questionsHelp),
    scenes: number(`held-out scenes of each set that the model is measured on; ${SCENES} by default`, 1, {
      excludes: 'questions',
    }),
    augment: flag('recolours the training images at random'),
    seed: runOptions.seed,
    out: outputFolder('folder for the model and the checkpoint; a new one in .insula by default'),
    resume: flag('resumes the run in --out, or the last run without --out'),
    overwrite: flag('replaces the run in --out, or the last run without --out', { excludes: 'resume' }),
    plan: planOption,
    memory: memoryOption,
    ...deviceOptions,
  },
  interruptible: true,
  notes: [presetNote, checkpointNote],
  async run(
    { out, resume, overwrite, plan, memory, adapter, floor, tuning, preset, scenes, ...own },
    { progress, signal, words },
  ): Promise<Result<PretrainingSummary | PlanSummary>> {
    const given = { ...own, ...(preset !== undefined && { preset: presetNamed(preset) }) };
    const usual = join(WORK_FOLDER, `pretrained-${pretrainingSettings(given).preset.name}`);
    const folder = await runFolder({ out, usual, resume, overwrite }, (line) => progress.note(line));
    try {
      const begun = folder.resume && resumedSettings('pretrain', given, folder);
      const settings = begun ?? pretrainingSettings(given);
      const source = await packsOf(settings, progress, signal, plan && !begun ? PLANNED_SCENES : undefined);
      const prepared = await preparePretraining({ settings, source, resume: folder.resume, listener: progress });
      // A missing library for the report's figures is refused before the training, not after it.
      await (await import('../model/report/plot.ts')).loadVega();
      const { device } = await openTunedDevice({ adapter, floor, tuning }, (line) => progress.note(line));
      try {
        progress.note(`preset ${settings.preset.name}, on ${device.description}`);
        if (plan) return await planOf(device, prepared, memoryFor(device, memory));
        const { checkpoint } = folder;
        if (folder.resume)
          progress.note(
            `${folder.resume.path}: resuming from step ${folder.resume.progress.step} of ${settings.steps}`,
          );
        const events = new EventFile(folder.path, settings, folder.resume?.progress);
        const onHistory = (history: RunHistory) => events.write(history);
        let end: Partial<Conclusion> = {};
        const result = await runPretraining(device, prepared, {
          ...{ checkpointPath: checkpoint, signal, onHistory },
          memory: memoryFor(device, memory),
          onResult: async (own) => {
            const run = { path: folder.path, command: commandLine(words), scenes, progress, signal };
            if (own.finished) end = await concluded(own, run);
          },
        });
        const { finished, step, resumedAt, history, objectives, seconds } = result;
        const heldOut = history.heldOut.at(-1)?.losses ?? null;
        const described = describe(heldOut ?? {}, objectives);
        result.model.dispose();
        const { model = null, scores = null, report = null } = end;
        const progressed = { finished: scores !== null, step, resumedAt };
        const files = { checkpoint, model, report, adapter: device.description };
        const summary = { ...progressed, ...files, heldOut, scores, seconds };
        await writeJson(join(folder.path, 'summary.json'), summary);
        const again = words.filter((word) => word !== '--resume' && word !== '--overwrite');
        const lines = scores
          ? [`${step} steps${described && `; held out: ${described}`}`, ...seeingLines(scores)]
          : [
              `interrupted ${finished ? 'while the model was measured' : `at step ${step} of ${settings.steps}`}; go on with ${commandLine([...again, '--resume'])}`,
            ];
        lines.push(...skippedLines(history));
        if (model) lines.push(`model ${model}`);
        if (report) lines.push(`report ${report}`);
        lines.push(`checkpoint ${checkpoint}`);
        return { json: summary, lines, status: scores ? 0 : 130 };
      } finally {
        device.close();
      }
    } finally {
      await folder.resume?.close();
      await folder.leave();
    }
  },
});

/** The questions about one's own images, or about the built-in world. */
async function packsOf(
  { questions, seed }: RunSettings,
  progress: Progress,
  signal: AbortSignal,
  scenes?: number,
): Promise<PackSource> {
  if (questions !== null) {
    const split = await openQuestions(questions, seed);
    progress.note(`${questions}: ${split.training.length} images to learn from, ${split.heldOut.length} held out`);
    return imagePacks(split, seed);
  }
  if (scenes !== undefined) progress.note(plannedFrom(scenes, 'scenes'));
  return pretrainingPacks(seed, {
    scenes,
    folder: CACHE_FOLDER,
    onProgress: (done, total) => progress.count('frames: scene', done, total),
    signal,
  });
}
