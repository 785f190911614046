/** Questions about pictures of the built-in world, for co-training: captions, answers and pointing with location tokens. */
import { randomStream, streams } from '../../engine/random.ts';
import { type ExampleSource, ImageCache, type VisionLanguage } from '../../model/data/index.ts';
import type { CoTraining } from '../../model/training/co-training.ts';
import { placesText } from '../../tokenizers/index.ts';
import { project } from './camera.ts';
import { plainLook } from './look.ts';
import { colours, dimensions, episodeSeed, makeScene, type Scene, shapes } from './scene.ts';
import type { TabletopWorld } from './world.ts';

const IMAGE_CACHE_BYTES = 64 * 2 ** 20;

type Question = Omit<VisionLanguage, 'image'>;
type Draw = (below: number) => number;

const fromLeft = <T extends { x: number }>(things: readonly T[]) => [...things].sort((a, b) => a.x - b.x);
const nameOf = ({ colour, shape = 'bin' }: { colour: string; shape?: string }) => `${colour} ${shape}`;

function listed(names: readonly string[]): string {
  const all = names.map((name) => `a ${name}`.replace(/^a (?=[aeiou])/, 'an '));
  return [all.slice(0, -1).join(', '), ...all.slice(-1)].filter((part) => part !== '').join(' and ');
}

function pointTo(thing: { colour: string; shape?: string; x: number; y: number }, height: number): Question {
  const name = nameOf(thing);
  const answer = placesText([{ coordinates: project([thing.x, thing.y, height], plainLook.camera), label: name }]);
  return { prompt: `point to the ${name}`, answer };
}

/** The kinds of questions, with PaliGemma's prompts; every scene has one of each. */
const kinds: readonly ((scene: Scene, draw: Draw) => Question)[] = [
  ({ objects, fixtures: bins }) => {
    const [near, far] = [objects.map(nameOf), bins.map(nameOf)].map(listed);
    return { prompt: 'caption en', answer: `${near} in front of ${far}` };
  },
  ({ objects }) => ({ prompt: 'answer en how many objects are on the table?', answer: String(objects.length) }),
  ({ objects }, draw) => {
    const anything = { colour: colours[draw(colours.length)], shape: shapes[draw(shapes.length)] };
    const asked = nameOf(draw(2) === 0 ? objects[draw(objects.length)] : anything);
    const answer = objects.some((object) => nameOf(object) === asked) ? 'yes' : 'no';
    return { prompt: `answer en is there a ${asked}?`, answer };
  },
  ({ objects }, draw) => {
    const { colour, shape } = objects[draw(objects.length)];
    return { prompt: `answer en what is the ${colour} object?`, answer: shape };
  },
  ({ fixtures: bins }, draw) => {
    const [left, right] = fromLeft(bins);
    return draw(2) === 0
      ? { prompt: 'answer en which bin is on the left?', answer: left.colour }
      : { prompt: 'answer en which bin is on the right?', answer: right.colour };
  },
  ({ objects }, draw) => pointTo(objects[draw(objects.length)], dimensions.object),
  ({ fixtures: bins }, draw) => pointTo(bins[draw(bins.length)], 0),
];
/** The most random numbers that one question draws. */
const WORDS = 4;

interface QuestionOptions {
  readonly seed: number;
  /** The first of the seed's training scenes; the questions are about `scenes` of them from there on. */
  readonly from: number;
  readonly scenes: number;
}

/**
 * A question of every kind about every scene, once an epoch, in an order that depends on the options and the epoch alone. `world`
 * draws a scene when its image is needed.
 */
export function worldQuestions(
  world: TabletopWorld,
  { seed, from, scenes }: QuestionOptions,
): ExampleSource<VisionLanguage> {
  const size = scenes * kinds.length;
  const images = new ImageCache(IMAGE_CACHE_BYTES);
  const image = (scene: number) => () =>
    images.get(String(scene), async () => {
      world.reset(scene);
      return world.observe().image;
    });
  let epoch = -1;
  let order: Uint32Array = new Uint32Array(0);
  const random = randomStream(seed, 2 ** 32 - 1, streams.paraphrase);
  return {
    size,
    at(place) {
      const own = Math.floor(place / size);
      if (own !== epoch) {
        // These steps keep the streams apart from those of the robots' examples, as in imageQuestions.
        [epoch, order] = [own, randomStream(seed, 2 ** 32 - 1 - own, streams.shuffle).permutation(size)];
      }
      const number = order[place - own * size];
      const scene = episodeSeed('training', seed, from + Math.floor(number / kinds.length));
      let drawn = number * WORDS;
      const question = kinds[number % kinds.length](makeScene(scene), (below) => random.integer(drawn++, below));
      return { ...question, image: image(scene) };
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
