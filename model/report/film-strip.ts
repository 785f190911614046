/** Film strips of a policy that acted: the picture at each of its calls, with all that it said, predicted and did. */
import type { Image } from '../data/dataset.ts';
import type { Said } from '../policy/subtask.ts';

/** A place in a picture: shares of its height and width. */
export type Spot = readonly [down: number, across: number];

/** One call of the policy. */
export interface Frame {
  /** Control steps before the call. */
  readonly step: number;
  readonly image: Image;
  /** What the policy said before it acted; left out if it says nothing. */
  readonly said?: Said;
  /** The gripper at the call, in words. */
  readonly gripper: string;
  /** The predicted chunk: the path of the gripper from its place at the call. */
  readonly predicted: readonly Spot[];
  /** The path that the gripper took until the next call. */
  readonly went: readonly Spot[];
}

export interface FilmedEpisode {
  /** The kind of scene, if the page shows several. */
  readonly about?: string;
  readonly instruction: string;
  readonly success: boolean;
  /** The outcome in words. */
  readonly outcome: string;
  readonly steps: number;
  readonly frames: readonly Frame[];
  /** The picture after the last control step. */
  readonly end: Image;
}

/** Pixels of a drawn picture for each pixel along a side. */
const FACTOR = 4;
/** Lines by what they mean: colours, which are the same on light and dark pages, and half widths in pixels of a drawn picture. */
export const marks = {
  said: { colour: [255, 0, 200], radius: 1.3 },
  predicted: { colour: [0, 225, 255], radius: 2.6 },
  went: { colour: [255, 255, 255], radius: 0.8 },
} as const;
/** The dark edge of a line. */
const EDGE = 0.9;
const DARK = [20, 20, 20];
const RING = Array.from({ length: 25 }, (_, i) => [Math.sin((i * Math.PI) / 12), Math.cos((i * Math.PI) / 12)]);
/** Radius of the ring around a place, as a share of the picture. */
const RADIUS = 0.045;

interface Line {
  readonly spots: readonly Spot[];
  readonly colour: readonly number[];
  readonly radius: number;
}

/** The pictures of a strip: one for each call, and the end with the whole path of the gripper. */
export function drawStrip({ frames, end }: FilmedEpisode): Image[] {
  return [
    ...frames.map(({ image, said, predicted, went }) => {
      const places = (said?.places ?? []).flatMap(([down, across]): Line[] => [
        { spots: RING.map(([y, x]) => [down + RADIUS * y, across + RADIUS * x]), ...marks.said },
        { spots: [[down, across]], ...marks.said },
      ]);
      return drawn(image, [{ spots: predicted, ...marks.predicted }, { spots: went, ...marks.went }, ...places]);
    }),
    drawn(end, [{ spots: frames.flatMap(({ went }) => went), ...marks.went }]),
  ];
}

/** The picture, enlarged, with lines. */
function drawn({ width, height, pixels }: Image, lines: readonly Line[]): Image {
  const large = { width: width * FACTOR, height: height * FACTOR };
  const stride = large.width * 3;
  const enlarged = new Uint8Array(large.height * stride);
  for (let y = 0; y < height; y++) {
    const row = y * FACTOR * stride;
    for (let i = 0; i < stride; i++)
      enlarged[row + i] = pixels[(y * width + Math.floor(i / (3 * FACTOR))) * 3 + (i % 3)];
    for (let copy = 1; copy < FACTOR; copy++) enlarged.copyWithin(row + copy * stride, row, row + stride);
  }
  const image = { ...large, pixels: enlarged };
  for (const { spots, colour, radius } of lines) {
    const along = walked(spots.map(([down, across]) => [down * large.height, across * large.width]));
    for (const place of along) stamp(image, place, radius + EDGE, DARK);
    for (const place of along) stamp(image, place, radius, colour);
  }
  return image;
}

/** Places along a line, at most half a pixel apart. */
function walked(corners: readonly Spot[]): Spot[] {
  return corners.flatMap(([y, x], i): Spot[] => {
    const [fromY, fromX] = corners[Math.max(0, i - 1)];
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(y - fromY, x - fromX)));
    return Array.from({ length: steps }, (_, step) => {
      const share = (step + 1) / steps;
      return [fromY + share * (y - fromY), fromX + share * (x - fromX)];
    });
  });
}

/** Fills a disc. */
function stamp({ width, height, pixels }: Image, [centreY, centreX]: Spot, radius: number, colour: readonly number[]) {
  for (let y = Math.max(0, Math.floor(centreY - radius)); y <= Math.min(height - 1, centreY + radius); y++)
    for (let x = Math.max(0, Math.floor(centreX - radius)); x <= Math.min(width - 1, centreX + radius); x++)
      if (Math.hypot(y + 0.5 - centreY, x + 0.5 - centreX) <= radius) pixels.set(colour, (y * width + x) * 3);
}

/** Pictures of one size beside each other. */
export function contactStrip(pictures: readonly Image[]): Image {
  const [{ width, height }] = pictures;
  const strip = {
    width: width * pictures.length,
    height,
    pixels: new Uint8Array(pictures.length * width * height * 3),
  };
  pictures.forEach(({ pixels }, i) => {
    for (let y = 0; y < height; y++)
      strip.pixels.set(pixels.subarray(y * width * 3, (y + 1) * width * 3), (y * strip.width + i * width) * 3);
  });
  return strip;
}
