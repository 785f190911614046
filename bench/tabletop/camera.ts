import type { MainModule, MjData, MjModel } from '@mujoco/mujoco';
import { type Look, plainLook, type Surface, tableEdge, type Vector } from './look.ts';
import { GROUND, groups } from './mjcf.ts';

/** Width and height of the picture in pixels. */
export const IMAGE_SIZE = 64;
/** Rays along each side of a pixel. The pixel is their mean, so that motion by less than a pixel shows. */
const SAMPLES = 2;
/** Side in pixels of the square tiles that are cast; only tiles in which something may move are cast again. */
const TILE = 4;
const TILES = IMAGE_SIZE / TILE;
const SIDE = TILE * SAMPLES;
const RAYS = SIDE * SIDE;

/** Half the picture's width at distance 1 from the eye. */
const HALF_WIDTH = 0.16;

const subtract = (a: Vector, b: Vector): Vector => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const dot = (a: Vector, b: Vector) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

function cross(a: Vector, b: Vector): Vector {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

function normalise(v: Vector): Vector {
  const length = Math.sqrt(dot(v, v));
  return [v[0] / length, v[1] / length, v[2] / length];
}

function axesOf({ eye, target }: Look['camera']): Record<'forward' | 'right' | 'up', Vector> {
  const forward = normalise(subtract(target, eye));
  const right = normalise(cross(forward, [0, 0, 1]));
  return { forward, right, up: cross(right, forward) };
}

/** The place of a point of the world in the picture: [down, across] as shares of height and width from the top left corner. */
export function project(point: Vector, camera: Look['camera']): [number, number] {
  const { forward, right, up } = axesOf(camera);
  const fromEye = subtract(point, camera.eye);
  const scale = 0.5 / (HALF_WIDTH * dot(fromEye, forward));
  return [0.5 - dot(fromEye, up) * scale, 0.5 + dot(fromEye, right) * scale];
}

/** The direction of every ray, tile by tile, [TILES * TILES, RAYS, 3]. */
function directionsOf(camera: Look['camera']): Float64Array {
  const { forward, right, up } = axesOf(camera);
  const directions = new Float64Array(TILES * TILES * RAYS * 3);
  for (let tile = 0; tile < TILES * TILES; tile++) {
    for (let ray = 0; ray < RAYS; ray++) {
      const column = (tile % TILES) * SIDE + (ray % SIDE);
      const row = Math.floor(tile / TILES) * SIDE + Math.floor(ray / SIDE);
      const across = HALF_WIDTH * ((2 * column + 1) / (IMAGE_SIZE * SAMPLES) - 1);
      const upwards = HALF_WIDTH * (1 - (2 * row + 1) / (IMAGE_SIZE * SAMPLES));
      const along = (i: number) => forward[i] + across * right[i] + upwards * up[i];
      directions.set(normalise([along(0), along(1), along(2)]), (tile * RAYS + ray) * 3);
    }
  }
  return directions;
}

/** A surface's colour at a place, in metres. */
function colourAt({ pattern, colours, size }: Surface, x: number, y: number): Vector {
  const odd = (metres: number) => Math.floor(metres / size) & 1;
  if (pattern === 'stripes') return colours[odd(x)];
  return colours[pattern === 'checker' ? odd(x) ^ odd(y) : 0];
}

/** The grey of table and floor where they are masked. */
const MASKED: Vector = [0.5, 0.5, 0.5];
const everyTile = Array.from({ length: TILES * TILES }, (_, tile) => tile);

/**
 * The camera in front of the table, looking down: MuJoCo's ray caster with Lambert's shading. Still geoms are cast
 * once per episode; a picture then casts only the tiles that a moving geom may touch. The arithmetic of this file is
 * + - * / and square root, so that every JavaScript engine makes the same bytes.
 */
export class Camera {
  /** Distance and colour (0 to 255) at every ray of the still scene, tile by tile. */
  readonly #stillDistance = new Float64Array(TILES * TILES * RAYS);
  readonly #stillColour = new Float32Array(TILES * TILES * RAYS * 3);
  readonly #colour = new Float32Array(TILES * TILES * RAYS * 3);
  readonly #rays = new Float64Array(TILES * TILES * RAYS * 3);
  readonly #stillPixels = new Uint8Array(IMAGE_SIZE * IMAGE_SIZE * 3);
  #look: Look = plainLook;
  #toLight: Vector = normalise(plainLook.light.direction);
  #directions = directionsOf(plainLook.camera);

  constructor(private readonly mujoco: MainModule) {}

  /** Casts the still geoms: once, before the first picture of a model. */
  prepare(model: MjModel, data: MjData, look: Look = plainLook): void {
    if (look.camera !== this.#look.camera) this.#directions = directionsOf(look.camera);
    this.#look = look;
    this.#toLight = normalise(look.light.direction);
    this.#stillDistance.fill(Number.MAX_VALUE);
    this.#colour.fill(0);
    this.#stillDistance.set(this.#cast(model, data, everyTile, groups.still));
    this.#stillColour.set(this.#colour);
    for (const tile of everyTile) writeTile(this.#colour, tile, this.#stillPixels);
  }

  /** The picture now: RGB bytes, [IMAGE_SIZE, IMAGE_SIZE, 3]. */
  picture(model: MjModel, data: MjData): Uint8Array {
    const pixels = this.#stillPixels.slice();
    const tiles = movingTiles(model, data, this.#look.camera);
    for (const tile of tiles) {
      const start = tile * RAYS * 3;
      this.#colour.set(this.#stillColour.subarray(start, start + RAYS * 3), start);
    }
    this.#cast(model, data, tiles, groups.moving);
    for (const tile of tiles) writeTile(this.#colour, tile, pixels);
    return pixels;
  }

  /**
   * Casts the rays of some tiles against one group of geoms, and shades in #colour the hits in front of the still scene.
   * Returns the distance of each ray's hit, [tiles, RAYS].
   */
  #cast(model: MjModel, data: MjData, tiles: readonly number[], group: number): Float64Array {
    const count = tiles.length * RAYS;
    tiles.forEach((tile, at) => {
      this.#rays.set(this.#directions.subarray(tile * RAYS * 3, (tile + 1) * RAYS * 3), at * RAYS * 3);
    });
    const rays = this.#rays.subarray(0, count * 3) as unknown as number[];
    const eye = [...this.#look.camera.eye];
    const groupMask = [0, 1, 2, 3, 4, 5].map((other) => (other === group ? 1 : 0));
    const hits = new this.mujoco.IntBuffer(count);
    const distances = new this.mujoco.DoubleBuffer(count);
    const normals = new this.mujoco.DoubleBuffer(count * 3);
    try {
      this.mujoco.mj_multiRay(model, data, eye, rays, groupMask, true, -1, hits, distances, normals, count, 10);
      const hit = hits.GetView() as Int32Array;
      const distance = distances.GetView() as Float64Array;
      const normal = normals.GetView() as Float64Array;
      const rgba = model.geom_rgba as Float32Array;
      const { masked } = this.#look;
      const { ambient, strength } = this.#look.light;
      const toLight = this.#toLight;
      for (let i = 0; i < count; i++) {
        const ray = tiles[Math.floor(i / RAYS)] * RAYS + (i % RAYS);
        if (hit[i] < 0) distance[i] = Number.MAX_VALUE;
        if (hit[i] < 0 || distance[i] > this.#stillDistance[ray]) continue;
        const ground = hit[i] === GROUND;
        const colour: ArrayLike<number> = ground ? this.#groundAt(rays[i * 3], rays[i * 3 + 1], distance[i]) : rgba;
        const first = ground ? 0 : hit[i] * 4;
        const facing = normal[i * 3] * toLight[0] + normal[i * 3 + 1] * toLight[1] + normal[i * 3 + 2] * toLight[2];
        const shaded = strength * (ambient + (1 - ambient) * Math.max(0, facing));
        const light = 255 * (ground && masked ? 1 : shaded);
        for (let c = 0; c < 3; c++) this.#colour[ray * 3 + c] = Math.min(255, light * colour[first + c]);
      }
      return distance.slice();
    } finally {
      hits.delete();
      distances.delete();
      normals.delete();
    }
  }

  /** The colour of table or floor where a ray in direction (x, y, ...) ends. */
  #groundAt(directionX: number, directionY: number, distance: number): Vector {
    const { table, floor, masked, camera } = this.#look;
    if (masked) return MASKED;
    const x = camera.eye[0] + directionX * distance;
    const y = camera.eye[1] + directionY * distance;
    return colourAt(Math.abs(x) > tableEdge.side || y > tableEdge.far ? floor : table, x, y);
  }
}

/** The tiles that the bounding box of a moving geom may touch, in rising order. */
function movingTiles(model: MjModel, data: MjData, camera: Look['camera']): number[] {
  const touched = new Uint8Array(TILES * TILES);
  const group = model.geom_group as Int32Array;
  const boxes = model.geom_aabb as Float64Array;
  const positions = data.geom_xpos as Float64Array;
  const rotations = data.geom_xmat as Float64Array;
  for (let geom = 0; geom < model.ngeom; geom++) {
    if (group[geom] !== groups.moving) continue;
    let [left, right, top, bottom] = [TILES, -1, TILES, -1];
    for (let corner = 0; corner < 8; corner++) {
      const local = [0, 1, 2].map((i) => boxes[geom * 6 + i] + boxes[geom * 6 + 3 + i] * ((corner >> i) & 1 ? 1 : -1));
      const place = (i: number) => {
        const row = geom * 9 + i * 3;
        const turned = rotations[row] * local[0] + rotations[row + 1] * local[1] + rotations[row + 2] * local[2];
        return positions[geom * 3 + i] + turned;
      };
      const [row, column] = project([place(0), place(1), place(2)], camera).map((part) => Math.floor(TILES * part));
      [left, right] = [Math.min(left, column), Math.max(right, column)];
      [top, bottom] = [Math.min(top, row), Math.max(bottom, row)];
    }
    for (let row = Math.max(0, top); row <= Math.min(TILES - 1, bottom); row++) {
      for (let column = Math.max(0, left); column <= Math.min(TILES - 1, right); column++) {
        touched[row * TILES + column] = 1;
      }
    }
  }
  return everyTile.filter((tile) => touched[tile] === 1);
}

/** Writes the rounded mean of each pixel's rays into the picture. */
function writeTile(colour: Float32Array, tile: number, pixels: Uint8Array): void {
  for (let y = 0; y < TILE; y++) {
    for (let x = 0; x < TILE; x++) {
      const row = Math.floor(tile / TILES) * TILE + y;
      const column = (tile % TILES) * TILE + x;
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let sample = 0; sample < SAMPLES * SAMPLES; sample++) {
          const ray = (y * SAMPLES + Math.floor(sample / SAMPLES)) * SIDE + x * SAMPLES + (sample % SAMPLES);
          sum += colour[(tile * RAYS + ray) * 3 + c];
        }
        pixels[(row * IMAGE_SIZE + column) * 3 + c] = Math.floor(sum / (SAMPLES * SAMPLES) + 0.5);
      }
    }
  }
}
