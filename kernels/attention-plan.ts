/**
 * The plan: an attention table compiled into lists of live tile pairs.
 *
 * Tiles have at most TILE rows and are cut at block borders, so a tile pair lies in exactly one edge of the table. A pair is in
 * the forward list if the edge and the padding of its tiles allow some score; in the dQuery list if moreover the query wants a
 * gradient and its block carries a loss; in the dKeyValue list if the query's block carries a loss and gradient passes to K or to V.
 *
 * What the kernels read is one array of words:
 *
 *   query tiles, key tiles       sample by sample, 4 words each: first row, rows, position, bits of the real tokens
 *   forward, dQuery, dKeyValue   sample by sample, 2 words for each tile: where its pairs begin, and how many;
 *                                then the pairs, 2 words each: the other tile with flags in bits 28 to 31, and the window
 */
import type { AttentionTable, Block, Edge } from './attention-table.ts';

/** Rows of a tile, as in attention.wgsl: the validity of a tile is one word. */
export const TILE = 32;
const MASKED = 2 ** 31;
const CAUSAL = 2 ** 30;
const STOP_KEY = 2 ** 29;
const STOP_VALUE = 2 ** 28;
const NO_WINDOW = 0xffffffff;

export interface PlanRequest {
  readonly table: AttentionTable;
  readonly batch: number;
  /** [batch, tokens], 0 for padding; null where every token is real. */
  readonly validity: ArrayLike<number> | null;
  /** Indices of the blocks whose rows are the queries, in layout order. */
  readonly queryBlocks: readonly number[];
  /** Indices of the query blocks whose output carries a loss. */
  readonly lossBlocks: readonly number[];
  readonly wants: { readonly query: boolean; readonly key: boolean; readonly value: boolean };
}

export interface Plan {
  readonly words: Uint32Array;
  readonly queryTiles: number;
  readonly keyTiles: number;
  readonly keyTilesAt: number;
  readonly forwardAt: number;
  readonly dQueryAt: number;
  readonly dKeyValueAt: number;
  /** Pairs of tokens whose tile pair is in the list, one head, whole batch: what the kernels compute, masked scores included. */
  readonly work: { readonly forward: number; readonly dQuery: number; readonly dKeyValue: number };
}

interface Tile {
  readonly block: number;
  /** In the tensor that holds the rows. */
  readonly firstRow: number;
  /** In the token sequence. */
  readonly firstToken: number;
  readonly rows: number;
  /** Of its first row in its block. */
  readonly position: number;
}

interface Pair {
  readonly query: number;
  readonly key: number;
  /** The flags: its first word, less the other tile. */
  readonly word: number;
  readonly window: number;
}

/** Compiles a plan. Integer work on tiles only; its cost grows with (tokens / TILE)^2. */
export function compilePlan(request: PlanRequest): Plan {
  const { table, batch, validity, queryBlocks, lossBlocks, wants } = request;
  const { blocks, length } = table.layout;
  const queryTiles = tilesOf(blocks, queryBlocks);
  const keyTiles = tilesOf(blocks, [...blocks.keys()]);
  const words: number[] = [];
  const validWords = (tiles: readonly Tile[], sample: number) =>
    tiles.map((tile) => validBits(tile, validity, sample * length));
  const samples = Array.from({ length: batch }, (_, sample) => ({
    query: validWords(queryTiles, sample),
    key: validWords(keyTiles, sample),
  }));
  const writeTiles = (tiles: readonly Tile[], side: 'query' | 'key') => {
    for (const sample of samples)
      tiles.forEach((tile, index) => {
        words.push(tile.firstRow, tile.rows, tile.position, sample[side][index]);
      });
  };
  writeTiles(queryTiles, 'query');
  const keyTilesAt = words.length;
  writeTiles(keyTiles, 'key');

  const live = samples.map((sample) => allowedPairs(table, queryTiles, keyTiles, sample));
  const area = ({ query, key }: Pair) => queryTiles[query].rows * keyTiles[key].rows;
  const writeList = (tiles: number, side: 'query' | 'key', keep: (pair: Pair) => Pair | null) => {
    const at = words.length;
    const lists = live.map((pairs) => {
      const byTile: Pair[][] = Array.from({ length: tiles }, () => []);
      for (const pair of pairs) {
        const kept = keep(pair);
        if (kept) byTile[kept[side]].push(kept);
      }
      return byTile;
    });
    let start = at + 2 * tiles * batch;
    for (const list of lists.flat()) {
      words.push(start, list.length);
      start += 2 * list.length;
    }
    const other = side === 'query' ? 'key' : 'query';
    let work = 0;
    for (const pair of lists.flat(2)) {
      words.push(pair.word + pair[other], pair.window);
      work += area(pair);
    }
    return { at, work };
  };
  const carriesLoss = ({ query }: Pair) => lossBlocks.includes(queryTiles[query].block);
  const forward = writeList(queryTiles.length, 'query', (pair) => pair);
  const dQuery = writeList(queryTiles.length, 'query', (pair) => (wants.query && carriesLoss(pair) ? pair : null));
  const dKeyValue = writeList(keyTiles.length, 'key', (pair) => {
    const cell = table.cells[queryTiles[pair.query].block][keyTiles[pair.key].block];
    const stopKey = cell.stopKey || !wants.key;
    const stopValue = cell.stopValue || !wants.value;
    if (!carriesLoss(pair) || (stopKey && stopValue)) return null;
    return { ...pair, word: pair.word + (stopKey ? STOP_KEY : 0) + (stopValue ? STOP_VALUE : 0) };
  });
  return {
    words: Uint32Array.from(words),
    queryTiles: queryTiles.length,
    keyTiles: keyTiles.length,
    keyTilesAt,
    forwardAt: forward.at,
    dQueryAt: dQuery.at,
    dKeyValueAt: dKeyValue.at,
    work: { forward: forward.work, dQuery: dQuery.work, dKeyValue: dKeyValue.work },
  };
}

function tilesOf(blocks: readonly Block[], chosen: readonly number[]): Tile[] {
  const tiles: Tile[] = [];
  let firstRow = 0;
  for (const block of chosen) {
    const { start, length } = blocks[block];
    for (let position = 0; position < length; position += TILE)
      tiles.push({
        block,
        firstRow: firstRow + position,
        firstToken: start + position,
        rows: Math.min(TILE, length - position),
        position,
      });
    firstRow += length;
  }
  return tiles;
}

function validBits(tile: Tile, validity: ArrayLike<number> | null, sampleStart: number): number {
  let bits = 0;
  for (let row = 0; row < tile.rows; row++)
    if (!validity || validity[sampleStart + tile.firstToken + row]) bits |= 1 << row;
  return bits >>> 0;
}

/** Tile pairs of which at least one score is allowed, by query tile and then by key tile. */
function allowedPairs(
  table: AttentionTable,
  queryTiles: readonly Tile[],
  keyTiles: readonly Tile[],
  valid: { readonly query: readonly number[]; readonly key: readonly number[] },
): Pair[] {
  const pairs: Pair[] = [];
  queryTiles.forEach((query, q) => {
    if (valid.query[q] === 0) return;
    keyTiles.forEach((key, k) => {
      const cell = table.cells[query.block][key.block];
      if (cell.mask === 'none' || valid.key[k] === 0) return;
      const kind = cell.mask === 'causal' ? causalKind(cell, query, key) : 'full';
      if (kind === 'empty') return;
      // All 32 bits: a tile with fewer rows, or with padding, is masked score by score.
      const whole = kind === 'full' && valid.key[k] === 0xffffffff;
      const word = (whole ? 0 : MASKED) + (kind === 'partial' ? CAUSAL : 0);
      pairs.push({ query: q, key: k, word, window: Math.min(cell.window ?? NO_WINDOW, NO_WINDOW) });
    });
  });
  return pairs;
}

function causalKind(cell: Edge, query: Tile, key: Tile): 'empty' | 'partial' | 'full' {
  const window = cell.window ?? Number.POSITIVE_INFINITY;
  const most = query.position + query.rows - 1 - key.position;
  const least = query.position - (key.position + key.rows - 1);
  if (most < 0 || least >= window) return 'empty';
  return least >= 0 && most < window ? 'full' : 'partial';
}
