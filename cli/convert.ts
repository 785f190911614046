/** `insula convert`: any data set, or demonstrations of the built-in world, as a LeRobot 3.0 data set; or a checkpoint for acting alone. */
import { stat } from 'node:fs/promises';
import { counted } from '../engine/files/errors.ts';
import { InputError } from '../engine/index.ts';
import { openTunedDevice } from '../kernels/tuning.ts';
import type { LoraSettings } from '../model/architecture/configuration.ts';
import { merged } from '../model/architecture/merged.ts';
import type { Model } from '../model/architecture/model.ts';
import { expectNoLeRobot, writeLeRobot } from '../model/data/index.ts';
import { type Checkpoint, exportCheckpoint } from '../model/training/checkpoint.ts';
import { writeLeRobotPolicy } from '../model/training/lerobot-policy.ts';
import { ASSET, writeOpenpiPolicy } from '../model/training/openpi-policy.ts';
import { writePaliGemma } from '../model/training/paligemma-folder.ts';
import { isPublic } from '../model/training/public-model.ts';
import { openPublicPolicy, type PublicPolicyOptions } from '../model/training/public-policy.ts';
import { openStart } from '../model/training/start.ts';
import type { VisionLanguageFile } from '../model/training/vision-language-file.ts';
import { command, type Result } from './command.ts';
import { cameraOptions, chooseDataset, dataOptions, TABLETOP } from './data.ts';
import { deviceOptions } from './device.ts';
import { dataNotes, machinesNotes } from './notes.ts';
import {
  choice,
  flag,
  number,
  type Option,
  outputFile,
  outputFolder,
  seedNumber,
  text,
  type ValuesOf,
} from './options.ts';
import { expectWritable, takeNewFolder } from './outputs.ts';
import { expectNamed, isSeeing, openPolicy } from './policy.ts';
import type { Progress } from './progress.ts';
import { publicOptions } from './published.ts';

const EPISODES = 200;
/** Larger than any video frame, so that frames are written at their own size. */
const FRAME_SIZE = 2 ** 16;

const dataSetOptions = {
  ...dataOptions,
  ...cameraOptions,
  type: text("robot_type to write; none by default, 'tabletop' for the built-in world"),
  'require-images': flag('leaves out episodes that lack images of a camera, instead of the camera', {
    needs: 'data',
  }),
  episodes: number(`the first episodes; all by default, ${EPISODES} of the built-in world`, 1),
  seed: seedNumber('chooses the scenes of the built-in world; 0 by default', { excludes: 'data' }),
};
const ofCheckpoint = <T>(option: Option<T>): Option<T> => ({ ...option, needs: 'checkpoint' });

const { rate, ...ofData } = dataSetOptions;
/** Forms of a checkpoint that are folders, and the programs that open them. */
const folderForms = {
  lerobot: 'LeRobot',
  openpi: `openpi's PyTorch programs (asset_id ${ASSET})`,
  paligemma: 'transformers',
} as const;
const isFolderForm = (form: string): form is keyof typeof folderForms => Object.hasOwn(folderForms, form);
const ofPublic = 'of a --checkpoint of openpi or LeRobot';

export const convert = command({
  options: {
    ...ofData,
    rate: { ...rate, help: `${rate.help}, and ${ofPublic}`, needs: ['data', 'checkpoint'] },
    checkpoint: text(
      'file that insula train wrote, or a pi0, pi0.5 or pi0-FAST of openpi (PyTorch) or LeRobot, FOLDER or FILE, in place of a data set: it becomes one for acting alone, without moments and auxiliary heads. The low-rank matrices of --lora are merged into the matrices beside them; in bf16 this drops changes below 2^-9 of a weight',
      { excludes: Object.keys(ofData) },
    ),
    format: choice(
      'form of what is written: insula (default), a file; lerobot or openpi, the folder of a policy that LeRobot or the PyTorch programs of openpi open, of pi0, pi0.5, for LeRobot pi0-FAST too, and what computes the same at their published sizes; or paligemma, a folder that transformers opens, of the vision-language part of a checkpoint, or of tiny, small or a vision-language FILE',
      ['insula', ...Object.keys(folderForms)],
      { needs: 'checkpoint' },
    ),
    'any-sizes': flag(
      'writes --format lerobot or openpi also at other than the published sizes, which their programs open only with changed sources',
      { needs: 'format' },
    ),
    ...publicOptions('checkpoint'),
    horizon: ofCheckpoint(number(`control steps in a chunk, ${ofPublic} without config.json`, 1)),
    tokenizer: ofCheckpoint(
      text('FAST tokenizer of a pi0-FAST of openpi or LeRobot: published folder, or file of insula tokenize fit'),
    ),
    statistics: ofCheckpoint(text(`norm_stats.json, ${ofPublic} without processors`)),
    out: { ...text('folder for the LeRobot data set or policy, or file for the checkpoint; required'), value: 'PATH' },
    adapter: ofCheckpoint(deviceOptions.adapter),
    floor: ofCheckpoint(deviceOptions.floor),
    tuning: ofCheckpoint(deviceOptions.tuning),
  },
  notes: [...dataNotes, ...machinesNotes],
  run: ({ checkpoint, ...values }, { progress }): Promise<Result<ConvertedData | ConvertedCheckpoint>> =>
    checkpoint === undefined ? dataSet(values, progress) : actingCheckpoint(checkpoint, values, progress),
});

type Values = Omit<ValuesOf<typeof convert.options>, 'checkpoint'>;

interface ConvertedData {
  readonly folder: string;
  readonly source: string;
  readonly episodes: number;
  readonly steps: number;
}

interface ConvertedCheckpoint {
  readonly file: string;
  readonly source: string;
  readonly step: number;
  /** The low-rank adaptation that was merged; null if the model had none. */
  readonly merged: LoraSettings | null;
}

async function dataSet(
  { out, type, episodes, seed = 0, 'require-images': requireImages, ...choice }: Values,
  progress: Progress,
): Promise<Result<ConvertedData>> {
  if (out === undefined) throw new InputError('convert: name a folder for the data set with --out');
  await expectWritable({ out: outputFolder('') }, { out });
  await expectNoLeRobot(out);
  const leave = await takeNewFolder('out', out, (line) => progress.note(line));
  try {
    const source = { episodes: episodes ?? EPISODES, seed, frameSize: FRAME_SIZE };
    const dataset = await chooseDataset(choice, source, progress);
    const all = dataset.episodes.length;
    if (episodes !== undefined && episodes > all) progress.note(`--episodes ${episodes}: "${dataset.name}" has ${all}`);
    const chosen = { ...dataset, episodes: dataset.episodes.slice(0, episodes) };
    if (dataset.irregularSteps)
      progress.note(
        `the times of the steps are written anew, 1/${dataset.rate} s apart: those of the source, with ${counted(dataset.irregularSteps, 'irregular step')}, are not kept`,
      );
    const written = await writeLeRobot(out, chosen, {
      robot: type ?? (choice.data ? undefined : TABLETOP),
      requireImages,
      note: (line) => progress.note(line),
      onProgress: (done, total) => progress.count('write: episode', done, total),
    });
    const json = { folder: out, source: dataset.name, ...written };
    const line = `${out}: LeRobot 3.0, ${json.episodes} episodes, ${json.steps} steps at ${dataset.rate} Hz of "${dataset.name}"`;
    return { json, lines: [line] };
  } finally {
    await leave();
  }
}

/** Writes a checkpoint for acting alone, without low-rank matrices. */
async function actingCheckpoint(
  path: string,
  { out, adapter, floor, tuning, format, 'any-sizes': anySizes, 'text-tokenizer': textTokenizer, ...values }: Values,
  progress: Progress,
): Promise<Result<ConvertedCheckpoint>> {
  if (out === undefined) throw new InputError('convert: name a file for the checkpoint with --out');
  const asFolder = format !== undefined && isFolderForm(format) ? format : null;
  await expectWritable({ out: asFolder ? outputFolder('') : outputFile('') }, { out });
  if (!asFolder && (await stat(out).catch(() => null)))
    throw new InputError(`--out ${out}: a file of this name is there; choose another`);
  const { partial, rate, horizon, statistics, tokenizer } = values;
  const given = { partial, rate, horizon, statistics, tokenizer, textTokenizer };
  const opened = await openAny(await expectNamed(path, true), given, (line) => progress.note(line));
  try {
    const { device } = await openTunedDevice({ adapter, floor, tuning }, (line) => progress.note(line));
    try {
      using model = await opened.loadModel(device);
      const { lora } = model.configuration;
      const acting = lora ? await merged(model) : model;
      if (asFolder) await writeFolder(asFolder, out, acting, opened, { anySizes, progress });
      else if ('settings' in opened) {
        const settings = { ...opened.settings, configuration: acting.configuration };
        await exportCheckpoint(out, acting, settings, opened.progress);
      } else throw new InputError(`${path}: a vision-language model does not act: give --format paligemma`);
      const step = 'settings' in opened ? opened.progress.step : opened.made.steps;
      const how = lora ? `, low-rank matrices (rank ${lora.rank}) merged into ${lora.experts.join(' and ')}` : '';
      const what = asFolder ? `a folder for ${folderForms[asFolder]}` : 'for acting alone';
      const json = { file: out, source: path, step, merged: lora ?? null };
      return { json, lines: [`${out}: ${what}, of ${path} at step ${step}${how}`] };
    } finally {
      device.close();
    }
  } finally {
    await opened.close();
  }
}

/** @throws InputError if an option is for a policy of openpi or LeRobot, and the checkpoint is none */
async function openAny(
  path: string,
  options: PublicPolicyOptions,
  note: PublicPolicyOptions['note'],
): Promise<Checkpoint | VisionLanguageFile> {
  if (await isPublic(path)) return openPublicPolicy(path, { ...options, note });
  const [first] = Object.entries(options).filter(([, own]) => own !== undefined);
  const names: Record<string, string> = { textTokenizer: 'text-tokenizer' };
  if (first)
    throw new InputError(`--${names[first[0]] ?? first[0]}: ${ofPublic} alone, and ${path} is Insula's; leave it out`);
  return (await isSeeing(path)) ? openStart(path) : openPolicy(path);
}

/** @throws InputError before anything is written if the form has no such model; a folder that was made for it is gone again */
async function writeFolder(
  form: keyof typeof folderForms,
  out: string,
  model: Model,
  opened: Checkpoint | VisionLanguageFile,
  { anySizes, progress }: { readonly anySizes?: boolean; readonly progress: Progress },
): Promise<void> {
  const { encoding } = 'settings' in opened ? opened.settings : opened;
  const leave = await takeNewFolder('out', out, (line) => progress.note(line));
  try {
    if (form === 'lerobot')
      await writeLeRobotPolicy(out, model, { encoding, configuration: model.configuration }, anySizes);
    else if (form === 'openpi') await writeOpenpiPolicy(out, model, { encoding }, anySizes);
    else await writePaliGemma(out, model, encoding);
  } finally {
    await leave();
  }
}
