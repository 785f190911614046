import { randomStream, streams } from '../../engine/random.ts';
import { type WorldTask, worldLanguage } from '../../tokenizers/index.ts';
import type { Look } from './look.ts';

/** Colours of objects and fixtures, as red, green and blue from 0 to 1. */
export const palette = {
  red: [0.85, 0.1, 0.1],
  green: [0.1, 0.62, 0.16],
  blue: [0.12, 0.25, 0.9],
  yellow: [0.95, 0.8, 0.08],
  purple: [0.55, 0.16, 0.68],
  orange: [0.96, 0.46, 0.06],
  white: [0.96, 0.96, 0.96],
  black: [0.07, 0.07, 0.08],
} as const satisfies Record<(typeof worldLanguage.colours)[number], readonly number[]>;

export type Colour = keyof typeof palette;
export type Shape = (typeof worldLanguage.objects)[number];
export type FixtureKind = (typeof worldLanguage.fixtures)[number];

export const colours = Object.keys(palette) as Colour[];
export const shapes: readonly Shape[] = worldLanguage.objects;

/** Colour-shape pairs that no training scene has; the simple world could have the first three. */
export const heldOutPairs = ['green ball', 'yellow cube', 'blue cylinder', 'purple block', 'orange cross'] as const;

export const isHeldOut = (name: string) => heldOutPairs.some((pair) => pair === name);

/** The fixtures that a task is about. */
export const fixtureOf: Readonly<Record<WorldTask, FixtureKind>> = { place: 'bin', press: 'button', open: 'drawer' };
export const tasks = Object.keys(fixtureOf) as WorldTask[];

/** Fixed sets of scenes, beside the simple world's. Each but `rich` changes one thing of the simple world, to what no training shows. */
export const variations = {
  simple: 'two or three objects of four colours and three shapes, and two fixtures; the same table, light and camera',
  rich: 'up to five objects of eight colours and five shapes, synonyms, and tables, floors, light and cameras that vary: the scenes of pretraining',
  pairs: 'the named object has a colour and a shape that no training scene has together',
  words: 'instructions of forms that no training scene has',
  distractors: 'five objects, one of them of the colour of the named object, one of its shape',
  table: 'tables of other colours',
  background: 'table and floor with checks',
  light: 'light from the far left or right',
  camera: 'the camera moved by 8 to 10 cm',
  masked: 'table and floor in one grey',
} as const;
export type Variation = keyof typeof variations;

export interface SceneSettings {
  readonly task: WorldTask;
  readonly variation: Variation;
}

export const simplePlacing: SceneSettings = { task: 'place', variation: 'simple' };

/** Lengths in metres: x to the right of the picture, y away from the camera, z up from the table's top. */
export const dimensions = {
  /** Half the width of every object, and the height of its centre at the most. */
  object: 0.025,
  /** Half the inner width of a bin. */
  bin: 0.058,
  binWall: 0.035,
  binThickness: 0.005,
  /** The height of a button's top, and the way that it can be pressed down. */
  buttonTop: 0.028,
  buttonTravel: 0.01,
  /** The way that a drawer can be pulled out. */
  drawerTravel: 0.08,
  /** A drawer's handle: half its width, and the distance of its middle from the drawer's, towards the camera. */
  handle: { half: 0.012, before: 0.08 },
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

/** A coloured thing on the table, and its place in metres. */
interface Thing<Noun> {
  readonly noun: Noun;
  readonly colour: Colour;
  readonly x: number;
  readonly y: number;
}
export type SceneObject = Thing<Shape>;
/** A thing that stays where it is: a bin, a button to be pressed or a drawer to be opened. */
export type SceneFixture = Thing<FixtureKind>;

/** Everything that a seed and its settings decide about an episode. */
export interface Scene {
  readonly settings: SceneSettings;
  readonly objects: readonly SceneObject[];
  /** Two of one kind, the left one first. */
  readonly fixtures: readonly SceneFixture[];
  /** Index of the object that the instruction names; -1 if it names none. */
  readonly object: number;
  /** Index of the fixture that the instruction names. */
  readonly fixture: number;
  /** The forms of the instruction: templates, filled with the usual words or with synonyms. */
  readonly forms: readonly { readonly template: string; readonly synonyms: boolean }[];
  /** Paraphrases of the instruction, one for each form. */
  readonly instructions: readonly string[];
  /** Index of the paraphrase that the robot gets. */
  readonly paraphrase: number;
  /** The gripper at the beginning: x, y, z, opening. */
  readonly start: readonly [number, number, number, number];
  readonly look: Look;
}

/** Purposes of random numbers within the world's stream: the `step` of the counter. */
export const draws = {
  scene: 0,
  disturbance: 1,
  training: 2,
  evaluation: 3,
  look: 4,
  frames: 5,
  questions: 6,
} as const;

/** Seed of episode `index` of a run's `seed`: below 2^31 for training, from 2^31 on for evaluation, so that none serves both. */
export function episodeSeed(purpose: 'training' | 'evaluation', seed: number, index: number): number {
  const half = randomStream(seed, draws[purpose], streams.world).uint32(index) >>> 1;
  return purpose === 'evaluation' ? half + 0x80000000 : half;
}

/** "red cube", "blue bin" */
export const nameOf = ({ colour, noun }: SceneObject | SceneFixture) => `${colour} ${noun}`;

/**
 * Where the gripper does its work at a fixture, in metres: a bin's floor, a button's top, a drawer's handle; `travel` is the way that
 * the button has been pressed down or the drawer pulled out.
 */
export function workplace({ noun, x, y }: SceneFixture, travel: number): [number, number, number] {
  if (noun === 'bin') return [x, y, 0];
  if (noun === 'button') return [x, y, dimensions.buttonTop - travel];
  return [x, y - dimensions.handle.before - travel, dimensions.object];
}
