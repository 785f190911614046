import * as v from 'valibot';
import type { Folder } from '../../engine/files/bytes.ts';
import { InputError, reasonOf } from '../../engine/files/errors.ts';
import { checked } from '../../engine/files/json-schema.ts';
import { openFolder } from '../../engine/files/paths.ts';
import { LOCATIONS, wrongLocation } from '../../tokenizers/index.ts';
import { decodeImage, ImageCache, readImage } from '../data/image-files.ts';
import { imageTypeOf } from '../data/image-header.ts';
import { readJsonLines } from '../data/json.ts';
import type { ImageQuestion, QuestionedImage } from './image-questions.ts';

const text = v.pipe(v.string('text'), v.trim(), v.nonEmpty('text'));
const located = v.pipe(
  text,
  v.check((own) => wrongLocation(own) === undefined, `places from <loc0000> to <loc${LOCATIONS - 1}>`),
);
const questionSchema = v.object({ image: text, prompt: located, answer: located, kind: v.nullish(v.string('text')) });

/**
 * Reads questions about image files from a JSON Lines file; a line is
 *
 *     {"image": "pictures/1.png", "prompt": "point to the cup", "answer": "<loc0512><loc0300>", "kind": "point"}
 *
 * Paths of images are relative to the file's folder; "kind" can be left out. An image is read when it is requested.
 *
 * @param folder a path (node), or any folder
 * @throws InputError if a line is no question, or if an image file is missing
 */
export async function openQuestionFile(folder: string | Folder, name: string): Promise<QuestionedImage[]> {
  const place = typeof folder === 'string' ? await openFolder(folder) : folder;
  const source = await place.open(name);
  const images = new Map<string, { where: string; questions: ImageQuestion[] }>();
  await readJsonLines(source, (line, number) => {
    const where = `${source.name}: ${number}`;
    const { image, kind, prompt, answer } = checked(questionSchema, line, where);
    // The same file by another path, such as ./1.png, must not be held out and trained on.
    const path = image.replace(/(?<=^|\/)(\.?\/)+/g, '');
    const own = images.get(path) ?? { where, questions: [] };
    images.set(path, own);
    own.questions.push({ kind: kind?.trim() || 'question', prompt, answer });
  });
  const cache = new ImageCache();
  const asked: QuestionedImage[] = [];
  for (const [path, { where, questions }] of images) {
    const what = `${where}: the image "${path}"`;
    const open = () =>
      place.open(path).catch((error) => {
        throw new InputError(`${what}: ${reasonOf(error)}`);
      });
    await (await open()).close();
    const read = async () => {
      const { bytes } = await readImage(open(), what);
      return decodeImage(bytes, imageTypeOf(bytes), what);
    };
    const image = () => cache.get(path, read);
    asked.push({ image, count: questions.length, questions: () => questions });
  }
  return asked;
}
