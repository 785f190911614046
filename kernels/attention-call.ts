import { formatShape, Tensor } from '../engine/index.ts';
import type { AttentionExpression } from './attention-expression.ts';
import type { AttentionTable } from './attention-table.ts';
import type { BlockRows } from './attention-tiles.ts';
import type { AttentionSizes } from './attention-variants.ts';
import { expectDtype, expectShape, sharedDevice } from './operand.ts';

const LARGEST_HEAD = 256;

export interface AttentionOptions {
  /** Who sees whom; its layout covers the keys. A table object is compiled once: make it once, not in every call. */
  table: AttentionTable;
  /** Factor of q . k; default 1 / sqrt(D). */
  scale?: number;
  /**
   * [batch, tokens], 1 = real token, 0 = padding, as numbers or as a u32 tensor made from numbers; default all real. Padding has no
   * influence, but its keys and values must be finite. An array is read once a step: give another array instead of changing one.
   */
  validity?: ArrayLike<number> | Tensor;
  /** The layout blocks, or rows of them, that are the rows of `query`, in layout order; default all. */
  queries?: readonly (string | RowsOfBlock)[];
  /** Names of the query blocks whose output carries a loss; backward skips the others. Default all. */
  lossBlocks?: readonly string[];
  /** A mask beside the table, or another score, in WGSL, registered for this layout. */
  expression?: AttentionExpression;
}

/** Rows of one block, for a key/value cache that grows row by row. */
export interface RowsOfBlock {
  readonly block: string;
  readonly first: number;
  readonly rows: number;
}

export interface CheckedCall extends AttentionSizes {
  /** In layout order. */
  readonly queryRows: readonly BlockRows[];
  /** Indices of layout blocks. */
  readonly lossBlocks: readonly number[];
}

/** Sizes and blocks of a call of attention; throws where operands and options do not fit, naming both shapes. */
export function checkCall(query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions): CheckedCall {
  const { layout } = options.table;
  expectShape('attention', 'query', query, [null, null, null, null]);
  expectShape('attention', 'key', key, [query.shape[0], layout.keyTokens, null, query.shape[3]]);
  expectShape('attention', 'value', value, key.shape);
  expectDtype('attention', 'query', query, 'f32', 'f16', 'bf16');
  expectDtype('attention', 'key', key, query.dtype);
  expectDtype('attention', 'value', value, query.dtype);
  sharedDevice('attention', query, key, value);
  const [batch, queryTokens, heads, headDimension] = query.shape;
  const kvHeads = key.shape[2];
  if (headDimension % 4 !== 0 || headDimension > LARGEST_HEAD || headDimension === 0)
    throw new Error(`attention: head dimension ${headDimension}; it is a multiple of 4 up to ${LARGEST_HEAD}`);
  if (kvHeads === 0 || heads % kvHeads !== 0)
    throw new Error(`attention: ${heads} query heads and ${kvHeads} key heads; the second must divide the first`);
  const chosen = rowsOf(options);
  const rows = chosen.queryRows.reduce((sum, { rows }) => sum + rows, 0);
  if (rows !== queryTokens)
    throw new Error(`attention: query has shape ${formatShape(query.shape)}; queries names ${rows} rows`);
  checkExtras(options, batch, heads);
  return { batch, queryTokens, keyTokens: layout.keyTokens, heads, kvHeads, headDimension, ...chosen };
}

/** The rows that `queries` names, and the indices of the blocks that `lossBlocks` names, in layout order. */
export function rowsOf({ table, queries, lossBlocks }: Pick<AttentionOptions, 'table' | 'queries' | 'lossBlocks'>) {
  const { blocks } = table.layout;
  const indexOf = (what: string, name: string) => {
    const index = blocks.findIndex((block) => block.name === name);
    if (index < 0) throw new Error(`attention: ${what} names '${name}', which the layout does not have`);
    return index;
  };
  const rows = (given: string | RowsOfBlock): BlockRows => {
    const block = indexOf('queries', typeof given === 'string' ? given : given.block);
    const { length, name } = blocks[block];
    if (typeof given === 'string') return { block, first: 0, rows: length };
    const { first, rows } = given;
    if (!Number.isInteger(first) || !Number.isInteger(rows) || first < 0 || rows < 1 || first + rows > length)
      throw new Error(`attention: queries wants ${rows} rows of '${name}' from ${first}; it has ${length}`);
    return { block, first, rows };
  };
  const names = blocks.map(({ name }) => name);
  return {
    queryRows: (queries ?? names).map(rows).sort((a, b) => a.block - b.block || a.first - b.first),
    lossBlocks: (lossBlocks ?? names).map((name) => indexOf('lossBlocks', name)).sort((a, b) => a - b),
  };
}

function checkExtras(options: AttentionOptions, batch: number, heads: number): void {
  const { validity, expression, scale } = options;
  const { layout } = options.table;
  if (scale !== undefined && !Number.isFinite(Math.fround(scale)))
    throw new Error(`attention: scale is ${scale}; expected a finite number of f32`);
  if (validity instanceof Tensor) expectShape('attention', 'validity', validity, [batch, layout.length]);
  else if (validity && validity.length !== batch * layout.length)
    throw new Error(
      `attention: validity has ${validity.length} numbers; expected ${formatShape([batch, layout.length])}`,
    );
  if (!expression) return;
  const most = expression.source.heads;
  if (most !== undefined && heads > most)
    throw new Error(`attention: expression has constants for ${most} heads; query has ${heads}`);
  const lengths = (blocks: readonly { length: number }[]) => blocks.map(({ length }) => length).join(', ');
  if (lengths(expression.layout.blocks) !== lengths(layout.blocks))
    throw new Error(
      `attention: expression was registered for blocks of ${lengths(expression.layout.blocks)} tokens; the table has ${lengths(layout.blocks)}`,
    );
  if (expression.samples !== 1 && expression.samples !== batch)
    throw new Error(`attention: expression has data of ${expression.samples} samples; the batch has ${batch}`);
}
