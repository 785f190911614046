/** Single pictures of disturbed demonstrations with what is true of them, which questions are made from. */
import { randomStream, streams } from '../../engine/random.ts';
import type { Image } from '../../model/data/dataset.ts';
import { IMAGE_SIZE, project } from './camera.ts';
import { Demonstrator } from './demonstrator.ts';
import { disturbance } from './disturbance.ts';
import { MAXIMUM_STEPS } from './episode-recorder.ts';
import { makeScene } from './make-scene.ts';
import { restingHeight } from './mjcf.ts';
import { draws, episodeSeed, nameOf, type SceneSettings, workplace } from './scene.ts';
import type { TabletopWorld } from './world.ts';

/** The facts of a scene at one moment. */
export interface Truth {
  readonly seed: number;
  readonly settings: SceneSettings;
  /** Index of the object in the gripper; -1 for none. */
  readonly held: number;
  /** Measured x, y, z and opening of the gripper, in metres. */
  readonly state: readonly number[];
  /** [down, across] of every object, then of every fixture, as shares of the picture. */
  readonly places: readonly (readonly [number, number])[];
}

/** A picture of a scene at one moment, with what is true of it. */
export interface Frame extends Truth {
  /** [64, 64, 3] */
  readonly pixels: Uint8Array;
}

export const pictureOf =
  ({ pixels }: Frame) =>
  async (): Promise<Image> => ({ width: IMAGE_SIZE, height: IMAGE_SIZE, pixels });

/** Root mean square of the pushes against the gripper, in metres: frames show more than the demonstrator's own ways. */
const DISTURBANCE = 0.012;
/** Frames are taken from the first control steps of an episode, in which most demonstrations end. */
const LATEST = 28;

/** The scenes that frames are taken from. */
export interface FrameSettings {
  readonly seed: number;
  /** Numbers of the first scene among the seed's training scenes, and of scenes. */
  readonly from: number;
  readonly scenes: number;
  /** The most frames of an episode. */
  readonly each: number;
  /** Kinds of scenes, which take turns. */
  readonly kinds: readonly SceneSettings[];
}

/** The frames of scene number `index` of these settings. */
export function framesOf(world: TabletopWorld, { seed, from, each, kinds }: FrameSettings, index: number): Frame[] {
  return recordFrames(world, episodeSeed('training', seed, from + index), kinds[index % kinds.length], each);
}

/** At most `count` frames of an episode: its beginning, and steps drawn from the rest. */
export function recordFrames(world: TabletopWorld, seed: number, settings: SceneSettings, count: number): Frame[] {
  world.reset(seed, settings);
  const random = randomStream(seed, draws.frames, streams.world);
  const chosen = new Set([0, ...Array.from({ length: count - 1 }, (_, i) => 1 + random.integer(i, LATEST))]);
  const last = Math.min(MAXIMUM_STEPS, Math.max(...chosen));
  const demonstrator = new Demonstrator(world);
  const pushed = disturbance(seed, DISTURBANCE);
  const frames: Frame[] = [];
  for (let step = 0; ; step++) {
    if (chosen.has(step)) frames.push(frameOf(world, seed, settings));
    if (step === last) return frames;
    world.step(pushed(demonstrator.action(), step));
  }
}

function frameOf(world: TabletopWorld, seed: number, settings: SceneSettings): Frame {
  const { objects, fixtures, look } = world.scene;
  const positions = [
    ...objects.map((_, i) => world.objectPosition(i)),
    ...fixtures.map((_, i) => world.fixturePosition(i)),
  ];
  return {
    seed,
    settings,
    held: objects.findIndex((_, i) => world.holds(i)),
    state: world.state(),
    places: positions.map((position) => project(position, look.camera)),
    pixels: world.observe().image.pixels,
  };
}

/** The beginning of an episode, which needs no physics. */
export function beginningOf(seed: number, settings: SceneSettings): Truth {
  const { objects, fixtures, look, start } = makeScene(seed, settings);
  const positions = [
    ...objects.map(({ x, y, noun }) => [x, y, restingHeight(noun)] as const),
    ...fixtures.map((fixture) => workplace(fixture, 0)),
  ];
  return { seed, settings, held: -1, state: start, places: positions.map((own) => project(own, look.camera)) };
}

/** An object or a fixture that a frame shows. */
export type SeenThing = ReturnType<typeof thingsOf>['objects'][number];

/** The objects and the fixtures of a frame that are in the picture, each from left to right. */
export function thingsOf({ seed, settings, places }: Truth) {
  const scene = makeScene(seed, settings);
  const seen = [...scene.objects, ...scene.fixtures]
    .map((thing, index) => ({
      ...{ name: nameOf(thing), colour: thing.colour, noun: thing.noun },
      // The number among the scene's objects, and behind them its fixtures.
      ...{ index, isObject: index < scene.objects.length, place: places[index] },
    }))
    .filter(({ place }) => place.every((share) => share >= 0 && share <= 1))
    .sort((a, b) => a.place[1] - b.place[1]);
  return { objects: seen.filter(({ isObject }) => isObject), fixtures: seen.filter(({ isObject }) => !isObject) };
}
