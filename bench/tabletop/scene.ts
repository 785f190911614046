import { randomStream, streams } from '../../engine/random.ts';

/** Colours of objects and bins, as red, green and blue from 0 to 1. */
export const palette = {
  red: [0.85, 0.1, 0.1],
  green: [0.1, 0.62, 0.16],
  blue: [0.12, 0.25, 0.9],
  yellow: [0.95, 0.8, 0.08],
} as const;

export type Colour = keyof typeof palette;
export type Shape = 'cube' | 'ball' | 'cylinder';

export const colours = Object.keys(palette) as Colour[];
export const shapes: readonly Shape[] = ['cube', 'ball', 'cylinder'];

/** Paraphrases of the task. */
const instructionTemplates = [
  'put the {object} in the {bin} bin',
  'place the {object} into the {bin} bin',
  'move the {object} to the {bin} bin',
] as const;

/** Lengths in metres: x to the right of the picture, y away from the camera, z up from the table's top. */
export const dimensions = {
  /** Half the width and height of every object. */
  object: 0.025,
  /** Half the inner width of a bin. */
  bin: 0.058,
  binWall: 0.035,
  binThickness: 0.005,
  /** Largest opening of the gripper. */
  opening: 0.11,
  fingerThickness: 0.008,
  /** The distance from the gripper's position, between the fingers, down to their tips. */
  fingerBelow: 0.015,
} as const;

/** Lowest and highest value of each action dimension: x, y, z of the gripper and its opening, in metres. */
export const actionRange = {
  low: [-0.2, -0.2, 0.015, 0],
  high: [0.2, 0.2, 0.25, dimensions.opening],
} as const;

interface SceneObject {
  readonly shape: Shape;
  readonly colour: Colour;
  readonly x: number;
  readonly y: number;
}

interface SceneBin {
  readonly colour: Colour;
  readonly x: number;
  readonly y: number;
}

/** Everything that a seed decides about an episode. */
export interface Scene {
  readonly objects: readonly SceneObject[];
  readonly bins: readonly SceneBin[];
  /** Index of the object that the instruction names. */
  readonly object: number;
  /** Index of the bin that the instruction names. */
  readonly bin: number;
  /** Paraphrases of the instruction, one for each template. */
  readonly instructions: readonly string[];
  /** Index of the paraphrase that the robot gets. */
  readonly paraphrase: number;
  /** The gripper at the beginning: x, y, z, opening. */
  readonly start: readonly [number, number, number, number];
}

/** The purpose of an episode; no seed serves both. */
type Purpose = 'training' | 'evaluation';

/** Purposes of random numbers within the world's stream: the `step` of the counter. */
export const draws = { scene: 0, disturbance: 1, training: 2, evaluation: 3 } as const;

/** Seed of episode `index` of a run's `seed`: below 2^31 for training, from 2^31 on for evaluation. */
export function episodeSeed(purpose: Purpose, seed: number, index: number): number {
  const half = randomStream(seed, draws[purpose], streams.world).uint32(index) >>> 1;
  return purpose === 'evaluation' ? half + 0x80000000 : half;
}

/**
 * The scene of an episode: two or three objects of different colours in the front half of the table, two bins of
 * different colours in the back half, and an instruction that names one of each. Every choice is uniform.
 */
export function makeScene(seed: number): Scene {
  const random = randomStream(seed, draws.scene, streams.world);
  let drawn = 0;
  const between = (low: number, high: number) => low + (high - low) * random.uniform(drawn++);
  const integer = (below: number) => random.integer(drawn++, below);
  const some = <T>(from: readonly T[], count: number): T[] => {
    const rest = [...from];
    return Array.from({ length: count }, () => rest.splice(integer(rest.length), 1)[0]);
  };

  const count = 2 + integer(2);
  const slots = some([-0.13, 0, 0.13], count);
  const objects = some(colours, count).map((colour, i) => ({
    shape: shapes[integer(shapes.length)],
    colour,
    x: slots[i] + between(-0.018, 0.018),
    y: between(-0.16, -0.06),
  }));
  const bins = some(colours, 2).map((colour, i) => ({
    colour,
    x: (i === 0 ? -1 : 1) * between(0.07, 0.14),
    y: between(0.07, 0.14),
  }));
  const object = integer(count);
  const bin = integer(2);
  const named = `${objects[object].colour} ${objects[object].shape}`;
  return {
    objects,
    bins,
    object,
    bin,
    instructions: instructionTemplates.map((words) =>
      words.replace('{object}', named).replace('{bin}', bins[bin].colour),
    ),
    paraphrase: integer(instructionTemplates.length),
    start: [between(-0.12, 0.12), between(-0.1, 0.07), between(0.12, 0.18), dimensions.opening],
  };
}
