import type { WorldTask } from '../../tokenizers/index.ts';
import { dimensions } from './scene.ts';
import type { TabletopWorld } from './world.ts';

/** Heights of the gripper, in metres. */
const GRASP = dimensions.object;
const HOVER = 0.1;
const CARRY = 0.12;
const RELEASE = 0.07;
/** Lower than the fingers get on a button that is all the way down, so that they push. */
const PRESS = dimensions.buttonTop - dimensions.buttonTravel + dimensions.fingerBelow - 0.006;
/** The way by which a drawer is pulled, in metres. */
const PULL = 0.06;

/** The longest way in one control step, and the largest change of it from one step to the next, in metres. */
const SPEED = 0.04;
const ACCELERATION = 0.02;
/** The largest change of the opening in one control step, in metres. */
const OPENING_SPEED = 0.03;
/** Target opening of a closed gripper: less than an object's width, so that the fingers press. */
const CLOSED = 0.02;

/** A place for the gripper to go to, and its opening. */
interface Goal {
  readonly place: readonly [number, number, number];
  readonly opening: number;
}

/**
 * The scripted demonstrator. Placing: it reaches above the named object, descends, closes, lifts, carries it to the named
 * bin and lets go. Pressing: it reaches above the named button with closed fingers, pushes down and rises. Opening: it
 * descends around the handle of the named drawer, closes, pulls it towards the camera, lets go and rises. Its next goal
 * is a function of the world's state alone, so it recovers from any disturbance; on the way it accelerates and brakes
 * evenly. It reads the state of the simulation, not the picture.
 */
export class Demonstrator {
  #velocity = [0, 0, 0];

  constructor(private readonly world: TabletopWorld) {}

  /** The action [4] for the present state of the world; called once per control step. */
  action(): Float32Array {
    const { place, opening } = nextGoals[this.world.scene.settings.task](this.world);
    const [x, y, z, width] = this.world.command();
    const [wayX, wayY, wayZ] = [place[0] - x, place[1] - y, place[2] - z];
    const across = Math.sqrt(wayX * wayX + wayY * wayY);
    const share = across > 0 ? pace(across) / across : 0;
    const wanted = [wayX * share, wayY * share, Math.sign(wayZ) * pace(Math.abs(wayZ))];
    this.#velocity = this.#velocity.map((now, i) => now + clamp(wanted[i] - now, ACCELERATION));
    const [velocityX, velocityY, velocityZ] = this.#velocity;
    return Float32Array.of(x + velocityX, y + velocityY, z + velocityZ, width + clamp(opening - width, OPENING_SPEED));
  }
}

const clamp = (value: number, limit: number) => Math.max(-limit, Math.min(limit, value));

/** The length of the next control step's way, so that slowing down by ACCELERATION at each step ends at `distance`. */
function pace(distance: number): number {
  const braking = ACCELERATION * (Math.sqrt(0.25 + (2 * distance) / ACCELERATION) - 0.5);
  return Math.min(SPEED, braking, distance);
}

const nextGoals: Readonly<Record<WorldTask, (world: TabletopWorld) => Goal>> = {
  place: placing,
  press: pressing,
  open: opening,
};

/** The distance of the gripper from a place across the table. */
function distanceTo(world: TabletopWorld, toX: number, toY: number): number {
  const [x, y] = world.state();
  return Math.sqrt((x - toX) * (x - toX) + (y - toY) * (y - toY));
}

/** The height of a funnel above a place: the nearer the gripper is to its axis, the lower it may go. */
const funnel = (bottom: number, distance: number) => Math.min(HOVER, bottom + 2.5 * Math.max(0, distance - 0.02));

/** Goes down into the funnel above a place with open fingers, and closes them at its bottom. */
function grasping(world: TabletopWorld, [toX, toY]: readonly number[], closed: number): Goal {
  const distance = distanceTo(world, toX, toY);
  const [, , z, width] = world.state();
  // Fingers that have begun to close go on as long as the thing is between them.
  const near = width < dimensions.opening - 0.01 ? 0.024 : 0.018;
  if (distance < near && z < GRASP + near) return { place: [toX, toY, GRASP], opening: closed };
  return { place: [toX, toY, funnel(GRASP, distance)], opening: dimensions.opening };
}

function placing(world: TabletopWorld): Goal {
  const { object, fixture } = world.scene;
  const [x, y, z] = world.state();
  const [binX, binY] = world.fixturePosition(fixture);

  if (world.success()) return { place: [x, y, CARRY], opening: dimensions.opening };

  if (world.holds(object)) {
    const distance = distanceTo(world, binX, binY);
    if (distance < 0.025 && z < RELEASE + 0.012) return { place: [binX, binY, RELEASE], opening: dimensions.opening };
    if (distance < 0.05) return { place: [binX, binY, RELEASE], opening: CLOSED };
    // The object moves sideways only as far as it is off the table and above the walls of the bins.
    const lifted = Math.max(0, Math.min(1, (z - 0.04) / 0.04));
    return { place: [x + (binX - x) * lifted, y + (binY - y) * lifted, CARRY], opening: CLOSED };
  }
  return grasping(world, world.objectPosition(object), CLOSED);
}

function pressing(world: TabletopWorld): Goal {
  const [x, y, , width] = world.state();
  if (world.success()) return { place: [x, y, CARRY], opening: 0 };
  const [buttonX, buttonY] = world.fixturePosition(world.scene.fixture);
  const height = width < 0.01 ? funnel(PRESS, distanceTo(world, buttonX, buttonY)) : HOVER;
  return { place: [buttonX, buttonY, height], opening: 0 };
}

function opening(world: TabletopWorld): Goal {
  const { fixture, fixtures } = world.scene;
  const [x, y, z, width] = world.state();
  if (world.success()) return { place: [x, y, width > 0.05 ? CARRY : z], opening: dimensions.opening };
  const handle = world.fixturePosition(fixture);
  if (!world.holdsHandle(fixture)) return grasping(world, handle, 0);
  return { place: [handle[0], fixtures[fixture].y - dimensions.handle.before - PULL, GRASP], opening: 0 };
}
