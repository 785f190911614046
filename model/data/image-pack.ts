import type { Folder } from '../../engine/files/bytes.ts';
import { InputError } from '../../engine/files/errors.ts';
import { imageTypes } from './image-files.ts';
import { asText, readJsonObject, unexpected } from './json.ts';

/**
 * Opens `PATH.pack`, image files one after the other, and their list `PATH.json`: `{ mime, columns, items }`, where an item has a value
 * for each of the columns, among them `offset` and `length`.
 */
export async function openImagePack(folder: Folder, path: string, wanted: readonly string[]) {
  const listFile = await folder.open(`${path}.json`);
  const { name } = listFile;
  const list = await readJsonObject(listFile);
  const type = asText(list.mime, name, '"mime"');
  if (!imageTypes.includes(type))
    throw new InputError(`${name}: image type "${type}" is not one of ${imageTypes.join(', ')}`);
  const columns = wanted.map((column) => (Array.isArray(list.columns) ? list.columns.indexOf(column) : -1));
  if (columns.includes(-1)) throw unexpected(list.columns, name, '"columns"', `a list with ${wanted.join(', ')}`);
  if (!Array.isArray(list.items)) throw unexpected(list.items, name, '"items"', 'a list');
  const pack = await folder.open(`${path}.pack`);
  await pack.close();
  return {
    list: name,
    type,
    pack,
    /** The items as they are listed, and their values in the order of the wanted columns. */
    items: list.items.map((item) => ({
      item,
      values: columns.map((i) => (Array.isArray(item) ? item[i] : undefined)),
    })),
  };
}
