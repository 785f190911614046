import type { Dataset, DatasetOptions, Image } from './dataset.ts';
import { changedEpisode } from './parts.ts';

/** The orders of the colours that images may be stored in. */
export const channelOrders = ['rgb', 'bgr'] as const;

/** Returns a data set whose images were stored in this order; swapped ones are not files any more. */
export function withChannels(dataset: Dataset, order: DatasetOptions['channels']): Dataset {
  if (order !== 'bgr') return dataset;
  // An image that several steps show stays one image.
  const swapped = new WeakMap<Image, Image>();
  const swap = (image: Image): Image => {
    const pixels = image.pixels.slice();
    for (let i = 0; i < pixels.length; i += 3) [pixels[i], pixels[i + 2]] = [pixels[i + 2], pixels[i]];
    const made = { ...image, pixels };
    swapped.set(image, made);
    return made;
  };
  const episodes = dataset.episodes.map((episode) =>
    changedEpisode(episode, (own) => ({
      async image(camera, step) {
        const image = await own.image(camera, step);
        return image && (swapped.get(image) ?? swap(image));
      },
      imageFile: undefined,
    })),
  );
  return { ...dataset, episodes };
}
