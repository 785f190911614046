/** `insula study`: variants of a training run from one start, over seeds, as one table and one page. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { studies } from '../bench/study/index.ts';
import { performRun } from '../bench/study/perform.ts';
import { fileOf, finishedRuns, performRuns, type SavedRun } from '../bench/study/saved.ts';
import { runsOf, type Study, type StudyRun } from '../bench/study/study.ts';
import { legend, markdownOf, tableOf } from '../bench/study/table.ts';
import { askStart } from '../bench/tabletop/seeing-sets.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { nearest } from '../engine/files/nearest.ts';
import { InputError, quote } from '../engine/index.ts';
import { openTunedDevice } from '../kernels/tuning.ts';
import { pretrainedNames } from '../model/pretrained/index.ts';
import { presetNamed } from '../model/training/presets.ts';
import { unlessAborted } from '../model/training/run-record.ts';
import type { RunSettings } from '../model/training/run-settings.ts';
import { openStart } from '../model/training/start.ts';
import { type Context, command, type Result } from './command.ts';
import { commandLine, installed } from './command-line.ts';
import { chooseDataset, dataOptions } from './data.ts';
import { deviceOptions, WORK_FOLDER } from './device.ts';
import { choice, flag, number, outputFolder, texts, type ValuesOf } from './options.ts';
import { scenesOf } from './scenes.ts';

const studyOptions = {
  steps: number("training steps of a run; the study's own by default", 1),
  seeds: number("seeds of a variant, from 0 on; the study's own by default", 1, { to: 1000 }),
  scenes: number("unseen scenes in which the policy of a run acts; the study's own by default", 1),
  only: texts('variants to run; all by default'),
  runs: number('the most runs to perform now; a later call performs the others'),
  preset: choice(
    'tiny (default) or small: the sizes, and the vision-language model that all runs begin from',
    pretrainedNames,
  ),
  ...dataOptions,
  out: outputFolder('folder of runs and page; by default bench/results/study/NAME, in a package .insula/study/NAME'),
  overwrite: flag('performs runs again that are in the folder with other settings, or damaged'),
  ...deviceOptions,
};
type Values = ValuesOf<typeof studyOptions>;

export const study = command({
  options: studyOptions,
  names: 'NAME of a study; without it they are listed',
  interruptible: true,
  notes: [
    'A finished run is a JSON file in the folder, and is not performed again; an interrupt loses the run in progress, and the same command goes on. The table is printed as Markdown; study.html has it with curves.',
  ],
  async run(values: Values, context): Promise<Result> {
    const { names } = context;
    if (names.length === 0) {
      const json = studies.map(({ variants, ...own }) => ({ ...own, variants: variants.map(({ name }) => name) }));
      return { json, lines: json.flatMap((own) => [`${own.name}: ${own.question}`, `  ${own.variants.join(', ')}`]) };
    }
    const name = names.join(' ');
    const found = studies.find((own) => own.name === name);
    const known = studies.map((own) => own.name);
    if (!found) throw new InputError(`study: there is no study ${quote(name)}; ${nearest(name, known)}`);
    return runStudy(found, values, context);
  },
});

async function runStudy(whole: Study, values: Values, { progress, signal, words }: Context): Promise<Result> {
  const { only, runs: most = Infinity, preset: presetName = 'tiny', out, overwrite, adapter, floor, tuning } = values;
  const saying = whole.variants.filter(({ settings }) => values.data && settings.subtask);
  if (saying.length > 0)
    progress.note(`${whole.name}: --data has no subtasks, so ${saying.length} variants are left out`);
  const own = { ...whole, variants: whole.variants.filter((variant) => !saying.includes(variant)) };
  const { steps = own.steps, seeds = own.seeds, scenes = own.scenes, data, dataset, rate, map } = values;
  const variants = own.variants.map(({ name }) => name);
  const unknown = only?.find((name) => !variants.includes(name));
  if (unknown !== undefined)
    throw new InputError(`study: --only: ${own.name} has no variant ${quote(unknown)}; ${nearest(unknown, variants)}`);
  const given = data && { data, ...(dataset && { dataset }), ...(rate && { rate }), ...(map && { map }) };
  const all = runsOf({ ...own, steps, seeds, scenes }, presetNamed(presetName), given);
  const wanted = all.filter(({ variant }) => only?.includes(variant) ?? true);
  const folder = out ?? join(...(installed ? [WORK_FOLDER] : ['bench', 'results']), 'study', own.name);
  const start = await openStart(all[0].settings.from!);
  try {
    const hash = createHash('sha256')
      .update(await readFile(start.name))
      .digest('hex');
    const replaces = (run: StudyRun) => overwrite === true && wanted.includes(run);
    const finished = await finishedRuns(folder, all, hash, replaces);
    // A missing library for the page's figures is refused before the runs, not after them.
    await (await import('../model/report/plot.ts')).loadVega();
    if (most > 0 && wanted.some((run) => !finished.has(fileOf(run)))) {
      const note = (line: string) => progress.note(line);
      const { device } = await openTunedDevice({ adapter, floor, tuning }, note);
      try {
        note(`${own.name}, preset ${presetName}, on ${device.description}`);
        const [known] = finished.values();
        const ask = () => askStart(device, start, all[0].questionScenes, signal);
        const answers = known?.questions.start ?? (await unlessAborted(signal, ask));
        const chosen = (settings: RunSettings) => {
          const { preset, seed } = settings;
          const source = { episodes: preset.demonstrations, seed, signal, frameSize: preset.vision.image };
          return chooseDataset(settings, source, progress);
        };
        const perform = (run: StudyRun) =>
          performRun(device, run, {
            ...{ start, hash, answers: answers!, dataset: chosen, scenes: scenesOf, listener: progress, signal },
          });
        if (answers) await performRuns(wanted, finished, { folder, most, perform, signal, note });
      } finally {
        device.close();
      }
    }
    const result = await concluded(own, all, finished, folder, commandLine(words));
    return { ...result, status: signal.aborted ? 130 : 0 };
  } finally {
    await start.close();
  }
}

async function concluded(
  own: Study,
  all: readonly StudyRun[],
  finished: ReadonlyMap<string, SavedRun>,
  folder: string,
  typed: string,
): Promise<Result> {
  const runs = [...finished.values()];
  const missing = all.map(fileOf).filter((file) => !finished.has(file));
  const results = tableOf(own, runs);
  const page = runs.length > 0 ? join(folder, 'study.html') : null;
  if (page !== null) {
    const { studyPage } = await import('../bench/study/page.ts');
    await writeFileSafely(page, [await studyPage({ study: own, command: typed, runs, results, missing })]);
  }
  const lines = [own.question, '', ...markdownOf(results), '', own.remark, ...legend];
  if (missing.length > 0) lines.push(`missing: ${missing.length} of ${all.length} runs: ${missing.join(', ')}`);
  if (page !== null) lines.push(`page: ${page}`);
  return { json: { study: own.name, ...results, missing, page }, lines };
}
