/** Images with questions, whether of named images or of a file of questions. */
import { InputError } from '../../engine/files/errors.ts';
import { type Random, randomStream, streams } from '../../engine/random.ts';
import type { ExampleSource } from '../data/dataset-mixture.ts';
import type { VisionLanguage } from '../data/sampler.ts';

export interface ImageQuestion {
  /** 'caption', 'point' ...: for scores by kind. */
  readonly kind: string;
  readonly prompt: string;
  /** Locations are written as text, `<loc0512>`. */
  readonly answer: string;
}

export interface QuestionedImage {
  readonly image: VisionLanguage['image'];
  /** The number of its questions. */
  readonly count: number;
  /** Its questions, always in the same order; the random numbers decide the wording of some. */
  readonly questions: (random: Random) => readonly ImageQuestion[];
}

/** Images to train on, and others that are held out. */
export interface ImageSplit<T = QuestionedImage> {
  readonly training: readonly T[];
  readonly heldOut: readonly T[];
}

/** One image in HELD_OUT_EVERY is held out, but at most HELD_OUT_IMAGES. */
const HELD_OUT_EVERY = 20;
const HELD_OUT_IMAGES = 16;

/** Holds out some of the images of `name`, which the seed chooses. @throws InputError if there are too few */
export function splitImages<T>(name: string, images: readonly T[], seed: number): ImageSplit<T> {
  const count = Math.min(HELD_OUT_IMAGES, Math.max(2, Math.floor(images.length / HELD_OUT_EVERY)));
  if (images.length < count + 2)
    throw new InputError(`${name}: number of images: ${images.length}; questions need at least four`);
  const order = randomStream(seed, 2 ** 32 - 1, streams.split).permutation(images.length);
  const shuffled = Array.from(order, (index) => images[index]);
  return { training: shuffled.slice(count), heldOut: shuffled.slice(0, count) };
}

/**
 * Every number below `size` once an epoch, in an order that the epoch's random numbers decide. The returned function gives the epoch
 * and the number of a place from 0; it keeps the order of one epoch.
 */
export function shuffledEpochs(
  size: number,
  randomOf: (epoch: number) => Random,
): (place: number) => { epoch: number; number: number } {
  let current = -1;
  let order: Uint32Array = new Uint32Array(0);
  return (place) => {
    const epoch = Math.floor(place / size);
    if (epoch !== current) [current, order] = [epoch, randomOf(epoch).permutation(size)];
    return { epoch, number: order[place - epoch * size] };
  };
}

/** Questions one by one. Each epoch asks all questions about every image, in an order that the seed decides. */
export function imageQuestions(images: readonly QuestionedImage[], seed: number): ExampleSource<VisionLanguage> {
  const places = images.flatMap(({ count }, index) => Array.from({ length: count }, (_, own) => [index, own]));
  const size = places.length;
  // Robot data count the steps of their random streams from 0; questions count from the other end.
  const stepOf = (epoch: number) => 2 ** 32 - 1 - epoch;
  const shuffled = shuffledEpochs(size, (epoch) => randomStream(seed, stepOf(epoch), streams.shuffle));
  return {
    size,
    at(place) {
      const { epoch, number } = shuffled(place);
      const random = randomStream(seed, stepOf(epoch), streams.paraphrase);
      const [index, own] = places[number];
      const { image, questions } = images[index];
      return { ...questions(random)[own], image };
    },
  };
}
