/** Conversion between the numbers of robots, in their units, and the model's: normalised, in the model's dimensions. */
import { InputError, quote } from '../../engine/files/errors.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import {
  absoluteActions,
  type DatasetStatistics,
  fromSlots,
  normalisers,
  relativeActions,
  type SlotMap,
  slotMask,
  toSlots,
} from '../data/index.ts';

export interface RobotSettings {
  /** null for data of several robots, which have statistics of their own. */
  readonly statistics: DatasetStatistics | null;
  /** The action dimensions of the one robot that are relative to its state; absent if none is. */
  readonly relative?: readonly boolean[];
  /** The robots of a model that was trained on several, by name. */
  readonly robots?: Readonly<Record<string, { readonly slots: SlotMap; readonly statistics: DatasetStatistics }>>;
}

/** The part of an observation that normalisation of its actions depends on, in the robot's units. */
export interface RobotState {
  readonly state: ArrayLike<number> | null;
  /** Name of the robot, if the model was trained on several. */
  readonly robot?: string;
}

/** The conversion of one robot's numbers to the model's. */
interface Robot {
  readonly normalise: ReturnType<typeof normalisers>;
  /** null if its dimensions are the model's. */
  readonly slots: SlotMap | null;
  /** The action dimensions that are relative to the state; null if none is. */
  readonly relative: readonly boolean[] | null;
}

export class RobotNumbers {
  /** Robots by name; the robot of a model that was trained on one robot has no name. */
  private readonly robots: ReadonlyMap<string | undefined, Robot>;

  constructor({ statistics, robots = {}, relative = [] }: RobotSettings) {
    const own: [string | undefined, Robot][] = Object.entries(robots).map(([name, { slots, statistics }]) => [
      name,
      {
        ...{ normalise: normalisers(statistics), slots },
        relative: someOrNull(slots.actions.map(({ relative }) => relative)),
      },
    ]);
    if (statistics)
      own.push([undefined, { normalise: normalisers(statistics), slots: null, relative: someOrNull(relative) }]);
    // The only robot needs no name.
    if (own.length === 1) own.push([undefined, own[0][1]]);
    this.robots = new Map(own);
  }

  /**
   * A chunk [rows, dimensions of the robot] in the robot's units -> [rows, dimensions of the model], normalised. Dimensions
   * that are marked relative are relative to the observed state; dimensions that the robot lacks are zero.
   *
   * @throws InputError if actions are relative and there is no state
   */
  normaliseActions(actions: Float32Array, { robot, state }: RobotState): Float32Array {
    const { normalise, slots, relative } = this.robot(robot);
    const own = normalise.actions.normalise(
      relative ? relativeActions(actions, stateOf(robot, state), relative) : actions,
    );
    return slots ? toSlots(own, slots.actions, slots.width) : own;
  }

  /** The inverse of `normaliseActions`. */
  denormaliseActions(actions: Float32Array, { robot, state }: RobotState): Float32Array {
    const { normalise, relative } = this.robot(robot);
    const own = normalise.actions.denormalise(this.ownDimensions(actions, robot));
    return relative ? absoluteActions(own, stateOf(robot, state), relative) : own;
  }

  /** A normalised chunk [rows, dimensions of the model] -> [rows, dimensions of the robot], which action tokens encode. */
  ownDimensions(data: Float32Array, robot?: string): Float32Array {
    const { slots } = this.robot(robot);
    return slots ? fromSlots(data, slots.actions, slots.width) : data;
  }

  /** [dimensions of the model]: 1 for each dimension that the robot has; null if it has all. */
  realDimensions(robot?: string): Uint8Array | null {
    const { slots } = this.robot(robot);
    return slots && slotMask(slots.actions, slots.width);
  }

  protected robot(name: string | undefined): Robot {
    const found = this.robots.get(name);
    if (found) return found;
    const known = [...this.robots.keys()].filter((own) => own !== undefined);
    throw new InputError(
      known.length > 0
        ? `this model was trained on the robots ${known.join(', ')}: name one of them, not ${quote(name)}`
        : `this model was trained on one robot, and none is named ${quote(name)}`,
    );
  }

  /** The states of observations; zeros for questions and, if they are `optional`, for robots without. */
  protected states(
    observations: readonly (RobotState & { readonly request?: string })[],
    { stateDimension }: Pick<ModelConfiguration, 'stateDimension'>,
    optional = false,
  ): Float32Array {
    const states = new Float32Array(observations.length * stateDimension);
    observations.forEach((observation, sample) => {
      if (observation.request === 'answer') return;
      const { normalise, slots } = this.robot(observation.robot);
      if (optional && !normalise.states) return;
      if (!observation.state || !normalise.states)
        throw new InputError('this model needs a state, and the observation has none');
      const own = normalise.states.normalise(Float32Array.from(observation.state));
      states.set(slots ? toSlots(own, slots.state, slots.width) : own, sample * stateDimension);
    });
    return states;
  }
}

const someOrNull = (flags: readonly boolean[]) => (flags.includes(true) ? flags : null);

function stateOf(robot: string | undefined, state: RobotState['state']): ArrayLike<number> {
  if (state) return state;
  const name = robot === undefined ? 'this robot' : `robot ${quote(robot)}`;
  throw new InputError(`${name}: its actions are relative to its state, and the observation has no state`);
}
