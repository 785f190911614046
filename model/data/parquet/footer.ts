import type { FileMetaData, SchemaTree } from 'hyparquet';
import { parquetMetadataAsync, parquetSchema } from 'hyparquet/src/metadata.js';
import type { ByteSource } from '../../../engine/files/bytes.ts';
import { InputError, quote, reasonOf } from '../../../engine/files/errors.ts';
import type { ColumnChunk } from './pages.ts';

/** The limit of rows in one file: more than any writer puts in one, and few enough for a list of them. */
const ROWS_LIMIT = 2 ** 31;

/** Reads the footer of a parquet file. @throws InputError if it is damaged or cut off */
export async function readFooter(source: ByteSource): Promise<{ metadata: FileMetaData; schema: SchemaTree }> {
  const slice = async (start: number, end = source.size) => (await source.read(start, end)).buffer;
  try {
    const metadata = await parquetMetadataAsync({ byteLength: source.size, slice }, { geoparquet: false });
    return { metadata, schema: parquetSchema(metadata) };
  } catch (error) {
    throw new InputError(`${source.name}: cut off, or not a parquet file: fetch it again (${reasonOf(error)})`);
  }
}

/** Lists the row groups, with their columns by the path to the values. */
export function rowGroups({ row_groups: groups, num_rows: total }: FileMetaData, schema: SchemaTree, name: string) {
  let start = 0;
  const read = groups.map(({ columns: chunks, num_rows: own }, number) => {
    const rows = Number(own);
    const end = start + rows;
    if (!(rows >= 0 && end <= ROWS_LIMIT))
      throw new InputError(`${name}: row group ${number} says it has ${own ?? 'no'} rows`);
    const columns = new Map<string, ColumnChunk>();
    for (const { meta_data: column } of chunks) {
      if (!column)
        throw new InputError(`${name}: row group ${number} keeps a column elsewhere, which is not read here`);
      const { path_in_schema: path, codec, dictionary_page_offset: dictionary } = column;
      const first = Number(column.data_page_offset);
      const begin = dictionary && Number(dictionary) < first ? Number(dictionary) : first;
      const schemaPath = [schema];
      for (const part of path) {
        const child = schemaPath[schemaPath.length - 1].children.find(({ element }) => element.name === part);
        if (!child) throw new InputError(`${name}: row group ${number} has a column ${quote(path)} not in the schema`);
        schemaPath.push(child);
      }
      const stop = begin + Number(column.total_compressed_size);
      const values = Number(column.num_values);
      columns.set(path.join('\n'), { path, schemaPath, codec, values, start: begin, end: stop });
    }
    const missing = leaves(schema).find((leaf) => !columns.has(leaf));
    if (missing) throw new InputError(`${name}: row group ${number} lacks column ${quote(missing.split('\n'))}`);
    const group = { start, end, columns };
    start = end;
    return group;
  });
  if (start !== Number(total))
    throw new InputError(`${name}: its row groups have ${start} rows, the file says ${total}`);
  return read;
}

function leaves(node: SchemaTree): string[] {
  return node.children.length > 0 ? node.children.flatMap(leaves) : [node.path.join('\n')];
}
