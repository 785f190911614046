/** Packs: one picture with several questions, and with the places of the things in it where they are known. */
import { randomStream, streams } from '../../engine/random.ts';
import type { ColumnStatistics, Image } from '../data/index.ts';
import { type ImageQuestion, type ImageSplit, type QuestionedImage, shuffledEpochs } from './image-questions.ts';

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

export interface PackedQuestion extends ImageQuestion {
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
  /** Questions that can come in any slot, and decide the lengths of all; without it packs decide those of each. */
  questions?(): Iterable<PackedQuestion>;
  /** The pack of any number from 0, always the same. */
  at(index: number): Pack;
  readonly heldOut: readonly Pack[];
}

/** The most questions in a pack about an image. */
const SLOTS = 6;
/** At least so many epochs, and so many questions, decide the lengths of slots. */
const [FITTED_EPOCHS, FITTED_QUESTIONS] = [4, 8192];

/**
 * Every image once an epoch, in an order that the seed decides. The questions of an image come in a new order each time, so that
 * the image, which reads the first slot, reads all of them; if they need several packs, those come in successive epochs.
 */
export function imagePacks({ training, heldOut }: ImageSplit, seed: number): PackSource {
  const slots = Math.min(
    SLOTS,
    [...training, ...heldOut].reduce((most, { count }) => Math.max(most, count), 0),
  );
  const parts = ({ count }: QuestionedImage) => Math.ceil(count / slots);
  const asked = ({ questions }: QuestionedImage, epoch: number): PackedQuestion[] =>
    questions(randomStream(seed, epoch, streams.paraphrase)).map((own) => ({ ...own, request: 'answer' }));
  const pack = (images: readonly QuestionedImage[], index: number, epoch: number): Pack => {
    const own = images[index];
    const packs = parts(own);
    const round = Math.floor(epoch / packs);
    // The steps of these streams count from the other end than those of the order of images.
    const random = randomStream(seed, 2 ** 32 - 1 - round * images.length - index, streams.shuffle);
    const chosen = random.permutation(own.count).filter((_, i) => i % packs === epoch % packs);
    const all = asked(own, epoch);
    const questions = Array.from({ length: slots }, (_, slot) => all[chosen[slot]] ?? null);
    return { image: own.image, questions, things: [], marked: [] };
  };
  const shuffled = shuffledEpochs(training.length, (epoch) => randomStream(seed, epoch, streams.shuffle));
  return {
    slots,
    classes: null,
    *questions() {
      const total = training.reduce((sum, { count }) => sum + count, 0);
      const epochs = Math.max(FITTED_EPOCHS, FITTED_QUESTIONS / total);
      for (let own = 0; own < epochs; own++) for (const image of training) yield* asked(image, own);
    },
    at(place) {
      const { epoch, number } = shuffled(place);
      return pack(training, number, epoch);
    },
    heldOut: heldOut.flatMap((own, index) =>
      Array.from({ length: parts(own) }, (_, part) => pack(heldOut, index, part)),
    ),
  };
}
