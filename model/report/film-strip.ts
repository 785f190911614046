/** Film strips of a policy that acted: a picture for each of its calls, with its subtask, the path that it predicted and the path that it took. */
import type { Image } from '../data/dataset.ts';
import type { PicturePlace, Said } from '../policy/subtask.ts';
import { drawLines, type Line, ringAround } from './drawn-picture.ts';

/** One call of the policy. */
export interface Frame {
  /** Control steps before the call. */
  readonly step: number;
  readonly image: Image;
  /** The subtask that the policy said before it acted; left out if it says none. */
  readonly said?: Said;
  /** The gripper at the call, in words. */
  readonly gripper: string;
  /** The predicted chunk: the path of the gripper from its place at the call. */
  readonly predicted: readonly PicturePlace[];
  /** The path that the gripper took until the next call. */
  readonly went: readonly PicturePlace[];
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

const DRAWING = { factor: 4, edge: { colour: [20, 20, 20], width: 0.9 } };
/** Lines by what they mean: colours, which are the same on light and dark pages, and half widths in pixels of a drawn picture. */
export const marks = {
  said: { colour: [255, 0, 200], radius: 1.3 },
  predicted: { colour: [0, 225, 255], radius: 2.6 },
  went: { colour: [255, 255, 255], radius: 0.8 },
} as const;
/** Radius of the ring around a place, as a share of the picture. */
const RADIUS = 0.045;

/** The pictures of a strip: one for each call, and the end with the whole path of the gripper. */
export function drawStrip({ frames, end }: FilmedEpisode): Image[] {
  return [
    ...frames.map(({ image, said, predicted, went }) => {
      const pointed = (said?.places ?? []).flatMap((place): Line[] => [
        { places: ringAround(place, [RADIUS, RADIUS]), ...marks.said },
        { places: [place], ...marks.said },
      ]);
      const lines = [{ places: predicted, ...marks.predicted }, { places: went, ...marks.went }, ...pointed];
      return drawLines(image, lines, DRAWING);
    }),
    drawLines(end, [{ places: frames.flatMap(({ went }) => went), ...marks.went }], DRAWING),
  ];
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
