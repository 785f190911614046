import type { WorldTask } from '../../tokenizers/index.ts';
import { dimensions, type Scene } from './scene.ts';

/** The part of a world's state that stages depend on. */
interface Situation {
  readonly scene: Scene;
  state(): readonly number[];
  objectPosition(index: number): readonly number[];
  fixturePosition(index: number): readonly number[];
  fixtureTravel(index: number): number;
  holds(index: number): boolean;
  holdsHandle(index: number): boolean;
  success(): boolean;
}

interface Stage {
  readonly name: string;
  /** Whether the world is in this stage, or past it, now. */
  reached(world: Situation): boolean;
}

/** Whether the gripper is within `reach` metres of a place across the table, and below `height`. */
function gripperAt(world: Situation, [toX, toY]: readonly number[], reach: number, height: number): boolean {
  const [x, y, z] = world.state();
  return (x - toX) * (x - toX) + (y - toY) * (y - toY) < reach * reach && z < height;
}

const namedObject = (world: Situation) => world.objectPosition(world.scene.object);
const namedFixture = (world: Situation) => world.fixturePosition(world.scene.fixture);
const done = (name: string): Stage => ({ name, reached: (world) => world.success() });

/** The stages of each task in order; the last is success. */
export const stages: Readonly<Record<WorldTask, readonly Stage[]>> = {
  place: [
    { name: 'reached the object', reached: (world) => gripperAt(world, namedObject(world), 0.025, 0.06) },
    { name: 'lifted it', reached: (world) => isLifted(world, world.scene.object) },
    {
      name: 'over the bin',
      reached: (world) =>
        isLifted(world, world.scene.object) && gripperAt(world, namedFixture(world), dimensions.bin, Infinity),
    },
    done('placed'),
  ],
  press: [
    { name: 'above the button', reached: (world) => gripperAt(world, namedFixture(world), 0.025, 0.12) },
    done('pressed'),
  ],
  open: [
    { name: 'at the handle', reached: (world) => gripperAt(world, namedFixture(world), 0.025, 0.06) },
    { name: 'grasped', reached: (world) => world.holdsHandle(world.scene.fixture) },
    done('opened'),
  ],
};

/** The number of stages that are reached now: later ones include the earlier ones. */
export function stagesReached(world: Situation): number {
  return stages[world.scene.settings.task].findLastIndex(({ reached }) => reached(world)) + 1;
}

/** Whether the gripper has lifted an object. */
function isLifted(world: Situation, object: number): boolean {
  return world.objectPosition(object)[2] > dimensions.object + 0.02 && world.holds(object);
}

/** Whether the gripper presses a button down, by 80 % of its way at least. */
function isPressed(world: Situation, fixture: number): boolean {
  const pressed = world.fixtureTravel(fixture) >= 0.8 * dimensions.buttonTravel;
  return pressed && gripperAt(world, world.fixturePosition(fixture), 0.06, 0.06);
}

/** The index of a thing that the gripper has moved as the task demands of the named one; -1 if there is none now. */
export function movedThing(world: Situation): number {
  const { settings, objects, fixtures } = world.scene;
  if (settings.task === 'place') return objects.findIndex((_, i) => isLifted(world, i));
  if (settings.task === 'press') return fixtures.findIndex((_, i) => isPressed(world, i));
  return fixtures.findIndex((_, i) => world.fixtureTravel(i) > 0.01);
}
