/** Questions about a picture: to a policy, or to a vision-language model, which does nothing else. */

import { readRange } from '../engine/files/bytes.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { openPath } from '../engine/files/paths.ts';
import { InputError } from '../engine/index.ts';
import { expectDevice, openTunedDevice } from '../kernels/tuning.ts';
import type { Image } from '../model/data/dataset.ts';
import { decodeImage, encodePng, episodeNamed, imageTypeOf, shareBeforePadding } from '../model/data/index.ts';
import { Encoding } from '../model/policy/encoding.ts';
import { Policy } from '../model/policy/policy.ts';
import { drawPlaces } from '../model/report/drawn-picture.ts';
import { questionObservation } from '../model/training/batches.ts';
import { openStart } from '../model/training/start.ts';
import { LOCATIONS, type Place, parsePlaces, wrongLocation } from '../tokenizers/index.ts';
import { chooseData } from './data.ts';
import { expectStep, openPolicy, type PolicyValues } from './policy.ts';
import type { Progress } from './progress.ts';

/** An answer, with the places in it in pixels of the picture. */
export interface Answered {
  question: string;
  answer: string;
  /** Points [y, x] and boxes [top, left, bottom, right]. */
  places: { label: string; pixels: number[] }[];
  /** Height and width of the picture that the question was about; null for a subtask. */
  size: readonly [height: number, width: number] | null;
  /** The file of --picture. */
  picture: string | null;
}

/** The answer about a picture of its own. */
export interface AskResult extends Answered {
  /** The picture: a file, or a step of an episode. */
  about: string;
  adapter: string;
}

export interface Asked {
  readonly ask: string;
  readonly picture?: string;
  readonly seed?: number;
  readonly temperature?: number;
}

/** Asks about an image, and writes it with the places of the answer if a file is named for it. */
export async function askAbout(policy: Policy, image: Image, { ask, picture, ...drawing }: Asked): Promise<Answered> {
  const { encoding, model } = policy;
  const { imageWidth, imageHeight } = model.configuration.vision!;
  const wrong = wrongLocation(ask);
  if (wrong !== undefined)
    throw new InputError(`--ask: ${wrong} is no place in a picture; places are <loc0000> to <loc${LOCATIONS - 1}>`);
  const observation = await questionObservation({ prompt: ask, image: async () => image }, encoding.settings.cameras);
  const [answer] = await policy.generateText([observation], drawing);
  const size = [image.height, image.width] as const;
  const places: Place[] = parsePlaces(answer).places.map(({ coordinates, label }) => {
    const place = (share: number, i: number) =>
      shareBeforePadding(share, i % 2 === 0 ? 'height' : 'width', image, { width: imageWidth, height: imageHeight });
    return { label, coordinates: coordinates.map(place) };
  });
  if (picture !== undefined) await writeFileSafely(picture, [encodePng(drawPlaces(image, places))]);
  return {
    ...{ question: ask, answer, size, picture: picture ?? null },
    places: places.map(({ label, coordinates }) => ({ label, pixels: coordinates.map((own, i) => own * size[i % 2]) })),
  };
}

interface Alone extends Asked {
  readonly image?: string;
  readonly episode?: string;
  readonly step?: number;
}

/** Asks a vision-language model, or a policy about the image of a file. No action is predicted. */
export async function askAlone(
  { checkpoint: path, ...values }: PolicyValues & { readonly checkpoint: string },
  seeing: boolean,
  { image: file, episode, step = 0, ...asked }: Alone,
  progress: Progress,
): Promise<AskResult> {
  const opened = seeing ? await openStart(path) : await openPolicy(path);
  try {
    const encoding = new Encoding('settings' in opened ? opened.settings.encoding : opened.encoding);
    if ('settings' in opened) expectAnswers(opened.settings.encoding);
    const [camera] = encoding.settings.cameras;
    if (camera === undefined) throw new InputError(`--image: ${path} was trained without images`);
    const { image, about } =
      file === undefined ? await frameOf(values, camera, { episode, step }, progress) : await imageOf(file);
    const { device } = await openTunedDevice(values, (line) => progress.note(line));
    try {
      using model = await opened.loadModel(device);
      const answered = await askAbout(new Policy(model, encoding), image, asked);
      return { ...answered, about, adapter: device.description };
    } finally {
      device.close();
    }
  } finally {
    await opened.close();
  }
}

/** @throws InputError if a policy cannot answer questions */
export function expectAnswers({ locations }: Encoding['settings']): void {
  if (!locations) throw new InputError('--ask: this policy was trained without questions, so it cannot answer any');
}

async function imageOf(path: string): Promise<{ image: Image; about: string }> {
  const source = await openPath(path);
  try {
    const bytes = await readRange(source, 0, source.size, 'the image');
    const image = await decodeImage(bytes, imageTypeOf(bytes), `--image ${path}`);
    return { image, about: path };
  } finally {
    await source.close();
  }
}

/** A frame of the data, of the built-in world by default, from the model's camera or else the first. */
async function frameOf(
  values: Omit<PolicyValues, 'checkpoint'>,
  wanted: string,
  { episode, step }: { episode?: string; step: number },
  progress: Progress,
): Promise<{ image: Image; about: string }> {
  if (!values.data) await expectDevice(values);
  // The built-in world makes no more demonstrations than are needed.
  const episodes = /^\d{1,3}$/.test(episode ?? '') ? Number(episode) + 1 : 1;
  const dataset = await chooseData({ ...values, cameras: null }, { episodes, seed: 0 }, progress);
  const found = episodeNamed(dataset, episode);
  expectStep(found, step);
  const camera = dataset.cameras.includes(wanted) ? wanted : dataset.cameras[0];
  const image = camera === undefined ? null : await found.image(camera, step);
  if (!image) throw new InputError(`--ask: "${dataset.name}" has no image at this control step; name one with --image`);
  return { image, about: `episode ${found.id}, step ${step}, camera ${camera}` };
}
