/** Packs of questions about frames of the built-in world, on which its vision-language model is pretrained. */
import { randomStream, streams } from '../../engine/random.ts';
import { type ColumnStatistics, columnStatistics } from '../../model/data/index.ts';
import { shuffledEpochs } from '../../model/training/image-questions.ts';
import type { Pack, PackSource } from '../../model/training/packs.ts';
import { worldLanguage } from '../../tokenizers/index.ts';
import { cached } from './cache.ts';
import { IMAGE_SIZE } from './camera.ts';
import type { Watched } from './episode-recorder.ts';
import { type Frame, type FrameSettings, pictureOf, type SeenThing, thingsOf } from './frames.ts';
import { type Draws, drawsOf } from './look.ts';
import { askedOf, type QuestionKind, questionAbout } from './questions.ts';
import { draws, type SceneSettings } from './scene.ts';
import { inWorkers } from './workers.ts';
import { STATE_DIMENSION } from './world.ts';

const { objects, fixtures } = worldLanguage;
const colours: readonly string[] = worldLanguage.colours;
const nouns: readonly string[] = [...objects, ...fixtures];

/** Half the side of the square in which patches belong to a thing, in pixels. */
const reaches: Readonly<Record<string, number>> = { bin: 9.5, button: 6.5 };
const REACH = 5.5;

/** The kinds of questions of each slot. The image reads the question of the first, and marks what it names. */
const slots: readonly (readonly QuestionKind[])[] = [
  ['task', 'task', 'task', 'point', 'point', 'at', 'existence', 'shape', 'colour', 'side', 'relation'],
  ['point'],
  ['point'],
  ['task'],
  ['at'],
  ['caption', 'count', 'existence', 'existence', 'shape', 'colour', 'side', 'relation', 'relation'],
];
/** More random numbers than one pack draws. */
const WORDS = 128;

/** Scenes of pretraining: of three tasks, one in three of them simple, the others rich. */
const kinds: readonly SceneSettings[] = (['place', 'place', 'place', 'press', 'open'] as const).flatMap((task) =>
  (['simple', 'rich', 'rich'] as const).map((variation) => ({ task, variation })),
);
/** The numbers of these scenes lie far above those of demonstrations, and those of evaluation above these. */
const TRAINING = { from: 2 ** 20, scenes: 4000, each: 5, kinds };
const HELD_OUT = { from: 2 ** 20 + 2 ** 19, scenes: 60, each: 5, kinds };

interface FramesOptions extends Watched {
  readonly folder: string;
  /** Scenes to learn from; those of the shipped models by default. */
  readonly scenes?: number;
}

/** All frames of these settings, from the folder, or made by worker threads and kept there. Node only. */
async function framesIn(
  settings: FrameSettings,
  { folder, ...watched }: Omit<FramesOptions, 'scenes'>,
): Promise<Frame[]> {
  const make = () => inWorkers('framesOf', settings, settings.scenes, watched);
  return (await cached(folder, 'frames', settings, make)).flat();
}

/** The packs that a seed's model is pretrained on. */
export async function pretrainingPacks(
  seed: number,
  { scenes = TRAINING.scenes, ...options }: FramesOptions,
): Promise<PackSource> {
  const frames = await framesIn({ seed, ...TRAINING, scenes }, options);
  const heldOut = await framesIn({ seed, ...HELD_OUT }, { ...options, onProgress: undefined });
  const states = columnStatistics([Float32Array.from(frames.flatMap(({ state }) => state))], STATE_DIMENSION);
  return worldPacks(frames, heldOut, { seed, states });
}

/** Every frame once an epoch, in an order that the seed decides, with other questions each time. */
export function worldPacks(
  frames: readonly Frame[],
  heldOut: readonly Frame[],
  { seed, states }: { seed: number; states: ColumnStatistics },
): PackSource {
  const [training, measuring] = [0, 1].map((use) => randomStream(seed, 2 * draws.questions + use, streams.world));
  const shuffled = shuffledEpochs(frames.length, (epoch) => randomStream(seed, epoch, streams.shuffle));
  return {
    slots: slots.length,
    classes: { kinds: ['nothing', ...nouns], colours: ['nothing', ...colours] },
    states,
    at: (place) => packOf(frames[shuffled(place).number], drawsOf(training, place * WORDS)),
    heldOut: heldOut.map((frame, place) => packOf(frame, drawsOf(measuring, place * WORDS))),
  };
}

function packOf(frame: Frame, { integer: draw }: Draws): Pack {
  const seen = thingsOf(frame);
  const all = [...seen.objects, ...seen.fixtures];
  const questions = slots.map((kinds) => questionAbout(frame, kinds[draw(kinds.length)], draw, seen));
  const markOf = ({ index }: SeenThing) => all.findIndex((thing) => thing.index === index);
  return {
    image: pictureOf(frame),
    questions: questions.map((question) => askedOf(question, frame)),
    things: all.map(({ noun, colour, place }) => ({
      kind: 1 + nouns.indexOf(noun),
      colour: 1 + colours.indexOf(colour),
      centre: place,
      reach: (reaches[noun] ?? REACH) / IMAGE_SIZE,
    })),
    marked: questions[0].named.map(markOf),
  };
}
