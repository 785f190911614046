/** Questions about the built-in world, for co-training. */
import { randomStream, streams } from '../../engine/random.ts';
import { type ExampleSource, ImageCache, type VisionLanguage } from '../../model/data/index.ts';
import type { CoTraining } from '../../model/training/co-training.ts';
import { shuffledEpochs } from '../../model/training/image-questions.ts';
import { beginningOf } from './frames.ts';
import { drawsOf } from './look.ts';
import { questionAbout, questionKinds } from './questions.ts';
import { episodeSeed, simplePlacing } from './scene.ts';
import type { TabletopWorld } from './world.ts';

/** Every scene has one question of each. An instruction is no question: demonstrations have those. */
const kinds = questionKinds.filter((kind) => kind !== 'task');
/** The most random numbers that one question draws. */
const WORDS = 8;

/**
 * A question of every kind about the beginning of `scenes` training scenes of simple placing, from the seed's scene number `from` on,
 * once an epoch, in an order that depends on the options and the epoch alone. `world` draws a scene when its image is needed.
 */
export function worldQuestions(
  world: TabletopWorld,
  { seed, from, scenes }: { readonly seed: number; readonly from: number; readonly scenes: number },
): ExampleSource<VisionLanguage> {
  const size = scenes * kinds.length;
  const images = new ImageCache();
  const image = (scene: number) => () =>
    images.get(String(scene), async () => {
      world.reset(scene);
      return world.observe().image;
    });
  // These steps keep the streams apart from those of the robots' examples, as in imageQuestions.
  const shuffled = shuffledEpochs(size, (epoch) => randomStream(seed, 2 ** 32 - 1 - epoch, streams.shuffle));
  const random = randomStream(seed, 2 ** 32 - 1, streams.paraphrase);
  return {
    size,
    at(place) {
      const { number } = shuffled(place);
      const scene = episodeSeed('training', seed, from + Math.floor(number / kinds.length));
      const { integer } = drawsOf(random, number * WORDS);
      const beginning = beginningOf(scene, simplePlacing);
      const { prompt, answer } = questionAbout(beginning, kinds[number % kinds.length], integer);
      return { prompt, answer, image: image(scene) };
    },
  };
}

/** The numbers of these scenes lie far above those of demonstrations, which questions must not show. */
const TRAINING = { from: 2 ** 20, scenes: 400 };
const HELD_OUT = { from: 2 ** 21, scenes: 16 };
const HELD_OUT_QUESTIONS = 48;

/** Questions about scenes that no demonstration shows; some of them are held out. */
export function worldCoTraining(world: TabletopWorld, seed: number): CoTraining {
  const heldOut = worldQuestions(world, { seed, ...HELD_OUT });
  return {
    questions: worldQuestions(world, { seed, ...TRAINING }),
    heldOut: Array.from({ length: HELD_OUT_QUESTIONS }, (_, place) => heldOut.at(place)),
  };
}
