import type { MainModule, MjData, MjModel } from '@mujoco/mujoco';
import { InputError } from '../../engine/files/errors.ts';
import { optionalPackages } from '../../engine/files/optional-packages.ts';
import type { Image } from '../../model/data/dataset.ts';
import { Camera, IMAGE_SIZE } from './camera.ts';
import { makeScene } from './make-scene.ts';
import { GRIPPER_JOINTS, PHYSICS_STEPS, sceneToMjcf } from './mjcf.ts';
import { actionRange, dimensions, type Scene, type SceneSettings, workplace } from './scene.ts';
import { movedThing, stages, stagesReached } from './stages.ts';

/**
 * The hash of test/support/world-hash.ts, the same in every JavaScript engine. Any change to the scenes, the physics, the camera or
 * the demonstrator changes it: then the new value belongs here, and cached demonstrations are made again.
 */
export const WORLD_HASH = '0461591450a53cfa13ca1aebefd78b4e3959378854780853acc9d60b8e4f8784';

/** Control steps a second. */
export const RATE = 10;
/** Width of an action: target x, y, z of the gripper and of its opening, in metres. */
export const ACTION_DIMENSION = 4;
export const ACTION_NAMES = ['x', 'y', 'z', 'opening'];
/** Width of a state: measured x, y, z of the gripper and its opening, in metres. */
export const STATE_DIMENSION = 4;
/** The way by which an open drawer is out at least, in metres. */
const OPENED = 0.05;
/** The world's only camera. */
export const CAMERA = 'front';

export interface WorldObservation {
  readonly image: Image;
  readonly state: Float32Array;
  readonly instruction: string;
}

/** The package of the physics. */
export const MUJOCO = '@mujoco/mujoco';

let shared: Promise<MainModule> | undefined;

/** MuJoCo's WebAssembly module, loaded once for all worlds of a thread. */
function loadMujoco(): Promise<MainModule> {
  shared ??= optionalPackages(MUJOCO, 'the built-in tabletop world', () => import('@mujoco/mujoco')).then((module) =>
    module.default(),
  );
  return shared;
}

interface Episode {
  readonly scene: Scene;
  readonly model: MjModel;
  readonly data: MjData;
  readonly command: number[];
  /** Whether the camera has cast the still geoms. */
  prepared: boolean;
  firstMoved: number;
  stagesReached: number;
}

/**
 * A table with coloured objects and two coloured fixtures under a gantry with a gripper. Everything that happens is a
 * function of the seed and the actions, to the last bit, in node and in a browser.
 */
export class TabletopWorld {
  readonly #mujoco: MainModule;
  readonly #camera: Camera;
  #episode: Episode | undefined;

  private constructor(mujoco: MainModule) {
    this.#mujoco = mujoco;
    this.#camera = new Camera(mujoco);
  }

  /** Loads the physics; `reset` then begins an episode. */
  static async create(): Promise<TabletopWorld> {
    return new TabletopWorld(await loadMujoco());
  }

  /** Begins the episode of a seed: a whole number from 0 to 2^53 - 1. */
  reset(seed: number, settings?: SceneSettings): void {
    this.begin(makeScene(seed, settings));
  }

  begin(scene: Scene): void {
    this.delete();
    const model = this.#mujoco.MjModel.from_xml_string(sceneToMjcf(scene));
    const data = new this.#mujoco.MjData(model);
    const [x, y, z, opening] = scene.start;
    (data.qpos as Float64Array).set([x, y, z, opening / 2, opening / 2]);
    this.#mujoco.mj_forward(model, data);
    this.#episode = {
      scene,
      model,
      data,
      command: [...scene.start],
      prepared: false,
      firstMoved: -1,
      stagesReached: 0,
    };
  }

  /** Frees the physics' memory. */
  delete(): void {
    this.#episode?.data.delete();
    this.#episode?.model.delete();
    this.#episode = undefined;
  }

  /** One control step of 0.1 s towards an action [4]; targets are clamped to `actionRange`. */
  step(action: ArrayLike<number>): void {
    const episode = this.#running;
    const { model, data, command } = episode;
    if (action.length !== ACTION_DIMENSION) {
      throw new RangeError(
        `tabletop action of ${action.length} numbers: it needs ${ACTION_DIMENSION} (x, y, z, opening)`,
      );
    }
    for (let i = 0; i < ACTION_DIMENSION; i++) {
      if (!Number.isFinite(action[i]))
        throw new InputError(
          `the tabletop world was given ${action[i]} for ${ACTION_NAMES[i]}, dimension ${i} of an action: whatever acts in it must give finite numbers, which a policy that diverged in training does not`,
        );
      command[i] = Math.min(actionRange.high[i], Math.max(actionRange.low[i], action[i]));
    }
    const [x, y, z, opening] = command;
    (data.ctrl as Float64Array).set([x, y, z, opening / 2, opening / 2]);
    for (let i = 0; i < PHYSICS_STEPS; i++) this.#mujoco.mj_step(model, data);
    // Until it is called, the positions of bodies belong to the state before the last integration.
    this.#mujoco.mj_kinematics(model, data);
    if (episode.firstMoved < 0) episode.firstMoved = movedThing(this);
    episode.stagesReached = Math.max(episode.stagesReached, stagesReached(this));
  }

  observe(): WorldObservation {
    const episode = this.#running;
    const { model, data, scene } = episode;
    if (!episode.prepared) this.#camera.prepare(model, data, scene.look);
    episode.prepared = true;
    return {
      image: { width: IMAGE_SIZE, height: IMAGE_SIZE, pixels: this.#camera.picture(model, data) },
      state: Float32Array.from(this.state()),
      instruction: scene.instructions[scene.paraphrase],
    };
  }

  /** Measured x, y, z and opening of the gripper, in metres. */
  state(): [number, number, number, number] {
    const [x, y, z, left, right] = this.positions();
    return [x, y, z, left + right];
  }

  /** The action that the gripper follows at present; at the start of an episode, its place. */
  command(): readonly number[] {
    return this.#running.command;
  }

  /** All joint positions of the physics, copied: five of the gripper, then seven for each object. */
  positions(): Float64Array {
    return (this.#running.data.qpos as Float64Array).slice();
  }

  get scene(): Scene {
    return this.#running.scene;
  }

  /** Centre of an object, in metres. */
  objectPosition(index: number): [number, number, number] {
    const at = GRIPPER_JOINTS + 7 * index;
    const [x, y, z] = this.positions().subarray(at, at + 3);
    return [x, y, z];
  }

  /** The way that a button has been pressed down or a drawer pulled out, in metres; 0 for a bin. */
  fixtureTravel(index: number): number {
    if (this.scene.fixtures[index].noun === 'bin') return 0;
    return this.positions()[GRIPPER_JOINTS + 7 * this.scene.objects.length + index];
  }

  /** The `workplace` of a fixture now, in metres. */
  fixturePosition(index: number): [number, number, number] {
    return workplace(this.scene.fixtures[index], this.fixtureTravel(index));
  }

  /** Whether the gripper has closed on an object. */
  holds(index: number): boolean {
    return this.#holdsAt(this.objectPosition(index), dimensions.object);
  }

  /** Whether the gripper has closed on the handle of a drawer. */
  holdsHandle(index: number): boolean {
    return this.#holdsAt(this.fixturePosition(index), dimensions.handle.half);
  }

  #holdsAt(place: readonly number[], halfWidth: number): boolean {
    const [x, y, z, opening] = this.state();
    const near = (a: number, b: number, reach: number) => Math.abs(a - b) < reach;
    const between = near(x, place[0], 0.02) && near(y, place[1], 0.04) && near(z, place[2], 0.035);
    return between && opening < 2 * halfWidth + 0.003;
  }

  /** Whether an object lies in a bin, let go. */
  liesIn(object: number, bin: number): boolean {
    const [x, y, z] = this.objectPosition(object);
    const inside = (a: number, b: number) => Math.abs(a - b) < dimensions.bin;
    const { x: binX, y: binY } = this.scene.fixtures[bin];
    return inside(x, binX) && inside(y, binY) && z < dimensions.object + 0.015 && !this.holds(object);
  }

  /**
   * Whether the task is done: the named object lies in the named bin, let go; the named button is the first that was
   * pressed; or the named drawer is out by OPENED.
   */
  success(): boolean {
    const { settings, object, fixture } = this.scene;
    if (settings.task === 'place') return this.liesIn(object, fixture);
    if (settings.task === 'press') return this.rightObject();
    return this.fixtureTravel(fixture) >= OPENED;
  }

  /** The index of the first thing that the gripper lifted, pressed, or pulled by 1 cm; -1 if there is none so far. */
  get firstMoved(): number {
    return this.#running.firstMoved;
  }

  /** The number of the task's stages that were reached so far. */
  get stagesReached(): number {
    return this.#running.stagesReached;
  }

  /** Whether the first thing that the gripper moved is the named one. */
  rightObject(): boolean {
    const { settings, object, fixture } = this.scene;
    return this.firstMoved === (settings.task === 'place' ? object : fixture);
  }

  stageScore(): number {
    return this.stagesReached / stages[this.scene.settings.task].length;
  }

  get #running(): Episode {
    if (this.#episode === undefined) throw new Error('tabletop world has no episode: call reset(seed) first');
    return this.#episode;
  }
}
