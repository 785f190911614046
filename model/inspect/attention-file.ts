/** An attention table of one's own as plain data, such as a JSON file, in place of the edges of a model. */
import * as v from 'valibot';
import { InputError, quote, reasonOf } from '../../engine/files/errors.ts';
import { checked, count, share } from '../../engine/files/json-schema.ts';
import { nearest } from '../../engine/files/nearest.ts';
import { causal, type Edge, edge, full, insulated, none } from '../../kernels/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import { Architecture } from '../architecture/model.ts';

export const namedEdges = { none, full, causal, insulated };
const cells: Readonly<Record<string, Edge>> = namedEdges;

const factor = v.optional(share);
/** An edge without a name, as `edge` takes it. */
export const edgeSchema = v.strictObject({
  mask: v.picklist(['full', 'causal']),
  window: v.optional(count(1)),
  keyGradient: factor,
  valueGradient: factor,
});
const rowsSchema = v.record(v.string(), v.record(v.string(), v.unknown()));

/**
 * The model with the edges of a table `{ "query block": { "key block": cell } }`, and no others. A cell is "none", "full", "causal" or
 * "insulated", or `{ mask, window?, keyGradient?, valueGradient? }` as `edge` takes it.
 *
 * @throws InputError that begins with `where` and names the block, or the cell, that the model cannot have
 */
export function withTable(configuration: ModelConfiguration, table: unknown, where: string): ModelConfiguration {
  const names = configuration.blocks.map(({ name }) => name);
  const expectBlock = (name: string) => {
    if (!names.includes(name))
      throw new InputError(`${where}: the model has no block ${quote(name)}; its blocks are ${names.join(', ')}`);
  };
  const rows = checked(rowsSchema, table, `${where}: this is not a table { "query": { "key": cell } }`);
  const edges = Object.entries(rows).flatMap(([query, row]) => {
    expectBlock(query);
    return Object.entries(row).map(([key, cell]) => {
      expectBlock(key);
      return { query, key, edge: edgeOf(cell, `${where}: ${quote(query)} to ${quote(key)}`) };
    });
  });
  const changed = { ...configuration, edges };
  try {
    new Architecture(changed);
  } catch (error) {
    throw new InputError(`${where}: ${reasonOf(error)}`);
  }
  return changed;
}

function edgeOf(cell: unknown, where: string): Edge {
  if (typeof cell === 'string') {
    if (Object.hasOwn(cells, cell)) return cells[cell];
    const other = nearest(cell, Object.keys(cells));
    throw new InputError(`${where}: there is no cell ${quote(cell)}; ${other}, or give { "mask": "full" or "causal" }`);
  }
  const settings = checked(edgeSchema, cell, where);
  try {
    return edge(settings);
  } catch (error) {
    throw new InputError(`${where}: ${reasonOf(error)}`);
  }
}
