/** `insula pretrain`: a vision-language model learns from questions about pictures. */
import { basename, dirname, join } from 'node:path';
import { provenance } from '../bench/measure/provenance.ts';
import { openTunedDevice } from '../bench/measure/tuning.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { InputError } from '../engine/index.ts';
import { openNamedImages } from '../model/data/index.ts';
import { namedImagePacks, type PackSource } from '../model/training/packs.ts';
import { presetNamed } from '../model/training/presets.ts';
import { preparePretraining, pretrainingSettings, runPretraining } from '../model/training/pretrain.ts';
import type { RunSettings } from '../model/training/run-settings.ts';
import { saveVisionLanguageModel } from '../model/training/vision-language-file.ts';
import { command } from './command.ts';
import { commandLine } from './command-line.ts';
import { deviceOptions, WORK_FOLDER } from './device.ts';
import { flag, number, outputFolder, text } from './options.ts';
import { describe } from './progress.ts';
import { resumedSettings, runFolder } from './run-folder.ts';
import { presetValues, runOptions } from './run-options.ts';

const values = (field: 'steps' | 'batch') => presetValues(({ pretraining }) => pretraining[field]);

export const pretrain = command({
  options: {
    preset: runOptions.preset,
    steps: number(`training steps; ${values('steps')} by default`),
    batch: number(`pictures in a batch; ${values('batch')} by default`, 1),
    questions: text('named images for the questions, PATH.json and PATH.pack'),
    augment: flag('recolours the training images at random'),
    seed: runOptions.seed,
    out: outputFolder('folder for the model and the checkpoint; a new one in .insula by default'),
    resume: flag('resumes the run in --out, or the last run without --out'),
    overwrite: flag('replaces the run in --out, or the last run without --out', { excludes: 'resume' }),
    ...deviceOptions,
  },
  interruptible: true,
  async run({ out, resume, overwrite, adapter, floor, tuning, preset, ...own }, { progress, signal, words }) {
    const given = { ...own, ...(preset !== undefined && { preset: presetNamed(preset) }) };
    const usual = join(WORK_FOLDER, `pretrained-${pretrainingSettings(given).preset.name}`);
    const folder = await runFolder({ out, usual, resume, overwrite }, (line) => progress.note(line));
    try {
      const begun = folder.resume && resumedSettings('pretrain', given, folder);
      const settings = begun ?? pretrainingSettings(given);
      const source = await packsOf(settings);
      const prepared = await preparePretraining({ settings, source, resume: folder.resume, listener: progress });
      const { device } = await openTunedDevice({ adapter, floor, tuning }, (line) => progress.note(line));
      try {
        progress.note(`preset ${settings.preset.name}, on ${device.description}`);
        const { checkpoint } = folder;
        if (folder.resume)
          progress.note(`${checkpoint}: resuming from step ${folder.resume.progress.step} of ${settings.steps}`);
        const result = await runPretraining(device, prepared, { checkpointPath: checkpoint, signal });
        const { finished, step, resumedAt, history, objectives, seconds } = result;
        const heldOut = history.heldOut.at(-1)?.losses ?? null;
        const model = finished ? join(folder.path, 'model.safetensors') : null;
        if (model)
          await saveVisionLanguageModel(model, result.model, result.encoding.settings, {
            command: commandLine(words),
            commit: provenance(device).commit,
            adapter: device.description,
            steps: step,
            seconds: history.training.at(-1)?.seconds ?? 0,
            scores: Object.fromEntries(objectives.map(({ name, title }) => [title, heldOut![name]])),
          });
        result.model.dispose();
        const summary = { finished, step, resumedAt, checkpoint, model, adapter: device.description, heldOut, seconds };
        await writeFileSafely(join(folder.path, 'summary.json'), [`${JSON.stringify(summary, null, 2)}\n`]);
        const again = words.filter((word) => word !== '--resume' && word !== '--overwrite');
        const lines = model
          ? [`${step} steps; held out: ${describe(heldOut!, objectives)}`, `model ${model}`]
          : [`interrupted at step ${step} of ${settings.steps}; go on with ${commandLine([...again, '--resume'])}`];
        lines.push(`checkpoint ${checkpoint}`);
        return { json: summary, lines, status: finished ? 0 : 130 };
      } finally {
        device.close();
      }
    } finally {
      await folder.resume?.close();
      await folder.leave();
    }
  },
});

async function packsOf({ questions, seed }: RunSettings): Promise<PackSource> {
  if (questions === null) throw new InputError('--questions: name images for the questions, PATH.json and PATH.pack');
  return namedImagePacks(await openNamedImages(dirname(questions), basename(questions)), seed);
}
