/** The look of a scene: table, floor, light and camera. Only pictures depend on it; the physics and the demonstrator do not. */
import type { Random } from '../../engine/random.ts';

export type Vector = readonly [number, number, number];

/** A surface in one colour, or in two that change every `size` metres across (stripes) or across and along (checker). */
export interface Surface {
  readonly pattern: 'plain' | 'stripes' | 'checker';
  /** Red, green and blue from 0 to 1. */
  readonly colours: readonly [Vector, Vector];
  readonly size: number;
}

export interface Look {
  readonly table: Surface;
  /** The ground beyond the table's edge. */
  readonly floor: Surface;
  readonly light: {
    /** From the table towards the light. */
    readonly direction: Vector;
    /** The share of the light that reaches every surface alike, from 0 to 1. */
    readonly ambient: number;
    readonly strength: number;
  };
  readonly camera: { readonly eye: Vector; readonly target: Vector };
  /** Table and floor are one flat grey, so that only things and gripper are seen (GenVLA's masked background). */
  readonly masked: boolean;
}

/** The table's edges, in metres: the ground beyond them is the floor. The plain look has the table's colour everywhere. */
export const tableEdge = { side: 0.21, far: 0.2 } as const;

const plain = (colour: Vector): Surface => ({ pattern: 'plain', colours: [colour, colour], size: 1 });
const TABLE: Vector = [0.72, 0.7, 0.66];

/** The look of the simple world. */
export const plainLook: Look = {
  table: plain(TABLE),
  floor: plain(TABLE),
  light: { direction: [-0.3, -0.45, 1], ambient: 0.45, strength: 1 },
  camera: { eye: [0, -0.85, 1.08], target: [0, 0.025, 0.035] },
  masked: false,
};

/** Colours of tables and floors in training, and those that no training sees. */
const surfaces: Readonly<Record<'trained' | 'heldOut', readonly Vector[]>> = {
  trained: [TABLE, [0.62, 0.47, 0.32], [0.55, 0.57, 0.6], [0.62, 0.68, 0.75], [0.84, 0.79, 0.68], [0.36, 0.36, 0.4]],
  heldOut: [
    [0.75, 0.6, 0.62],
    [0.45, 0.55, 0.47],
    [0.5, 0.36, 0.28],
  ],
};

export type Draws = ReturnType<typeof drawsOf>;

/** Numbers of a stream from the `drawn`-th on, one after the other. */
export const drawsOf = (random: Random, drawn = 0) => ({
  between: (low: number, high: number) => low + (high - low) * random.uniform(drawn++),
  integer: (below: number) => random.integer(drawn++, below),
});

const shade = (colour: Vector, factor: number): Vector => [colour[0] * factor, colour[1] * factor, colour[2] * factor];

function surface(
  { between, integer }: Draws,
  from: readonly Vector[],
  patterns: readonly Surface['pattern'][],
): Surface {
  const colour = shade(from[integer(from.length)], between(0.9, 1.08));
  const pattern = patterns[integer(patterns.length)];
  return { pattern, colours: [colour, shade(colour, between(0.72, 0.9))], size: between(0.03, 0.09) };
}

/** A camera pose within `reach` metres of the plain one on each axis, and on one axis at least `least` metres away. */
function pose({ between, integer }: Draws, least: number, reach: number): Look['camera'] {
  const { eye, target } = plainLook.camera;
  const moved = [between(-reach, reach), between(-reach, reach), between(-reach, reach)];
  const axis = integer(3);
  const size = between(least, reach);
  moved[axis] = moved[axis] < 0 ? -size : size;
  return {
    eye: [eye[0] + moved[0], eye[1] + moved[1], eye[2] + moved[2]],
    target: [target[0] + between(-0.02, 0.02), target[1] + between(-0.02, 0.02), target[2]],
  };
}

function light({ between, integer }: Draws, [least, most]: readonly number[], ambients: readonly number[]) {
  const side = integer(2) === 0 ? -1 : 1;
  const direction: Vector = [side * between(least, most), between(-0.6, 0.2), 1];
  return { direction, ambient: between(ambients[0], ambients[1]), strength: between(0.85, 1.1) };
}

/** One part of the look outside of what training shows; the rest is plain. */
export const heldOutLooks = {
  table: (draws) => ({ ...plainLook, table: surface(draws, surfaces.heldOut, ['plain']) }),
  background: (draws) => ({
    ...plainLook,
    table: surface(draws, surfaces.trained, ['checker']),
    floor: surface(draws, surfaces.heldOut, ['checker']),
  }),
  light: (draws) => ({ ...plainLook, light: light(draws, [0.9, 1.3], [0.25, 0.35]) }),
  camera: (draws) => ({ ...plainLook, camera: pose(draws, 0.08, 0.1) }),
  masked: () => ({ ...plainLook, masked: true }),
} as const satisfies Record<string, (draws: Draws) => Look>;

/** A look of training: each of its parts is plain or drawn. */
export function trainingLook(draws: Draws): Look {
  const or = <T>(usual: T, drawn: T): T => (draws.integer(3) === 0 ? usual : drawn);
  const patterns = ['plain', 'plain', 'stripes'] as const;
  return {
    table: or(plainLook.table, surface(draws, surfaces.trained, patterns)),
    floor: surface(draws, surfaces.trained, patterns),
    light: or(plainLook.light, light(draws, [0, 0.7], [0.38, 0.6])),
    camera: or(plainLook.camera, pose(draws, 0, 0.06)),
    masked: false,
  };
}
