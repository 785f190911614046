/** Tiles: pieces of at most TILE rows, cut at block borders, so that a pair of tiles lies in exactly one edge of an attention table. */
import type { Block } from './attention-table.ts';

/** Rows of a tile, as in attention.wgsl: which of them are real tokens is one word of bits. */
export const TILE = 32;

export interface Tile {
  /** Index of its block in the layout. */
  readonly block: number;
  /** In the tensor that holds the rows. */
  readonly firstRow: number;
  /** In the token sequence. */
  readonly firstToken: number;
  readonly rows: number;
}

/** Rows of the block of this index. */
export type BlockRows = Readonly<Record<'block' | 'first' | 'rows', number>>;

export function allRows(blocks: readonly Block[]): BlockRows[] {
  return blocks.map(({ length }, block) => ({ block, first: 0, rows: length }));
}

/** The rows that have keys and values. */
export function keyRows(blocks: readonly Block[]): BlockRows[] {
  return allRows(blocks).filter(({ block }) => blocks[block].keys);
}

/** The tiles of the chosen rows (default: of all blocks), which follow each other in a tensor. */
export function tilesOf(blocks: readonly Block[], chosen: readonly BlockRows[] = allRows(blocks)): Tile[] {
  const tiles: Tile[] = [];
  let firstRow = 0;
  for (const { block, first, rows } of chosen) {
    for (let row = 0; row < rows; row += TILE)
      tiles.push({
        block,
        firstRow: firstRow + row,
        firstToken: blocks[block].start + first + row,
        rows: Math.min(TILE, rows - row),
      });
    firstRow += rows;
  }
  return tiles;
}
