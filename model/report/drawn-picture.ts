/** Lines drawn into pictures, and the places of an answer drawn into the picture that it is about. */
import type { Place } from '../../tokenizers/index.ts';
import type { Image } from '../data/dataset.ts';
import type { PicturePlace } from '../policy/subtask.ts';

export interface Line {
  /** The corners of the line. */
  readonly places: readonly PicturePlace[];
  readonly colour: readonly number[];
  /** Half its width in pixels of a drawn picture. */
  readonly radius: number;
}

interface Drawing {
  /** Pixels of a drawn picture for each pixel along a side. */
  readonly factor: number;
  /** The edge of every line: its colour, and its width in pixels of a drawn picture. */
  readonly edge: { readonly colour: readonly number[]; readonly width: number };
}

/** The picture, enlarged, with lines. */
export function drawLines({ width, height, pixels }: Image, lines: readonly Line[], { factor, edge }: Drawing): Image {
  const large = { width: width * factor, height: height * factor };
  const stride = large.width * 3;
  const enlarged = new Uint8Array(large.height * stride);
  for (let y = 0; y < height; y++) {
    const row = y * factor * stride;
    for (let i = 0; i < stride; i++)
      enlarged[row + i] = pixels[(y * width + Math.floor(i / (3 * factor))) * 3 + (i % 3)];
    for (let copy = 1; copy < factor; copy++) enlarged.copyWithin(row + copy * stride, row, row + stride);
  }
  const image = { ...large, pixels: enlarged };
  for (const { places, colour, radius } of lines) {
    const along = walked(places.map(([down, across]) => [down * large.height, across * large.width]));
    for (const place of along) stamp(image, place, radius + edge.width, edge.colour);
    for (const place of along) stamp(image, place, radius, colour);
  }
  return image;
}

const TURN = Array.from({ length: 25 }, (_, i) => [Math.sin((i * Math.PI) / 12), Math.cos((i * Math.PI) / 12)]);

/** The corners of a ring; its radius is shares of the picture's height and width. */
export const ringAround = ([down, across]: PicturePlace, [high, wide]: PicturePlace): PicturePlace[] =>
  TURN.map(([y, x]) => [down + high * y, across + wide * x]);

/** Places along a line, at most half a pixel apart. */
function walked(corners: readonly PicturePlace[]): PicturePlace[] {
  return corners.flatMap(([y, x], i): PicturePlace[] => {
    const [fromY, fromX] = corners[Math.max(0, i - 1)];
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(y - fromY, x - fromX)));
    return Array.from({ length: steps }, (_, step) => {
      const share = (step + 1) / steps;
      return [fromY + share * (y - fromY), fromX + share * (x - fromX)];
    });
  });
}

/** Fills a disc. */
function stamp(
  { width, height, pixels }: Image,
  [centreY, centreX]: PicturePlace,
  radius: number,
  colour: readonly number[],
) {
  for (let y = Math.max(0, Math.floor(centreY - radius)); y <= Math.min(height - 1, centreY + radius); y++)
    for (let x = Math.max(0, Math.floor(centreX - radius)); x <= Math.min(width - 1, centreX + radius); x++)
      if (Math.hypot(y + 0.5 - centreY, x + 0.5 - centreX) <= radius) pixels.set(colour, (y * width + x) * 3);
}

/** The longer side of a picture with the places of an answer, in pixels, at least. */
const SIDE = 384;
/** Radius of a ring, length of a cross's arm, and half the width of a line, in pixels of a drawn picture. */
const [RADIUS, ARM, LINE] = [13, 6.5, 1.2];
const MAGENTA = [255, 0, 200];
const WHITE = { colour: [255, 255, 255], width: 1.4 };

/**
 * The picture, enlarged by a whole factor, with a ring and a cross at every point and the outline of every box, in magenta with
 * white edges. Coordinates are shares of the picture's height and width.
 */
export function drawPlaces(image: Image, places: readonly Place[]): Image {
  const factor = Math.max(1, Math.ceil(SIDE / Math.max(image.width, image.height)));
  const [high, wide] = [image.height, image.width].map((side) => 1 / (side * factor));
  const outlines = places.flatMap(({ coordinates }): PicturePlace[][] => {
    const [top, left, bottom, right] = coordinates;
    const box = [top, bottom, bottom, top, top].map(
      (down, i): PicturePlace => [down, [left, left, right, right, left][i]],
    );
    if (coordinates.length > 2) return [box];
    const [up, aside] = [ARM * high, ARM * wide];
    const arms = [
      [-up, 0],
      [up, 0],
      [0, 0],
      [0, -aside],
      [0, aside],
    ];
    const cross = arms.map(([y, x]): PicturePlace => [top + y, left + x]);
    return [ringAround([top, left], [RADIUS * high, RADIUS * wide]), cross];
  });
  const lines = outlines.map((own) => ({ places: own, colour: MAGENTA, radius: LINE }));
  return drawLines(image, lines, { factor, edge: WHITE });
}
