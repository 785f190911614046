import { dimensions } from './scene.ts';
import type { TabletopWorld } from './world.ts';

/** Heights of the gripper, in metres. */
const GRASP = dimensions.object;
const HOVER = 0.1;
const CARRY = 0.12;
const RELEASE = 0.07;

/** The longest way in one control step, and the largest change of it from one step to the next, in metres. */
const SPEED = 0.04;
const ACCELERATION = 0.014;
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
 * The scripted demonstrator: it reaches above the named object, descends, closes, lifts, carries it to the named bin and
 * lets go. Its next goal is a function of the world's state alone, so it recovers from any disturbance; on the way it
 * accelerates and brakes evenly. It reads the state of the simulation, not the picture.
 */
export class Demonstrator {
  readonly #world: TabletopWorld;
  #velocity = [0, 0, 0];

  constructor(world: TabletopWorld) {
    this.#world = world;
  }

  /** The action [4] for the present state of the world; called once per control step. */
  action(): Float32Array {
    const { place, opening } = nextGoal(this.#world);
    const [x, y, z, width] = this.#world.command();
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

function nextGoal(world: TabletopWorld): Goal {
  const { object, fixture, fixtures } = world.scene;
  const [x, y, z] = world.state();
  const [objectX, objectY] = world.objectPosition(object);
  const { x: binX, y: binY } = fixtures[fixture];
  const away = (toX: number, toY: number) => Math.sqrt((x - toX) * (x - toX) + (y - toY) * (y - toY));
  const open = dimensions.opening;

  if (world.success()) return { place: [x, y, CARRY], opening: open };

  if (world.holds(object)) {
    const distance = away(binX, binY);
    if (distance < 0.015 && z < RELEASE + 0.012) return { place: [binX, binY, RELEASE], opening: open };
    if (distance < 0.05) return { place: [binX, binY, RELEASE], opening: CLOSED };
    // The object moves sideways only as far as it is off the table and above the walls of the bins.
    const lifted = Math.max(0, Math.min(1, (z - 0.04) / 0.04));
    return { place: [x + (binX - x) * lifted, y + (binY - y) * lifted, CARRY], opening: CLOSED };
  }

  // A funnel above the object: the nearer the gripper is to its axis, the lower it may go.
  const distance = away(objectX, objectY);
  if (distance < 0.012 && z < GRASP + 0.012) return { place: [objectX, objectY, GRASP], opening: CLOSED };
  const height = Math.min(HOVER, GRASP + 2.5 * Math.max(0, distance - 0.01));
  return { place: [objectX, objectY, height], opening: open };
}
