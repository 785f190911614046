/** The data of a command: one data set or several, paraphrases, and questions for co-training. */
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { worldCoTraining } from '../bench/tabletop/co-training.ts';
import { demonstrations } from '../bench/tabletop/demonstrations.ts';
import type { TabletopWorld } from '../bench/tabletop/world.ts';
import { parseJson } from '../engine/files/bytes.ts';
import { fileError } from '../engine/files/files.ts';
import { checked } from '../engine/files/json-schema.ts';
import { openPath } from '../engine/files/paths.ts';
import { InputError, quote } from '../engine/index.ts';
import {
  channelOrders,
  type Dataset,
  type FieldMap,
  fieldMapSchema,
  mixDatasets,
  openDataset,
  ownSlotMap,
  readParaphrases,
  slotMapNamed,
  withForms,
  withParaphrases,
} from '../model/data/index.ts';
import { type CoTraining, imageCoTraining } from '../model/training/co-training.ts';
import { type ImageSplit, splitImages } from '../model/training/image-questions.ts';
import { namedQuestions, openNamedImages } from '../model/training/named-images.ts';
import { openQuestionFile } from '../model/training/question-file.ts';
import type { RunSettings } from '../model/training/run-settings.ts';
import { CACHE_FOLDER } from './device.ts';
import { choice, decimal, type Option, texts } from './options.ts';
import type { Progress } from './progress.ts';
import { scenesOf } from './scenes.ts';

export const TABLETOP = 'tabletop';

/** The settings that name data sets. */
export type DataChoice = Partial<
  Pick<
    RunSettings,
    'data' | 'dataset' | 'cameras' | 'rate' | 'map' | 'channels' | 'robot' | 'weights' | 'task' | 'variation'
  >
>;

/** Paths, separated by commas; a path that is there as it is written is one, whatever is in it. */
const paths = (help: string, use?: Parameters<typeof texts>[1]): Option<string[]> => {
  const option = texts(help, use);
  return { ...option, read: (given) => (existsSync(given[0]) ? [...given] : option.read(given)) };
};

const noneOrTexts = (help: string): Option<string[]> => {
  const option = texts(help, { needs: 'data' });
  return { ...option, read: (given) => (given[0] === 'none' ? [] : option.read(given)) };
};

/** Maps of fields, read when the option is read: a run keeps what they say. */
function maps(help: string): Option<FieldMap[]> {
  const option = paths(help, { needs: 'data' });
  const read = (file: string, _: number, { length }: readonly string[]) => {
    try {
      return checked(fieldMapSchema, parseJson(readFileSync(file), file, 'not a JSON file, or cut off'), file);
    } catch (error) {
      const known = fileError(error, file, 'open it');
      if (!(known instanceof InputError)) throw known;
      const { message } = known;
      const own = message.startsWith(`${file}: `) ? message.slice(file.length + 2) : message;
      // A single file is named by the option.
      throw new InputError(length > 1 ? `${file}: ${own}` : own);
    }
  };
  return { ...option, value: 'FILE,FILE', read: (given) => option.read(given).map(read) };
}

export const dataOptions = {
  data: paths('folder or file of a data set (LeRobot, RLDS, HDF5, ...); without it the built-in tabletop world'),
  dataset: texts('name of the data set, in a folder with several', { needs: 'data' }),
  rate: decimal('control steps per second, for files that do not record it', { above: 0, needs: 'data' }),
  map: maps(
    'JSON file that says which fields are what, or one for each data set: { "action": [FIELD, ...], "state": [...], "cameras": { NAME: FIELD }, "language": [...], "subtask": FIELD, "time": FIELD }; insula data FOLDER lists the fields',
  ),
};
export const cameraOptions = {
  cameras: noneOrTexts('names of the cameras to use, or none; all by default'),
  channels: choice('order of the colours in the images: bgr swaps red and blue', channelOrders, { needs: 'data' }),
};
export const robotOptions = {
  robot: texts('slot map of the robot, or of the robot of each data set', { needs: 'data' }),
};

/** The part of the data to read. */
interface Source {
  /** Number of demonstrations of the built-in world, and their seed. */
  readonly episodes: number;
  readonly seed: number;
  readonly signal?: AbortSignal;
  /** Names of the data sets to read from a folder with several if none is named. */
  readonly usual?: readonly string[];
  /** The most pixels on a side of video frames; larger frames are scaled down. */
  readonly frameSize?: number;
}

/** The built-in world's demonstrations, or one data set read from a folder or file. */
export async function chooseDataset(
  { data, dataset: names, cameras, rate, map, channels, ...scenes }: DataChoice,
  { episodes, seed, signal, usual, frameSize }: Source,
  progress: Progress,
): Promise<Dataset> {
  for (const [option, own] of [
    ['data', data],
    ['dataset', names],
  ] as const)
    if (own && own.length > 1) throw new InputError(`--${option} ${own.join(',')}: this command reads one data set`);
  if (!data)
    return demonstrations({
      episodes,
      seed,
      scenes: scenesOf(scenes),
      cacheFolder: CACHE_FOLDER,
      onProgress: (done, total) => progress.count('demonstrations: episode', done, total),
      signal,
    });
  let what = data[0];
  const note = (line: string) => progress.note(`${what}: ${line}`);
  const dataset = await openDataset(data[0], names?.[0], {
    ...{ usual: usual?.[0], frameSize },
    cameras: cameras ?? undefined,
    rate: rate ?? undefined,
    channels: channels ?? undefined,
    map: map?.[0],
    onNote: note,
    onProgress: (done, total) => progress.count('first opening: episode', done, total ?? done + 1),
  }).finally(() => progress.end());
  what = dataset.name;
  if (dataset.description) note(dataset.description);
  for (const line of dataset.notes ?? []) note(line);
  return dataset;
}

/** Like `chooseDataset`, but joins several data sets, or one with a named robot, by slot maps (`mixDatasets`). */
export async function chooseData(choice: DataChoice, source: Source, progress: Progress): Promise<Dataset> {
  const { data, robot, weights, map } = choice;
  const several = (source.usual?.length ?? 0) > 1 ? source.usual : undefined;
  const names = choice.dataset ?? (data ? several : undefined) ?? [];
  const count = Math.max(data?.length ?? 0, names.length);
  if (weights && (count < 2 || weights.length !== count))
    throw new InputError(
      `--weights: ${weights.length} given for ${Math.max(1, count)} data set${count > 1 ? 's' : ''}; it takes one for each of several data sets`,
    );
  if (!data || (count === 1 && !robot)) return chooseDataset(choice, source, progress);
  for (const [option, { length }] of [
    ['data', data],
    ['dataset', names],
    ['robot', robot ?? []],
    ['map', map ?? []],
  ] as const)
    if (length > 1 && length !== count) throw new InputError(`--${option}: ${length} for ${count} data sets`);
  const places = Array.from({ length: count }, (_, i) => `${data[i] ?? data[0]} ${names[i] ?? names[0] ?? ''}`.trim());
  const repeated = places.find((place, i) => places.indexOf(place) < i);
  if (repeated !== undefined && !robot)
    throw new InputError(`--data, --dataset: ${repeated} is named twice; --weights says how often a data set is drawn`);
  const datasets = [];
  for (let i = 0; i < count; i++) {
    const name = names[i] ?? names[0];
    const own = {
      ...choice,
      map: map && [map[i] ?? map[0]],
      data: [data[i] ?? data[0]],
      dataset: name === undefined ? null : [name],
    };
    datasets.push(await chooseDataset(own, source, progress));
  }
  const maps = datasets.map((dataset, i) => (robot ? slotMapNamed(robot[i] ?? robot[0]) : ownSlotMap(dataset)));
  const width = Math.max(...maps.map((map) => map.width));
  return mixDatasets(
    datasets.map((dataset, i) => ({ dataset, slots: { ...maps[i], width }, weight: weights?.[i] ?? undefined })),
  );
}

/** Reads paraphrases; the returned function adds them, and refuses a data set with none of their instructions. */
export async function readParaphrasing(path: string | null, progress: Progress): Promise<(to: Dataset) => Dataset> {
  if (path === null) return (dataset) => dataset;
  if (path === 'forms') return withForms;
  const paraphrases = await readParaphrases(await openPath(path));
  return (dataset) => {
    const known = new Set(dataset.episodes.flatMap(({ instructions }) => instructions));
    const used = [...paraphrases.keys()].filter((text) => known.has(text)).length;
    if (used === 0) {
      const such = known.size > 0 ? `, such as ${quote([...known][0])}` : ': it has none';
      throw new InputError(`${path}: it has no paraphrases of any instruction of "${dataset.name}"${such}`);
    }
    progress.note(`${path}: paraphrases of ${used} of ${known.size} instructions`);
    return withParaphrases(dataset, paraphrases);
  };
}

/** Questions for co-training, about one's own images or about the built-in world. */
export async function coTrainingOf(
  { questions, seed }: Pick<RunSettings, 'questions' | 'seed'>,
  world: TabletopWorld | null,
): Promise<CoTraining | undefined> {
  if (world) return worldCoTraining(world, seed);
  if (questions === null) return undefined;
  return imageCoTraining(await openQuestions(questions, seed), seed);
}

/** The images of --questions with their questions: those of a JSON Lines file, or those made about named images. */
export async function openQuestions(path: string, seed: number): Promise<ImageSplit> {
  const [folder, name] = [dirname(path), basename(path).replace(/\.(json|pack)$/, '')];
  if (name.endsWith('.jsonl')) return splitImages(path, await openQuestionFile(folder, name), seed);
  const { training, heldOut } = splitImages(path, await openNamedImages(folder, name), seed);
  return { training: namedQuestions(training), heldOut: namedQuestions(heldOut) };
}
