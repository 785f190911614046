import { fillTemplate, type WorldTask } from '../../tokenizers/index.ts';
import { dimensions, nameOf, type Scene } from './scene.ts';

/** The part of a world that stages and outcomes depend on. */
interface Situation {
  readonly scene: Scene;
  readonly firstMoved: number;
  readonly stagesReached: number;
  state(): readonly number[];
  objectPosition(index: number): readonly number[];
  fixturePosition(index: number): readonly number[];
  fixtureTravel(index: number): number;
  holds(index: number): boolean;
  holdsHandle(index: number): boolean;
  liesIn(object: number, bin: number): boolean;
  success(): boolean;
}

interface Stage {
  readonly name: string;
  /** The outcome of an episode that ended before this stage, in words. */
  readonly missed: string;
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
const stage = (name: string, missed: string, reached: Stage['reached']): Stage => ({ name, missed, reached });
const done = (world: Situation) => world.success();

/** The stages of each task in order; the last is success. */
export const stages: Readonly<Record<WorldTask, readonly Stage[]>> = {
  place: [
    stage('reached the object', 'never reached {object}', (world) => gripperAt(world, namedObject(world), 0.025, 0.06)),
    stage('lifted it', 'reached {object}, never lifted it', (world) => isLifted(world, world.scene.object)),
    stage(
      'over the bin',
      'lifted {object}, never brought it over {fixture}',
      (world) => isLifted(world, world.scene.object) && gripperAt(world, namedFixture(world), dimensions.bin, Infinity),
    ),
    stage('placed', 'brought {object} over {fixture}, did not leave it there', done),
  ],
  press: [
    stage('above the button', 'never came above {fixture}', (world) =>
      gripperAt(world, namedFixture(world), 0.025, 0.12),
    ),
    stage('pressed', 'came above {fixture}, never pressed it', done),
  ],
  open: [
    stage('at the handle', 'never came to the handle of {fixture}', (world) =>
      gripperAt(world, namedFixture(world), 0.025, 0.06),
    ),
    stage('grasped', 'came to the handle of {fixture}, never grasped it', (world) =>
      world.holdsHandle(world.scene.fixture),
    ),
    stage('opened', 'grasped the handle of {fixture}, did not pull it open', done),
  ],
};

/** The number of stages that are reached now: later ones include the earlier ones. */
export function stagesReached(world: Situation): number {
  return stages[world.scene.settings.task].findLastIndex(({ reached }) => reached(world)) + 1;
}

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

/** The words for success, and for having moved the wrong thing. */
const words: Readonly<Record<WorldTask, { readonly done: string; readonly moved: string }>> = {
  place: { done: 'placed {object} in {fixture}', moved: 'lifted' },
  press: { done: 'pressed {fixture}', moved: 'pressed' },
  open: { done: 'opened {fixture}', moved: 'pulled' },
};

/** The outcome of an episode in words: "placed the red cube in the blue bin", "lifted the green ball instead". */
export function outcomeOf(world: Situation): string {
  const { objects, fixtures, object, fixture, settings } = world.scene;
  const { done, moved } = words[settings.task];
  const placing = settings.task === 'place';
  const named = { object: placing ? nameOf(objects[object]) : undefined, fixture: nameOf(fixtures[fixture]) };
  if (world.success()) return fillTemplate(done, named);
  const bin = placing ? fixtures.findIndex((_, i) => world.liesIn(object, i)) : -1;
  if (bin >= 0) return `placed the ${named.object} in the ${nameOf(fixtures[bin])} instead`;
  const { firstMoved, stagesReached } = world;
  const other = firstMoved >= 0 && firstMoved !== (placing ? object : fixture);
  // The gripper may have gone on to the named object.
  if (other && !(placing && stagesReached > 1))
    return `${moved} the ${nameOf((placing ? objects : fixtures)[firstMoved])} instead`;
  const own = stages[settings.task];
  return fillTemplate(own[Math.min(stagesReached, own.length - 1)].missed, named);
}
