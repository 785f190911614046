import { InputError } from '../../../engine/files/errors.ts';
import type { Episode, Image } from '../dataset.ts';
import { encodePng } from '../image-files.ts';
import { imageTypeOf, isPlainRgb } from '../image-header.ts';
import { resizeWithPadding } from '../images.ts';
import type { ImageCell } from '../parquet/writer.ts';
import type { PixelSummary } from './statistics.ts';

/**
 * Makes a cell for every step of an episode. Steps that show the same frame share one cell; steps before the camera's
 * first image show that image. The source's own file is kept if it has the size of the data set's images and every
 * decoder reads the same pixels from it; otherwise the pixels are written as a PNG. About n^0.75 of n steps are
 * counted.
 *
 * @param size the size of this camera's images in the data set; null if this is the first one
 * @throws InputError if the camera has no image at any step
 */
export async function imageCells(
  episode: Episode,
  camera: string,
  size: Pick<Image, 'width' | 'height'> | null,
  summaries: readonly PixelSummary[],
): Promise<{ cells: ImageCell[]; width: number; height: number }> {
  const { length } = episode;
  let first = 0;
  let image = await episode.image(camera, first);
  while (!image && ++first < length) image = await episode.image(camera, first);
  if (!image)
    throw new InputError(
      `episode "${episode.id}" has no image of camera "${camera}": leave out the camera, or the episode`,
    );
  const { width, height } = size ?? image;
  const every = Math.max(1, Math.floor(length / Math.max(Math.min(100, length), length ** 0.75)));
  const cells: ImageCell[] = [];
  let shown = image;
  for (let step = 0; step < length; step++) {
    const own: Image = step > first ? ((await episode.image(camera, step)) ?? image) : image;
    if (step > 0 && samePixels(own, image)) cells.push(cells[step - 1]);
    else {
      shown = resizeWithPadding(own, width, height);
      const kept = shown === own ? await episode.imageFile?.(camera, Math.max(step, first)) : null;
      const bytes = kept && isPlainRgb(kept) ? kept : encodePng(shown);
      const ending = imageTypeOf(bytes) === 'image/jpeg' ? 'jpg' : 'png';
      cells.push({ bytes, path: `frame_${String(step).padStart(6, '0')}.${ending}` });
    }
    if (step % every === 0) for (const summary of summaries) summary.add(shown);
    image = own;
  }
  return { cells, width, height };
}

const samePixels = (a: Image, b: Image) =>
  a === b || (a.width === b.width && a.height === b.height && a.pixels.every((value, i) => value === b.pixels[i]));
