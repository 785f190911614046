/** Packs: one picture with several questions, and with the places of the things in it where they are known. */
import { randomStream, streams } from '../../engine/random.ts';
import { type ColumnStatistics, type Image, type NamedImage, questionsAbout } from '../data/index.ts';
import { splitNamedImages } from './co-training.ts';

/** A thing in a picture. */
export interface Thing {
  /** Classes, as indexes into `PackSource.classes`; 0 is 'nothing' and no thing's. */
  readonly kind: number;
  readonly colour: number;
  /** [down, across] as shares of the picture. */
  readonly centre: readonly [number, number];
  /** Half the side, as a share of the picture, of the square in which the centre of a patch of this thing lies. */
  readonly reach: number;
}

export interface PackedQuestion {
  /** 'caption', 'point' ...: for scores by kind. */
  readonly kind: string;
  readonly prompt: string;
  /** Locations are written as text, `<loc0512>`. */
  readonly answer: string;
  readonly state?: ArrayLike<number> | null;
  /** 'subtask': the prompt is an instruction, with the state behind it. */
  readonly request: 'answer' | 'subtask';
}

export interface Pack {
  readonly image: () => Promise<Image>;
  /** One for each slot; null leaves the slot empty. */
  readonly questions: readonly (PackedQuestion | null)[];
  readonly things: readonly Thing[];
  /** Indexes of the things that the question of the first slot names: the first has mark class 1, the second 2. */
  readonly marked: readonly number[];
}

export interface PackSource {
  /** Questions in a pack. */
  readonly slots: number;
  /** Names of the classes, 'nothing' first; null for pictures without known things, which have the token loss alone. */
  readonly classes: { readonly kinds: readonly string[]; readonly colours: readonly string[] } | null;
  /** Statistics of the states of its questions. */
  readonly states?: ColumnStatistics;
  /** Packs in which every picture is shown; absent where there is no such number. */
  readonly epoch?: number;
  /** The pack of any number from 0, always the same. */
  at(index: number): Pack;
  readonly heldOut: readonly Pack[];
}

/** Packs of the three questions about each named image; the seed chooses the order and the images that are held out. */
export function namedImagePacks(images: readonly NamedImage[], seed: number): PackSource {
  const kinds = ['caption', 'category', 'guess'];
  const { training, heldOut } = splitNamedImages(images, seed);
  const pack = (own: readonly NamedImage[], index: number, epoch: number): Pack => {
    const questions = questionsAbout(own, index, randomStream(seed, epoch, streams.paraphrase));
    return {
      image: own[index].image,
      questions: questions.map(({ prompt, answer }, i) => ({ kind: kinds[i], prompt, answer, request: 'answer' })),
      things: [],
      marked: [],
    };
  };
  let epoch = -1;
  let order: Uint32Array = new Uint32Array(0);
  return {
    slots: kinds.length,
    classes: null,
    epoch: training.length,
    at(place) {
      const own = Math.floor(place / training.length);
      if (own !== epoch) [epoch, order] = [own, randomStream(seed, own, streams.shuffle).permutation(training.length)];
      return pack(training, order[place - own * training.length], own);
    },
    heldOut: heldOut.map((_, index) => pack(heldOut, index, 0)),
  };
}
