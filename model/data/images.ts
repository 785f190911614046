import type { Image } from './dataset.ts';

/**
 * Scales an image to fit `width` x `height` with its aspect ratio kept and pads the rest with black, as openpi does
 * (image_tools.resize_with_pad): ratio = max(w / width, h / height), the new size is truncated to whole pixels and
 * centred; an odd pixel of padding goes to the bottom and the right.
 *
 * The filter is bilinear, and widened by the ratio when the image shrinks (antialiased, as in jax.image.resize and
 * Pillow). It uses + - * / only, so that every engine gives the same pixels. An image of the right size is returned as
 * is.
 */
export function resizeWithPadding(image: Image, width: number, height: number): Image {
  if (image.width === width && image.height === height) return image;
  const { width: newWidth, height: newHeight } = scaledSize(image, { width, height });
  const columns = filter(image.width, newWidth);
  const rows = filter(image.height, newHeight);

  const narrow = new Float64Array(image.height * newWidth * 3);
  for (let y = 0; y < image.height; y++) {
    for (let x = 0; x < newWidth; x++) {
      const { start, weights } = columns[x];
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) {
          sum += weights[k] * image.pixels[(y * image.width + start + k) * 3 + channel];
        }
        narrow[(y * newWidth + x) * 3 + channel] = sum;
      }
    }
  }
  const pixels = new Uint8Array(width * height * 3);
  const left = Math.floor((width - newWidth) / 2);
  const top = Math.floor((height - newHeight) / 2);
  for (let y = 0; y < newHeight; y++) {
    const { start, weights } = rows[y];
    for (let i = 0; i < newWidth * 3; i++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * narrow[(start + k) * newWidth * 3 + i];
      pixels[((top + y) * width + left) * 3 + i] = Math.min(255, Math.round(sum));
    }
  }
  return { width, height, pixels };
}

type Size = Pick<Image, 'width' | 'height'>;

/** The size of an image before it is padded. */
function scaledSize(image: Size, { width, height }: Size): Size {
  const ratio = Math.max(image.width / width, image.height / height);
  const scaled = (size: number) => Math.max(1, Math.trunc(size / ratio));
  return { width: scaled(image.width), height: scaled(image.height) };
}

/** A coordinate in a padded image, as a share of its side, -> the same place in the original image. Outside [0, 1] it lies in the padding. */
export function shareBeforePadding(share: number, side: keyof Size, image: Size, padded: Size): number {
  const scaled = scaledSize(image, padded)[side];
  return (share * padded[side] - Math.floor((padded[side] - scaled) / 2)) / scaled;
}

/** The inverse of `shareBeforePadding`. */
export function shareWithPadding(share: number, side: keyof Size, image: Size, padded: Size): number {
  const scaled = scaledSize(image, padded)[side];
  return (share * scaled + Math.floor((padded[side] - scaled) / 2)) / padded[side];
}

/** Lists for each output pixel its input pixels: a triangle around its centre, with weights that sum to one. */
function filter(from: number, to: number): { start: number; weights: number[] }[] {
  const scale = from / to;
  const reach = Math.max(1, scale);
  return Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * scale - 0.5;
    const start = Math.max(0, Math.ceil(centre - reach));
    const end = Math.min(from - 1, Math.floor(centre + reach));
    const weights: number[] = [];
    let total = 0;
    for (let i = start; i <= end; i++) {
      const weight = Math.max(0, 1 - Math.abs(i - centre) / reach);
      weights.push(weight);
      total += weight;
    }
    return { start, weights: weights.map((weight) => weight / total) };
  });
}

/** Maps pixels to [-1, 1] by x / 255 * 2 - 1, as float32 [height, width, 3], written to `out` from `offset` on. */
export function normaliseImage(
  image: Image,
  out: Float32Array = new Float32Array(image.pixels.length),
  offset = 0,
): Float32Array {
  const { pixels } = image;
  for (let i = 0; i < pixels.length; i++) out[offset + i] = (pixels[i] / 255) * 2 - 1;
  return out;
}
