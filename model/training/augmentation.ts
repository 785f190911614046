import type { Random } from '../../engine/random.ts';
import type { Image } from '../data/dataset.ts';

/** The largest changes of an image; each is drawn uniformly between minus and plus its limit (openpi, model.py). */
export interface Augmentation {
  /** The side of the crop as a fraction of the image's side; the position of the crop is drawn too. */
  readonly crop: number;
  /** The rotation in degrees. */
  readonly rotation: number;
  readonly brightness: number;
  readonly contrast: number;
  readonly saturation: number;
}

export const augmentation: Augmentation = { crop: 0.95, rotation: 5, brightness: 0.3, contrast: 0.4, saturation: 0.5 };
/** Only the colours change for cameras on the wrist, because their frame moves with the robot. */
export const colourAugmentation: Augmentation = { ...augmentation, crop: 1, rotation: 0 };

/** The number of random words for one image: image i of a batch takes words i * AUGMENTATION_WORDS and following. */
const AUGMENTATION_WORDS = 6;

/**
 * Crops an image, scales the crop back to the image's size, rotates it about its centre and changes brightness,
 * contrast and saturation. The result depends only on the image and the random numbers: pass `randomStream(seed, step,
 * streams.augmentation)` and the image's number in the batch.
 *
 * Crop and rotation are one bilinear resampling; pixels outside the image are black. Brightness scales all values.
 * Contrast moves them away from the image's mean grey, saturation away from the grey of their own pixel
 * (0.299 r + 0.587 g + 0.114 b).
 */
export function augment(image: Image, random: Random, number: number, how: Augmentation = augmentation): Image {
  const first = number * AUGMENTATION_WORDS;
  const even = (i: number) => 2 * random.uniform(first + i) - 1;
  const moved = how.crop === 1 && how.rotation === 0 ? image : move(image, how, even);
  return recolour(moved, 1 + how.brightness * even(3), 1 + how.contrast * even(4), 1 + how.saturation * even(5));
}

function move({ width, height, pixels }: Image, { crop, rotation }: Augmentation, even: (i: number) => number): Image {
  const [left, top] = [even(0), even(1)].map((place) => ((1 - crop) * (place + 1)) / 2);
  const [cosine, sine] = turn((rotation * even(2) * Math.PI) / 180);
  const out = new Uint8Array(pixels.length);
  const [middleX, middleY] = [width / 2, height / 2];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [dx, dy] = [x + 0.5 - middleX, y + 0.5 - middleY];
      const sourceX = left * width + crop * (middleX + cosine * dx + sine * dy) - 0.5;
      const sourceY = top * height + crop * (middleY - sine * dx + cosine * dy) - 0.5;
      const [column, row] = [Math.floor(sourceX), Math.floor(sourceY)];
      const [right, down] = [sourceX - column, sourceY - row];
      // The result is the weighted sum of the four surrounding pixels; pixels outside are black.
      const upperLeft = (row * width + column) * 3;
      const [isUpper, isLower] = [row >= 0 && row < height, row >= -1 && row < height - 1];
      const [isLeft, isRight] = [column >= 0 && column < width, column >= -1 && column < width - 1];
      for (let channel = 0; channel < 3; channel++) {
        const first = upperLeft + channel;
        const below = first + width * 3;
        const upper =
          (isUpper && isLeft ? pixels[first] : 0) * (1 - right) + (isUpper && isRight ? pixels[first + 3] : 0) * right;
        const lower =
          (isLower && isLeft ? pixels[below] : 0) * (1 - right) + (isLower && isRight ? pixels[below + 3] : 0) * right;
        out[(y * width + x) * 3 + channel] = Math.round(upper * (1 - down) + lower * down);
      }
    }
  }
  return { width, height, pixels: out };
}

/** Cosine and sine of a small angle by their series, which gives the same bits in every engine. */
function turn(angle: number): [number, number] {
  let [cosine, sine, term] = [0, 0, 1];
  for (let n = 0; n < 14; n++) {
    const sign = n % 4 < 2 ? 1 : -1;
    if (n % 2 === 0) cosine += sign * term;
    else sine += sign * term;
    term *= angle / (n + 1);
  }
  return [cosine, sine];
}

function recolour({ width, height, pixels }: Image, brightness: number, contrast: number, saturation: number): Image {
  const greyOf = (i: number) => 0.299 * pixels[i] + 0.587 * pixels[i + 1] + 0.114 * pixels[i + 2];
  let mean = 0;
  for (let i = 0; i < pixels.length; i += 3) mean += greyOf(i);
  mean *= (3 / pixels.length) * brightness;
  const out = new Uint8Array(pixels.length);
  for (let i = 0; i < pixels.length; i += 3) {
    const grey = contrast * (brightness * greyOf(i) - mean) + mean;
    for (let channel = i; channel < i + 3; channel++) {
      const value = contrast * (brightness * pixels[channel] - mean) + mean;
      out[channel] = Math.min(255, Math.max(0, Math.round(grey + saturation * (value - grey))));
    }
  }
  return { width, height, pixels: out };
}
