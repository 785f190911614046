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

/** The tiles of the chosen blocks (default all), whose rows follow each other in a tensor. */
export function tilesOf(blocks: readonly Block[], chosen: readonly number[] = [...blocks.keys()]): Tile[] {
  const tiles: Tile[] = [];
  let firstRow = 0;
  for (const block of chosen) {
    const { start, length } = blocks[block];
    for (let row = 0; row < length; row += TILE)
      tiles.push({ block, firstRow: firstRow + row, firstToken: start + row, rows: Math.min(TILE, length - row) });
    firstRow += length;
  }
  return tiles;
}
