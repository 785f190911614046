import * as v from 'valibot';
import type { Folder } from '../../engine/files/bytes.ts';
import { InputError, quote } from '../../engine/files/errors.ts';
import { readChecked } from '../../engine/files/json-schema.ts';
import { imageTypes } from './image-files.ts';

const listSchema = v.object({
  mime: v.picklist(imageTypes, `one of ${imageTypes.join(', ')}`),
  columns: v.array(v.unknown(), 'a list'),
  items: v.array(v.any(), 'a list'),
});

/**
 * Opens `PATH.pack`, image files one after the other, and their list `PATH.json`: `{ mime, columns, items }`, where an item has a value
 * for each of the columns, among them `offset` and `length`.
 */
export async function openImagePack(folder: Folder, path: string, wanted: readonly string[]) {
  const file = await folder.open(`${path}.json`);
  const { mime: type, columns: listed, items } = await readChecked(file, listSchema);
  const columns = wanted.map((column) => listed.indexOf(column));
  if (columns.includes(-1))
    throw new InputError(`${file.name}: "columns": expected a list with ${wanted.join(', ')}, got ${quote(listed)}`);
  const pack = await folder.open(`${path}.pack`);
  await pack.close();
  return {
    list: file.name,
    type,
    pack,
    /** The items as they are listed, and their values in the order of the wanted columns. */
    items: items.map((item) => ({ item, values: columns.map((i) => (Array.isArray(item) ? item[i] : undefined)) })),
  };
}
