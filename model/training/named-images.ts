import type { Folder } from '../../engine/files/bytes.ts';
import { InputError, quote } from '../../engine/files/errors.ts';
import { openFolder } from '../../engine/files/paths.ts';
import type { Random } from '../../engine/random.ts';
import { decodeImage, ImageCache, readImage } from '../data/image-files.ts';
import { openImagePack } from '../data/image-pack.ts';
import type { VisionLanguage } from '../data/sampler.ts';
import type { ImageQuestion, QuestionedImage } from './image-questions.ts';

/** An image with the name and the category of the thing it shows. */
export interface NamedImage {
  readonly name: string;
  readonly category: string;
  readonly image: VisionLanguage['image'];
}

/** Reads images with names, such as emoji, from a pack (image-pack.ts) with the columns name and category. */
export async function openNamedImages(folder: string | Folder, path: string): Promise<NamedImage[]> {
  const place = typeof folder === 'string' ? await openFolder(folder) : folder;
  const columns = ['name', 'category', 'offset', 'length'];
  const { list, type, pack, items } = await openImagePack(place, path, columns);
  const cache = new ImageCache();
  return items.map(({ item, values: [name, category, offset, length] }, number) => {
    const sizes = [offset, length].every((size) => Number.isSafeInteger(size) && size >= 0);
    if (typeof name !== 'string' || typeof category !== 'string' || !sizes || offset + length > pack.size) {
      throw new InputError(`${list}: item ${number} is no named image of ${pack.name}: ${quote(item)}`);
    }
    const what = `the image "${name}"`;
    const read = async () => {
      const { bytes } = await readImage(place.open(`${path}.pack`), what, offset, offset + length);
      return decodeImage(bytes, type, `${pack.name}: ${what}`);
    };
    return { name, category, image: () => cache.get(number, read) };
  });
}

/** Three questions about each image, with PaliGemma's prompts; half of the guesses at its name are right. */
export function namedQuestions(images: readonly NamedImage[]): QuestionedImage[] {
  return images.map(({ name, category, image }, index) => {
    const questions = (random: Random): ImageQuestion[] => {
      const right = random.integer(2 * index, 2) === 0;
      const other = (index + 1 + random.integer(2 * index + 1, images.length - 1)) % images.length;
      const guess = right ? name : images[other].name;
      return [
        { kind: 'caption', prompt: 'caption en', answer: name },
        { kind: 'category', prompt: 'answer en what kind of thing is this?', answer: category },
        { kind: 'guess', prompt: `answer en is this ${guess}?`, answer: guess === name ? 'yes' : 'no' },
      ];
    };
    return { image, count: 3, questions };
  });
}
