import { type Folder, readRange } from '../../engine/files/bytes.ts';
import { InputError, quote } from '../../engine/files/errors.ts';
import { openFolder } from '../../engine/files/paths.ts';
import type { Random } from '../../engine/random.ts';
import { decodeImage, ImageCache, imageTypes } from './image-files.ts';
import type { ImageQuestion, QuestionedImage } from './image-questions.ts';
import { asText, readJsonObject, unexpected } from './json.ts';
import type { VisionLanguage } from './sampler.ts';

/** An image with the name and the category of the thing it shows. */
export interface NamedImage {
  readonly name: string;
  readonly category: string;
  readonly image: VisionLanguage['image'];
}

/**
 * Reads images with names, such as emoji: `PATH.pack` holds image files one after the other, and `PATH.json` is `{
 * mime, columns: [name, category, offset, length, ...], items }`. An image is read when it is requested.
 *
 * @param folder a path (node), or any folder
 * @throws InputError if a file is missing, cut off or lacks a column
 */
export async function openNamedImages(folder: string | Folder, path: string): Promise<NamedImage[]> {
  const place = typeof folder === 'string' ? await openFolder(folder) : folder;
  const source = await place.open(`${path}.json`);
  const list = await readJsonObject(source);
  const type = asText(list.mime, source.name, '"mime"');
  if (!imageTypes.includes(type))
    throw new InputError(`${source.name}: image type "${type}" is not one of ${imageTypes.join(', ')}`);
  const wanted = ['name', 'category', 'offset', 'length'];
  const columns = wanted.map((column) => (Array.isArray(list.columns) ? list.columns.indexOf(column) : -1));
  if (columns.includes(-1))
    throw unexpected(list.columns, source.name, '"columns"', `a list with ${wanted.join(', ')}`);
  if (!Array.isArray(list.items)) throw unexpected(list.items, source.name, '"items"', 'a list');
  const pack = await place.open(`${path}.pack`);
  await pack.close();
  const cache = new ImageCache();
  return list.items.map((item, number) => {
    const [name, category, offset, length] = columns.map((column) => (Array.isArray(item) ? item[column] : undefined));
    const sizes = [offset, length].every((size) => Number.isSafeInteger(size) && size >= 0);
    if (typeof name !== 'string' || typeof category !== 'string' || !sizes || offset + length > pack.size) {
      throw new InputError(`${source.name}: item ${number} is no named image of ${pack.name}: ${quote(item)}`);
    }
    const image = () =>
      cache.get(String(offset), async () => {
        const file = await place.open(`${path}.pack`);
        try {
          const what = `the image "${name}"`;
          return await decodeImage(await readRange(file, offset, offset + length, what), type, `${file.name}: ${what}`);
        } finally {
          await file.close();
        }
      });
    return { name, category, image };
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
