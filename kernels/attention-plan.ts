/**
 * The plan: an attention table compiled into lists of live tile pairs.
 *
 * A tile is at most TILE tokens of one block, so a pair of a query and a key tile lies in one edge of the table. Tiles have lists of pairs:
 *
 *   forward     of a query tile: pairs whose edge, padding and user's mask each allow some score (together they may still allow none)
 *   dKeyValue   of a key tile: those of them whose query block carries a loss and whose edge passes gradient to K or to V
 *   dQuery      of a query tile: pairs of dKeyValue, and pairs of forward whose query wants a gradient and whose block carries a loss
 *
 * The kernels read one array of words:
 *
 *   query tiles, key tiles       sample by sample, 4 words each: first row, rows, first token, a bit for each real token
 *   forward, dQuery, dKeyValue   sample by sample, 2 words for each tile: where its pairs begin, and how many
 *   data, constants              for the user's expressions: a word for each token, and numbers
 *   scales                       2 numbers each, factors of the gradient to K and to V; the first two are 1 and 1
 *   pairs                        2 words each: the other tile, with the index of the scales in bits 16 to 26 and flags above; the window
 *
 * The table fixes where everything lies (`planForm`), and a batch only the words (`fillPlan`, attention-fill.ts): every list has room
 * for all pairs that the table allows, 8 bytes a pair and sample. A pair that a window or a missing edge leaves out takes neither room
 * nor time. The kernels take tiles in the order of this array: those with the most pairs come first, so that no long list starts late.
 */
import type { AttentionExpression } from './attention-expression.ts';
import type { AttentionTable, Block, Edge } from './attention-table.ts';
import { allRows, type BlockRows, keyRows, TILE, type Tile, tilesOf } from './attention-tiles.ts';

/** Flags of the first word of a pair. They are signed 32-bit integers, which JavaScript combines fast, and are stored unsigned. */
export const pairFlags = {
  masked: 1 << 31,
  causal: 1 << 30,
  stopKey: 1 << 29,
  stopValue: 1 << 28,
  expression: 1 << 27,
} as const;
const SCALES_SHIFT = 16;
/** The bits of a pair's first word that hold the index of the other tile. */
export const TILE_OF_PAIR = 0xffff;
const MOST_TILES = 0x10000;
const MOST_SCALES = 0x800;
/** A pair takes up to six words, in three lists, and an index of 32 bits has to reach all words. */
const MOST_PAIRS = 2 ** 29;
const NO_WINDOW = 0xffffffff;

/** Room for the user's expressions: for the tokens' data of so many samples, and for so many constants. */
type PlanRoom = Readonly<Record<'dataSamples' | 'constants', number>>;

/** The part of a plan that a table, a batch size and the blocks of the queries fix. */
export interface PlanForm {
  readonly table: AttentionTable;
  readonly batch: number;
  readonly queryTiles: readonly Tile[];
  readonly keyTiles: readonly Tile[];
  /** Where each part begins in the words of a plan, by its name in the kernels' uniform. */
  readonly places: Readonly<
    Record<'keyTilesAt' | 'forwardAt' | 'dQueryAt' | 'dKeyValueAt' | 'dataAt' | 'constantsAt' | 'scalesAt', number>
  >;
  readonly words: number;
  readonly pairs: TablePairs;
}

/** The pairs of tiles in which a table allows at least one score. */
export interface TablePairs {
  /** In the order of query tiles, and for each query tile in the order of its keys' tokens. */
  readonly runs: readonly PairRun[];
  /** Indices of the key tiles in the order of tokens. */
  readonly keysByToken: Uint32Array;
  /** Where the list of each tile begins, in pairs, and where the last ends: `byQuery` for forward and dQuery, `byKey` for dKeyValue. */
  readonly byQuery: Uint32Array;
  readonly byKey: Uint32Array;
  /** For each index of scales, the factor of the gradient to K and that to V. */
  readonly scales: Float32Array;
}

/** Pairs of one query tile with consecutive key tiles that the table treats alike. */
export interface PairRun {
  readonly query: number;
  /** The places of these key tiles in keysByToken: from `first` to before `end`. */
  readonly first: number;
  end: number;
  readonly flags: number;
  readonly window: number;
  /** The stop flags of the edge and the index of its scales, in their bits of a pair's first word. */
  readonly passing: number;
}

/** Everything that a batch may change. */
export interface PlanRequest {
  /** [batch, tokens], 0 for padding; null where every token is real. */
  readonly validity: ArrayLike<number> | null;
  /** Indices of the query blocks whose output carries a loss. */
  readonly lossBlocks: readonly number[];
  readonly wants: { readonly query: boolean; readonly key: boolean; readonly value: boolean };
  readonly expression?: PlanExpression;
}

/** The part of a user's expression that a plan takes. */
export type PlanExpression = Pick<AttentionExpression, 'source' | 'samples' | 'allowedPairs'>;

export interface Plan {
  readonly form: PlanForm;
  readonly words: Uint32Array;
  readonly work: PlanWork;
}

/**
 * Pairs of tokens in live tile pairs, one head, whole batch: what the kernels compute, masked scores included. dKey and dValue count
 * the pairs of the dKeyValue list that reach K and V.
 */
export type PlanWork = Readonly<Record<'forward' | 'dQuery' | 'dKeyValue' | 'dKey' | 'dValue', number>>;

export function planForm(
  table: AttentionTable,
  batch: number,
  queryRows: readonly BlockRows[] = allRows(table.layout.blocks),
  room: PlanRoom = { dataSamples: 0, constants: 0 },
): PlanForm {
  const { blocks, length } = table.layout;
  const queryTiles = longestFirst(table, tilesOf(blocks, queryRows), 'query');
  const keyTiles = longestFirst(table, tilesOf(blocks, keyRows(blocks)), 'key');
  const tiles = Math.max(queryTiles.length, keyTiles.length);
  if (tiles > MOST_TILES)
    throw new Error(
      `attention: the table has ${tiles} tiles of at most ${TILE} tokens; a plan has room for ${MOST_TILES}`,
    );
  const pairs = tablePairs(table, batch, queryTiles, keyTiles);

  const keyTilesAt = 4 * queryTiles.length * batch;
  const forwardAt = keyTilesAt + 4 * keyTiles.length * batch;
  const dQueryAt = forwardAt + 2 * queryTiles.length * batch;
  const dKeyValueAt = dQueryAt + 2 * queryTiles.length * batch;
  const dataAt = dKeyValueAt + 2 * keyTiles.length * batch;
  const constantsAt = dataAt + room.dataSamples * length;
  const scalesAt = constantsAt + room.constants;
  const words = scalesAt + pairs.scales.length + pairWords(pairs) * batch;
  return {
    table,
    batch,
    queryTiles,
    keyTiles,
    places: { keyTilesAt, forwardAt, dQueryAt, dKeyValueAt, dataAt, constantsAt, scalesAt },
    words,
    pairs,
  };
}

/** The words of the pairs of a sample: its forward list, then dQuery, then dKeyValue. */
export function pairWords({ byQuery, byKey }: TablePairs): number {
  return 2 * (2 * byQuery[byQuery.length - 1] + byKey[byKey.length - 1]);
}

/** Tiles by the number of tokens that they meet, as their first row does; the order of tokens where it is the same. */
function longestFirst({ layout: { blocks }, cells }: AttentionTable, tiles: readonly Tile[], side: 'query' | 'key') {
  const edges = (own: number) => (side === 'query' ? cells[own] : cells.map((row) => row[own]));
  const inFull = blocks.map((_, own) =>
    edges(own).reduce((sum, { mask }, other) => sum + (mask === 'full' ? blocks[other].length : 0), 0),
  );
  const load = ({ block, firstToken }: Tile) => {
    const { mask, window = Number.POSITIVE_INFINITY } = cells[block][block];
    const before = firstToken - blocks[block].start;
    const causal = side === 'query' ? before : blocks[block].length - before;
    return inFull[block] + (mask === 'causal' ? Math.min(causal, window) : 0);
  };
  return tiles.toSorted((a, b) => load(b) - load(a));
}

/** Walks the key tiles that each query tile can see, and no others. */
function tablePairs(
  table: AttentionTable,
  batch: number,
  queryTiles: readonly Tile[],
  keyTiles: readonly Tile[],
): TablePairs {
  const { blocks } = table.layout;
  const keysByToken = Uint32Array.from(keyTiles.keys()).sort((a, b) => keyTiles[a].firstToken - keyTiles[b].firstToken);
  const tilesBefore = keyTilesBefore(blocks);
  const seen = table.cells.map((row) => [...row.keys()].filter((block) => row[block].mask !== 'none'));
  const ranges = queryTiles.flatMap((tile, query) =>
    seen[tile.block].map((block) => {
      const edge = table.cells[tile.block][block];
      return { query, tile, block, edge, ...tilesSeen(edge, tile, blocks[block], tilesBefore[block]) };
    }),
  );
  const count = batch * ranges.reduce((sum, { first, end }) => sum + end - first, 0);
  if (count > MOST_PAIRS)
    throw new Error(
      `attention: a batch of ${batch} has ${count} pairs of tiles in this table; a plan has room for ${MOST_PAIRS}: use a smaller batch, or a window`,
    );
  const { passingOfEdge, scales } = passingOf(table);
  const runs: PairRun[] = [];
  const byQuery = new Uint32Array(queryTiles.length + 1);
  const byKey = new Uint32Array(keyTiles.length + 1);
  for (const { query, tile, block, edge, first, end } of ranges) {
    const window = Math.min(edge.window ?? NO_WINDOW, NO_WINDOW);
    const passing = passingOfEdge[tile.block][block];
    const reached = (passing & pairFlags.stopKey) === 0 || (passing & pairFlags.stopValue) === 0;
    for (let at = first; at < end; at++) {
      const key = keysByToken[at];
      const flags = seesAll(edge, tile, keyTiles[key]) ? 0 : pairFlags.masked | pairFlags.causal;
      const own = { query, first: at, end: at + 1, flags, window, passing };
      const last = runs.at(-1);
      if (last && isContinued(last, own)) last.end += 1;
      else runs.push(own);
      if (reached) byKey[key + 1] += 1;
    }
    byQuery[query + 1] += end - first;
  }
  return { runs, keysByToken, byQuery: summedUp(byQuery), byKey: summedUp(byKey), scales };
}

function isContinued(run: PairRun, { query, first, flags, window, passing }: PairRun): boolean {
  return (
    run.query === query && run.end === first && run.flags === flags && run.window === window && run.passing === passing
  );
}

function summedUp(counts: Uint32Array): Uint32Array {
  for (let i = 1; i < counts.length; i++) counts[i] += counts[i - 1];
  return counts;
}

/** How many key tiles the blocks before each block have. */
function keyTilesBefore(blocks: readonly Block[]): number[] {
  let tiles = 0;
  return blocks.map(({ length, keys }) => {
    const before = tiles;
    if (keys) tiles += Math.ceil(length / TILE);
    return before;
  });
}

/** The tiles of a key block of which a query tile sees some key, in keysByToken: they follow each other. */
function tilesSeen(
  { mask, window = Number.POSITIVE_INFINITY }: Edge,
  { firstToken, rows }: Tile,
  { start, length }: Block,
  before: number,
): { first: number; end: number } {
  if (mask === 'full') return { first: before, end: before + Math.ceil(length / TILE) };
  const oldest = Math.max(0, firstToken - window + 1 - start);
  const latest = firstToken + rows - 1 - start;
  return { first: before + Math.floor(oldest / TILE), end: before + Math.floor(latest / TILE) + 1 };
}

/** Whether every query of a tile sees every key of another, which it sees some of. */
function seesAll({ mask, window = Number.POSITIVE_INFINITY }: Edge, query: Tile, key: Tile): boolean {
  if (mask === 'full') return true;
  const most = query.firstToken + query.rows - 1 - key.firstToken;
  const least = query.firstToken - (key.firstToken + key.rows - 1);
  return least >= 0 && most < window;
}

/** The passing bits of every edge, and the factors that their indices stand for. */
function passingOf({ cells }: AttentionTable): { passingOfEdge: number[][]; scales: Float32Array } {
  const scales = [1, 1];
  const places = new Map([[String(scales), 0]]);
  const passingOfEdge = cells.map((row) =>
    row.map(({ keyGradient, valueGradient }) => {
      const [toKey, toValue] = [keyGradient, valueGradient].map(Math.fround);
      const stops = (toKey === 0 ? pairFlags.stopKey : 0) | (toValue === 0 ? pairFlags.stopValue : 0);
      const factors = [toKey || 1, toValue || 1];
      const place = places.get(String(factors)) ?? places.size;
      if (place === MOST_SCALES)
        throw new Error(`attention: the table scales gradients by more than ${MOST_SCALES - 1} pairs of factors`);
      if (place === places.size) scales.push(...factors);
      places.set(String(factors), place);
      return stops | (place << SCALES_SHIFT);
    }),
  );
  return { passingOfEdge, scales: new Float32Array(scales) };
}
