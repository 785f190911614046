/** Places of an answer drawn into the picture that it is about. */
import type { Place } from '../../tokenizers/index.ts';
import type { Image } from '../data/dataset.ts';

/** The longer side of a drawn picture, in pixels, at least. */
const SIDE = 384;
/** In a drawn picture's pixels: the radius of a ring, half the width of a line, and of its edge in the other colour. */
const [RADIUS, LINE, EDGE] = [13, 1.2, 2.6];
const [MAGENTA, WHITE] = [
  [255, 0, 200],
  [255, 255, 255],
];

/**
 * The picture, enlarged by a whole factor, with a ring and a cross at every point and the outline of every box, in magenta with
 * white edges. Coordinates are shares of the picture's height and width.
 */
export function drawPlaces({ width, height, pixels }: Image, places: readonly Place[]): Image {
  const factor = Math.max(1, Math.ceil(SIDE / Math.max(width, height)));
  const large = { width: width * factor, height: height * factor };
  const drawn = new Uint8Array(large.width * large.height * 3);
  const lines = places.map(({ coordinates }) => {
    const [top, left, bottom, right] = coordinates.map(
      (share, i) => share * (i % 2 === 0 ? large.height : large.width),
    );
    return coordinates.length === 2 ? fromPoint(top, left) : fromBox(top, left, bottom, right);
  });
  for (let y = 0; y < large.height; y++) {
    for (let x = 0; x < large.width; x++) {
      const from = (Math.floor(y / factor) * width + Math.floor(x / factor)) * 3;
      const nearest = Math.min(...lines.map((distance) => distance(y + 0.5, x + 0.5)));
      const colour = nearest <= LINE ? MAGENTA : nearest <= EDGE ? WHITE : pixels.subarray(from, from + 3);
      drawn.set(colour, (y * large.width + x) * 3);
    }
  }
  return { ...large, pixels: drawn };
}

/** The distance of a place in the picture from a line. */
type Distance = (y: number, x: number) => number;

/** Ring and cross around a point. */
function fromPoint(centreY: number, centreX: number): Distance {
  return (y, x) => {
    const [dy, dx] = [Math.abs(y - centreY), Math.abs(x - centreX)];
    const arm = (along: number, across: number) => Math.hypot(Math.max(0, along - RADIUS / 2), across);
    return Math.min(Math.abs(Math.hypot(dy, dx) - RADIUS), arm(dy, dx), arm(dx, dy));
  };
}

/** The outline of a box. */
function fromBox(top: number, left: number, bottom: number, right: number): Distance {
  return (y, x) => {
    const outside = [Math.max(top - y, y - bottom), Math.max(left - x, x - right)];
    const [vertical, horizontal] = outside;
    return Math.max(...outside) <= 0
      ? -Math.max(...outside)
      : Math.hypot(Math.max(0, vertical), Math.max(0, horizontal));
  };
}
