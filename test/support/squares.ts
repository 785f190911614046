/** Packs of questions about two coloured squares on a plain picture. */
import { randomStream } from '../../engine/random.ts';
import type { Pack, PackedQuestion, PackSource, Thing } from '../../model/training/packs.ts';
import type { Preset } from '../../model/training/presets.ts';
import { placesText } from '../../tokenizers/index.ts';
import { minutePreset } from './synthetic-dataset.ts';

const [SIDE, SQUARE] = [12, 4];
const colours = ['nothing', 'red', 'green', 'blue'];
const HELD_OUT = 10_000_000;

/** A model that finds squares within a few hundred steps. */
export const squaresPreset: Preset = {
  ...minutePreset,
  backbone: { width: 32, hidden: 64 },
  vision: { width: 32, depth: 2, heads: 2, hidden: 64, patch: SQUARE, image: SIDE },
  pretraining: {
    ...{ steps: 400, batch: 16, learningRate: 4e-3, warmUpSteps: 10 },
    ...{ evaluateEvery: 1000, saveEvery: 1000 },
  },
  heldOutSteps: 4,
};

function packOf(index: number): Pack {
  const random = randomStream(5, index, 0);
  const [first, second] = random.permutation(3).map((colour) => colour + 1);
  const corner = (i: number) => SQUARE * random.integer(10 + i, SIDE / SQUARE);
  const squares = [first, second].map((colour, i) => ({ colour, corner: [corner(2 * i), corner(2 * i + 1)] as const }));
  const pixels = new Uint8Array(SIDE * SIDE * 3).fill(40);
  for (const { colour, corner } of squares)
    for (let i = 0; i < SQUARE * SQUARE; i++) {
      const pixel = (corner[0] + Math.floor(i / SQUARE)) * SIDE + corner[1] + (i % SQUARE);
      pixels.set([0, 0, 0], 3 * pixel);
      pixels[3 * pixel + colour - 1] = 255;
    }
  const things = squares.map(({ colour, corner: [top, left] }): Thing => {
    const centre = [(top + SQUARE / 2) / SIDE, (left + SQUARE / 2) / SIDE] as const;
    return { kind: 1, colour, centre, reach: SQUARE / 2 / SIDE };
  });
  const point = ({ colour, centre }: Thing): PackedQuestion => ({
    kind: 'point',
    prompt: `point to the ${colours[colour]} square`,
    answer: placesText([{ coordinates: centre, label: '' }]),
    request: 'answer',
  });
  const order: PackedQuestion = {
    kind: 'subtask',
    prompt: 'find them',
    answer: `the ${colours[first]} one`,
    state: [random.uniform(20)],
    request: 'subtask',
  };
  // The second square is drawn over the first. Every third pack is without its last question.
  return {
    image: async () => ({ width: SIDE, height: SIDE, pixels }),
    questions: [point(things[1]), point(things[0]), index % 3 === 0 ? null : order],
    things: [things[0], { ...things[1], reach: things[1].reach * 0.999 }],
    marked: index % 4 === 0 ? [] : [1, 0],
  };
}

export const squares: PackSource = {
  slots: 3,
  classes: { kinds: ['nothing', 'square'], colours },
  states: { count: 2, mean: [0.5], std: [0.5], min: [0], max: [1], q01: [0], q99: [1] },
  at: packOf,
  heldOut: Array.from({ length: 16 }, (_, i) => packOf(HELD_OUT + i)),
};
