import { fillTemplate, type WorldTask } from '../../tokenizers/index.ts';
import { dimensions, nameOf, type Scene } from './scene.ts';

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

/** An episode that has ended. */
interface Course extends Situation {
  readonly firstMoved: number;
  readonly stagesReached: number;
  liesIn(object: number, bin: number): boolean;
}

/** The words for an episode's end, by the number of stages that were reached; `moved` is for the wrong thing. */
const ends: Readonly<Record<WorldTask, { readonly moved: string; readonly reached: readonly string[] }>> = {
  place: {
    moved: 'lifted',
    reached: [
      'never reached {object}',
      'reached {object}, never lifted it',
      'lifted {object}, never brought it over {fixture}',
      'brought {object} over {fixture}, did not leave it there',
      'placed {object} in {fixture}',
    ],
  },
  press: {
    moved: 'pressed',
    reached: ['never came above {fixture}', 'came above {fixture}, never pressed it', 'pressed {fixture}'],
  },
  open: {
    moved: 'pulled',
    reached: [
      'never came to the handle of {fixture}',
      'came to the handle of {fixture}, never grasped it',
      'grasped the handle of {fixture}, did not pull it open',
      'opened {fixture}',
    ],
  },
};

/** The outcome of an episode in words: "placed the red cube in the blue bin", "lifted the green ball instead". */
export function outcomeOf(world: Course): string {
  const { objects, fixtures, object, fixture, settings } = world.scene;
  const { moved, reached } = ends[settings.task];
  const placing = settings.task === 'place';
  const named = { object: placing ? nameOf(objects[object]) : undefined, fixture: nameOf(fixtures[fixture]) };
  if (world.success()) return fillTemplate(reached[reached.length - 1], named);
  const bin = placing ? fixtures.findIndex((_, i) => world.liesIn(object, i)) : -1;
  if (bin >= 0) return `placed the ${named.object} in the ${nameOf(fixtures[bin])} instead`;
  const { firstMoved, stagesReached } = world;
  const other = firstMoved >= 0 && firstMoved !== (placing ? object : fixture);
  // The gripper may have gone on to the named object.
  if (other && !(placing && stagesReached > 1))
    return `${moved} the ${nameOf((placing ? objects : fixtures)[firstMoved])} instead`;
  return fillTemplate(reached[Math.min(stagesReached, reached.length - 2)], named);
}
