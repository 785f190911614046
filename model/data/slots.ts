import { InputError, quote } from '../../engine/files/errors.ts';
import { nearest } from '../../engine/files/nearest.ts';
import type { Dataset, Slot, SlotMap } from './dataset.ts';

/** The number of slots of the public pi0 models. */
const SLOT_WIDTH = 32;

const slot = (name: string, place: number, kind: Slot['kind'], relative = false): Slot => ({
  name,
  slot: place,
  kind,
  relative: relative && kind !== 'gripper',
});

/** Lists the slots of an arm of `joints` joints and a gripper, from slot `first` on. */
const arm = (prefix: string, first: number, joints: number, relative = true): Slot[] => [
  ...Array.from({ length: joints }, (_, i) => slot(`${prefix}joint ${i + 1}`, first + i, 'joint', relative)),
  slot(`${prefix}gripper`, first + joints, 'gripper'),
];
const pose = (kinds: readonly string[]): Slot[] =>
  kinds.map((name, i) => slot(name, i, i < 3 ? 'position' : i < 6 ? 'rotation' : 'gripper'));

const single = arm('', 0, 6);
const franka = arm('', 0, 7);
const dual = [...arm('left ', 0, 6), ...arm('right ', 7, 6)];
const base = (count: number) =>
  ['x', 'y', 'turn'].slice(0, count).map((name, i) => slot(`base ${name}`, 14 + i, 'base'));
const movedPose = pose(['dx', 'dy', 'dz', 'droll', 'dpitch', 'dyaw', 'gripper']);
const ownPose = pose(['x', 'y', 'z', 'roll', 'pitch', 'yaw']);

const velocities = franka.map(({ name, slot: place, kind }) =>
  kind === 'gripper' ? slot(name, place, kind) : slot(`${name} velocity`, place, 'joint velocity'),
);

const robot = (name: string, actions: readonly Slot[], state = actions): SlotMap => ({
  ...{ robot: name, width: SLOT_WIDTH, actions, state },
});

/**
 * The slot maps of openpi's robots (docs/norm_stats.md): slots 0 to 5 are the left arm, 6 its gripper, 7 to 12 the
 * right arm, 13 its gripper, 14 and following the base; an arm of seven joints takes 0 to 6, and 7 for its gripper.
 * Actions that are differences already are not made relative.
 */
export const slotMaps: readonly SlotMap[] = [
  robot('ur5e', single),
  robot('ur5e_dual', dual),
  robot('franka', franka),
  robot('trossen', dual),
  robot('trossen_mobile', [...dual, ...base(2)], dual),
  robot('arx', dual),
  robot('arx_mobile', [...dual, ...base(2)], dual),
  robot('fibocom_mobile', [...dual, ...base(3)], dual),
  robot('droid', velocities, franka),
  robot('libero', movedPose, [...ownPose, slot('finger 1', 6, 'gripper'), slot('finger 2', 7, 'gripper')]),
  robot('bridge', movedPose, [...ownPose, slot('gripper', 6, 'gripper')]),
];

/** Finds a slot map by its robot's name. @throws InputError if there is none; the message lists those that exist */
export function slotMapNamed(name: string): SlotMap {
  const found = slotMaps.find((map) => map.robot === name);
  const robots = slotMaps.map((map) => map.robot);
  if (!found) throw new InputError(`no slot map of robot ${quote(name)}; ${nearest(name, robots)}`);
  return found;
}

/** Puts every dimension in the slot of its own number, none of them relative, for robots that share nothing. */
export function ownSlotMap(
  {
    name,
    actionDimension,
    stateDimension,
    actionNames,
  }: Pick<Dataset, 'name' | 'actionDimension' | 'stateDimension' | 'actionNames'>,
  width = Math.max(actionDimension, stateDimension),
): SlotMap {
  const slots = (what: string, count: number, names?: readonly string[]) =>
    Array.from({ length: count }, (_, i) => {
      const own = names?.[i] ?? `${what} ${i}`;
      return slot(own, i, /grip/i.test(own) ? 'gripper' : 'other');
    });
  return {
    robot: name,
    width,
    actions: slots('action', actionDimension, actionNames),
    state: slots('state', stateDimension),
  };
}

/** @throws InputError if the map has other dimensions than the data set, a slot twice, or a slot outside its width */
export function checkSlotMap(
  { robot: own, width, actions, state }: SlotMap,
  dataset: Pick<Dataset, 'name' | 'actionDimension' | 'stateDimension'>,
): void {
  for (const [what, slots, dimension] of [
    ['action', actions, dataset.actionDimension],
    ['state', state, dataset.stateDimension],
  ] as const) {
    const fail = (complaint: string) => new InputError(`slot map "${own}": ${complaint}`);
    if (slots.length !== dimension && dimension !== 0) {
      throw fail(`${slots.length} ${what} slots, data set "${dataset.name}" has ${dimension} ${what} dimensions`);
    }
    const seen = new Set<number>();
    for (const { name, slot: place, relative, kind } of slots) {
      if (!Number.isInteger(place) || place < 0 || place >= width || seen.has(place))
        throw fail(`${what} "${name}" has slot ${place}: each has one of its own from 0 to ${width - 1}`);
      if (relative && kind === 'gripper')
        throw fail(`${what} "${name}" is a gripper and relative: grippers stay absolute`);
      seen.add(place);
    }
  }
  const loose = actions.findIndex(({ relative }, i) => relative && i >= state.length);
  if (loose >= 0) throw new InputError(`slot map "${own}": action "${actions[loose].name}" is relative to no state`);
}

/** Spreads rows [rows, slots.length] to [rows, width], with zeros elsewhere. */
export function toSlots(values: Float32Array, slots: readonly Slot[], width: number): Float32Array {
  const out = new Float32Array((values.length / slots.length) * width);
  for (const [i, value] of values.entries())
    out[Math.floor(i / slots.length) * width + slots[i % slots.length].slot] = value;
  return out;
}

/** The inverse of `toSlots`. */
export function fromSlots(values: Float32Array, slots: readonly Slot[], width: number): Float32Array {
  const rows = values.length / width;
  return Float32Array.from(
    { length: rows * slots.length },
    (_, i) => values[Math.floor(i / slots.length) * width + slots[i % slots.length].slot],
  );
}

/** Makes a mask [width]: 1 for a dimension of the robot, 0 for padding, which must carry no loss. */
export function slotMask(slots: readonly Slot[], width: number): Uint8Array {
  const mask = new Uint8Array(width);
  for (const { slot: place } of slots) mask[place] = 1;
  return mask;
}

/**
 * Makes an action chunk [horizon, relative.length] relative to the state at its start: every relative dimension minus the
 * state of the same number, which is the same for all steps (openpi transforms.DeltaActions). Normalise after this, not
 * before.
 */
export const relativeActions = (chunk: Float32Array, state: ArrayLike<number>, relative: readonly boolean[]) =>
  shifted(chunk, state, relative, -1);

/** The inverse of `relativeActions` (openpi transforms.AbsoluteActions). */
export const absoluteActions = (chunk: Float32Array, state: ArrayLike<number>, relative: readonly boolean[]) =>
  shifted(chunk, state, relative, 1);

function shifted(chunk: Float32Array, state: ArrayLike<number>, relative: readonly boolean[], sign: 1 | -1) {
  return chunk.map((value, i) => (relative[i % relative.length] ? value + sign * state[i % relative.length] : value));
}
