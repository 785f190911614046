/** Which data a command works on: data sets, their mixture and wordings, and questions beside them. */
import { basename, dirname, join } from 'node:path';
import { demonstrations } from '../bench/tabletop/demonstrations.ts';
import { worldCoTraining } from '../bench/tabletop/questions.ts';
import type { TabletopWorld } from '../bench/tabletop/world.ts';
import { openPath } from '../engine/files/paths.ts';
import { InputError, quote } from '../engine/index.ts';
import type { Dataset } from '../model/data/dataset.ts';
import {
  mixDatasets,
  openDataset,
  openNamedImages,
  ownSlotMap,
  readParaphrases,
  slotMapNamed,
  withParaphrases,
} from '../model/data/index.ts';
import { type CoTraining, namedImageCoTraining } from '../model/training/co-training.ts';
import type { Progress } from './progress.ts';
import { type DataOptions, TABLETOP, WORK_FOLDER } from './train-options.ts';

/**
 * The data set that options name: the built-in world's demonstrations, or one read from a folder or file. Of several
 * in a folder `usual` is read where none is named; frames of videos have at most `frameSize` pixels on a side.
 */
export async function chooseDataset(
  options: DataOptions,
  {
    episodes,
    seed,
    signal,
    ...reading
  }: {
    episodes: number;
    seed: number;
    signal?: AbortSignal;
    usual?: string;
    frameSize?: number;
  },
  progress: Progress,
): Promise<Dataset> {
  const { data, dataset: name, cameras, rate } = options;
  if (data !== undefined) {
    const hertz = rate === undefined ? undefined : Number(rate);
    if (hertz !== undefined && !(hertz > 0 && Number.isFinite(hertz)))
      throw new InputError(`--rate ${rate}: expected control steps a second, a number above 0`);
    const chosen = cameras === 'none' ? [] : cameras?.split(',').map((camera) => camera.trim());
    const dataset = await openDataset(data, name, { ...reading, cameras: chosen, rate: hertz });
    if (dataset.description) progress.note(`${dataset.name}: ${dataset.description}`);
    return dataset;
  }
  if (options.dataset !== undefined && options.dataset !== TABLETOP)
    throw new InputError(
      `--dataset ${options.dataset}: say where it lies with --data FOLDER; without it there is only '${TABLETOP}'`,
    );
  return demonstrations({
    episodes,
    seed,
    cacheFolder: join(WORK_FOLDER, 'cache'),
    onProgress: (done, total) => progress.count('demonstrations: episode', done, total),
    signal,
  });
}

/** The parts of a list with commas between. */
export const listed = (text: string | undefined) => text?.split(',').map((part) => part.trim()) ?? [];

/** As `chooseDataset`; several data sets are a mixture of robots, and so is one whose robot is named. */
export async function chooseData(
  options: DataOptions,
  reading: Parameters<typeof chooseDataset>[1],
  progress: Progress,
): Promise<Dataset> {
  const [folders, robots, weights] = [options.data, options.robot, options.weights].map(listed);
  const usual = reading.usual?.includes(',') ? reading.usual : undefined;
  const names = listed(options.dataset ?? usual);
  const count = Math.max(folders.length, names.length);
  if (folders.length === 0 && robots.length > 0)
    throw new InputError('--robot: say where its data lie with --data FOLDER');
  if (weights.length > 0 && (count < 2 || weights.length !== count))
    throw new InputError(`--weights: ${weights.length} for ${count} data sets; they are of several, one for each`);
  if (folders.length === 0 || (count === 1 && robots.length === 0)) return chooseDataset(options, reading, progress);
  for (const [option, { length }] of [
    ['data', folders],
    ['dataset', names],
    ['robot', robots],
  ] as const)
    if (length > 1 && length !== count) throw new InputError(`--${option}: ${length} for ${count} data sets`);
  const datasets = [];
  for (let i = 0; i < count; i++) {
    const own = { ...options, data: folders[i] ?? folders[0], dataset: names[i] ?? names[0] };
    datasets.push(await chooseDataset(own, reading, progress));
  }
  const maps = datasets.map((dataset, i) =>
    robots.length > 0 ? slotMapNamed(robots[i] ?? robots[0]) : ownSlotMap(dataset),
  );
  const width = Math.max(...maps.map((map) => map.width));
  const weight = (i: number) => (weights.length > 0 ? Number(weights[i]) : undefined);
  return mixDatasets(datasets.map((dataset, i) => ({ dataset, slots: { ...maps[i], width }, weight: weight(i) })));
}

/** The data set with the paraphrases of a file. @throws InputError where none of them is of one of its instructions */
export async function reworded(dataset: Dataset, path: string | undefined, progress: Progress): Promise<Dataset> {
  if (path === undefined) return dataset;
  const paraphrases = await readParaphrases(await openPath(path));
  const known = new Set(dataset.episodes.flatMap(({ instructions }) => instructions));
  const used = [...paraphrases.keys()].filter((text) => known.has(text)).length;
  if (used === 0) {
    const such = known.size > 0 ? `, such as ${quote([...known][0])}` : ': it has none';
    throw new InputError(`${path}: it has no wordings for any instruction of "${dataset.name}"${such}`);
  }
  progress.note(`${path}: other wordings for ${used} of ${known.size} instructions`);
  return withParaphrases(dataset, paraphrases);
}

/** Questions for a part of every batch: about the images of a file, or else about the built-in world. */
export async function coTrainingOf(
  share: number,
  seed: number,
  questions: string | undefined,
  world: TabletopWorld | null,
): Promise<CoTraining | undefined> {
  if (world) return worldCoTraining(world, seed, share);
  if (questions === undefined) return undefined;
  const images = await openNamedImages(dirname(questions), basename(questions));
  return { ...namedImageCoTraining(images, seed, share), source: questions };
}
