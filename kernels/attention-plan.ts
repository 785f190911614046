/**
 * The plan: an attention table compiled into lists of live tile pairs.
 *
 * A tile pair lies in exactly one edge of the table (attention-tiles.ts). It is in the forward list if the edge, the padding of its
 * tiles and the user's mask each allow some score (together they may still allow none). It is in the dKeyValue list if moreover the
 * query's block carries a loss and gradient passes to K or to V, and in the dQuery list if it is in that one, or the query wants a
 * gradient and its block carries a loss.
 *
 * The kernels read one array of words:
 *
 *   query tiles, key tiles       sample by sample, 4 words each: first row, rows, first token, bits of the real tokens
 *   forward, dQuery, dKeyValue   sample by sample, 2 words for each tile: where its pairs begin, and how many
 *   data, constants              a word for each token, and numbers, for the user's expressions
 *   scales                       2 numbers each, factors of the gradient to K and to V; the first are 1 and 1
 *   pairs                        2 words each: the other tile, the index of its scales in bits 16 to 26, flags above; and the window
 *
 * A layout fixes where everything lies (`planForm`), a batch only what stands there (`fillPlan`): every list has room for all pairs
 * that its table allows, 24 bytes for each of at most (tokens / TILE)^2 pairs. The kernels take tiles in the order of this array, those with
 * the most pairs first, so that few long rows start late.
 */
import type { AttentionTable, Edge } from './attention-table.ts';
import { allRows, type BlockRows, TILE, type Tile, tilesOf } from './attention-tiles.ts';

// Bits of a pair's word; with the sign, so that combining them stays integer work, and unsigned once they are stored.
const MASKED = 1 << 31;
const CAUSAL = 1 << 30;
const STOP_KEY = 1 << 29;
const STOP_VALUE = 1 << 28;
const EXPRESSION = 1 << 27;
const SCALES_SHIFT = 16;
/** The bits of the other tile. */
export const TILE_OF_PAIR = 0xffff;
const MOST_TILES = 0x10000;
const MOST_SCALES = 0x800;
const NO_WINDOW = 0xffffffff;

/** Room for expressions: the tokens' data of so many samples, and so many constants. */
export interface PlanRoom {
  readonly dataSamples: number;
  readonly constants: number;
}

/** The part of a plan that a table, a batch size and the blocks of the queries fix. */
export interface PlanForm {
  readonly table: AttentionTable;
  readonly batch: number;
  readonly queryRows: readonly BlockRows[];
  readonly room: PlanRoom;
  readonly queryTiles: readonly Tile[];
  readonly keyTiles: readonly Tile[];
  /** Where the tables lie in the words of a plan, as the kernels' uniform names them. */
  readonly places: Readonly<
    Record<'keyTilesAt' | 'forwardAt' | 'dQueryAt' | 'dKeyValueAt' | 'dataAt' | 'constantsAt' | 'scalesAt', number>
  >;
  readonly words: number;
  /** Pairs of tiles that the table allows, by query tile: indices of both, flags, window, where their lists begin. */
  readonly pairs: TablePairs;
  /** Which tiles of the whole layout each tile overlaps: masks are counted on those. */
  readonly natural: { readonly query: readonly (readonly number[])[]; readonly key: readonly number[] };
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

/** The part of a user's expression that a plan takes (attention-expression.ts). */
export interface PlanExpression {
  readonly source: { readonly tokenData?: ArrayLike<number>; readonly constants?: ArrayLike<number> };
  readonly samples: number;
  /** [samples, query tile, key tile] in the order of tilesOf: how many token pairs a mask allows; null without a mask. */
  readonly allowedPairs: Uint32Array | null;
}

export interface Plan {
  readonly form: PlanForm;
  readonly words: Uint32Array;
  readonly work: PlanWork;
}

/**
 * Pairs of tokens in live tile pairs, one head, whole batch: what the kernels compute, masked scores included. dKey and dValue count
 * the pairs of the dKeyValue list that reach K and V.
 */
export interface PlanWork {
  readonly forward: number;
  readonly dQuery: number;
  readonly dKeyValue: number;
  readonly dKey: number;
  readonly dValue: number;
}

interface TablePairs {
  readonly count: number;
  readonly query: Uint32Array;
  readonly key: Uint32Array;
  readonly flags: Uint32Array;
  readonly window: Uint32Array;
  /** The stop bits of its edge, and in their bits the index of its scales. */
  readonly passing: Uint32Array;
  /** The factors of the gradient to K and to V, for each index. */
  readonly scales: Float32Array;
  /** First pair of each query tile's list, and of each key tile's, counted in pairs. */
  readonly ofQuery: Uint32Array;
  readonly ofKey: Uint32Array;
}

/** The form of a plan. */
export function planForm(
  table: AttentionTable,
  batch: number,
  queryRows: readonly BlockRows[] = allRows(table.layout.blocks),
  room: PlanRoom = { dataSamples: 0, constants: 0 },
): PlanForm {
  const { blocks, length } = table.layout;
  const load = (mine: number, tile: Tile, side: 'query' | 'key') =>
    blocks.reduce((sum, block, other) => {
      const edge = side === 'query' ? table.cells[mine][other] : table.cells[other][mine];
      if (edge.mask === 'none') return sum;
      const before = tile.firstToken - block.start;
      const causal = side === 'query' ? before : block.length - before;
      return sum + (edge.mask === 'full' ? block.length : Math.min(causal, edge.window ?? causal));
    }, 0);
  const sorted = (tiles: Tile[], side: 'query' | 'key') =>
    tiles
      .map((tile) => ({ tile, load: load(tile.block, tile, side) }))
      .sort((a, b) => b.load - a.load)
      .map(({ tile }) => tile);
  const queryTiles = sorted(tilesOf(blocks, queryRows), 'query');
  const keyTiles = sorted(tilesOf(blocks), 'key');
  const tiles = Math.max(queryTiles.length, keyTiles.length);
  if (tiles > MOST_TILES)
    throw new Error(
      `attention: the table has ${tiles} tiles of at most ${TILE} tokens; a plan has room for ${MOST_TILES}`,
    );
  const pairs = tablePairs(table, queryTiles, keyTiles);

  const keyTilesAt = 4 * queryTiles.length * batch;
  const forwardAt = keyTilesAt + 4 * keyTiles.length * batch;
  const dQueryAt = forwardAt + 2 * queryTiles.length * batch;
  const dKeyValueAt = dQueryAt + 2 * queryTiles.length * batch;
  const dataAt = dKeyValueAt + 2 * keyTiles.length * batch;
  const constantsAt = dataAt + room.dataSamples * length;
  const scalesAt = constantsAt + room.constants;
  const words = scalesAt + pairs.scales.length + 3 * 2 * pairs.count * batch;
  return {
    table,
    batch,
    queryRows,
    room,
    queryTiles,
    keyTiles,
    places: { keyTilesAt, forwardAt, dQueryAt, dKeyValueAt, dataAt, constantsAt, scalesAt },
    words,
    pairs,
    natural: naturalTiles(table, queryTiles, keyTiles),
  };
}

/** Tile pairs of which the table allows at least one score, by query tile and in it by key. */
function tablePairs(table: AttentionTable, queryTiles: readonly Tile[], keyTiles: readonly Tile[]): TablePairs {
  const most = queryTiles.length * keyTiles.length;
  const [query, key, flags, window, passing] = Array.from({ length: 5 }, () => new Uint32Array(most));
  const ofQuery = new Uint32Array(queryTiles.length + 1);
  const ofKey = new Uint32Array(keyTiles.length + 1);
  const byToken = [...keyTiles.keys()].sort((a, b) => keyTiles[a].firstToken - keyTiles[b].firstToken);
  const scales = [1, 1];
  const places = new Map([[String(scales), 0]]);
  const passingOf = ({ keyGradient, valueGradient }: Edge) => {
    const [toKey, toValue] = [keyGradient, valueGradient].map(Math.fround);
    const stops = (toKey === 0 ? STOP_KEY : 0) | (toValue === 0 ? STOP_VALUE : 0);
    const factors = [toKey || 1, toValue || 1];
    const place = places.get(String(factors)) ?? places.size;
    if (place === MOST_SCALES)
      throw new Error(`attention: the table scales gradients by more than ${MOST_SCALES - 1} pairs of factors`);
    if (place === places.size) scales.push(...factors);
    places.set(String(factors), place);
    return stops | (place << SCALES_SHIFT);
  };
  const passingOfEdge = table.cells.map((row) => row.map(passingOf));
  let count = 0;
  queryTiles.forEach((tile, q) => {
    for (const k of byToken) {
      const edge = table.cells[tile.block][keyTiles[k].block];
      const kind = edge.mask === 'causal' ? causalKind(edge, tile, keyTiles[k]) : edge.mask;
      if (kind === 'none') continue;
      query[count] = q;
      key[count] = k;
      flags[count] = kind === 'causal' ? MASKED | CAUSAL : 0;
      window[count] = Math.min(edge.window ?? NO_WINDOW, NO_WINDOW);
      passing[count] = passingOfEdge[tile.block][keyTiles[k].block];
      ofKey[k + 1] += 1;
      count += 1;
    }
    ofQuery[q + 1] = count;
  });
  for (let k = 0; k < keyTiles.length; k++) ofKey[k + 1] += ofKey[k];
  return { count, query, key, flags, window, passing, scales: new Float32Array(scales), ofQuery, ofKey };
}

function causalKind(edge: Edge, query: Tile, key: Tile): 'none' | 'causal' | 'full' {
  const window = edge.window ?? Number.POSITIVE_INFINITY;
  const most = query.firstToken + query.rows - 1 - key.firstToken;
  const least = query.firstToken - (key.firstToken + key.rows - 1);
  if (most < 0 || least >= window) return 'none';
  return least >= 0 && most < window ? 'full' : 'causal';
}

/** The words of a batch. Integer work on tiles only: its cost grows with (tokens / TILE)^2. */
export function fillPlan(form: PlanForm, request: PlanRequest): Plan {
  const { table, batch, queryTiles, keyTiles, places, pairs } = form;
  const { length } = table.layout;
  const { validity, lossBlocks, wants, expression } = request;
  const words = new Uint32Array(form.words);
  const { tokenData = [], constants = [] } = expression?.source ?? {};
  words.set(tokenData, places.dataAt);
  words.set(new Uint32Array(Float32Array.from(constants).buffer), places.constantsAt);
  words.set(new Uint32Array(pairs.scales.buffer), places.scalesAt);
  const pairsAt = places.scalesAt + pairs.scales.length;

  const { count } = pairs;
  const queryRows = Uint32Array.from(queryTiles, ({ rows }) => rows);
  const keyRows = Uint32Array.from(keyTiles, ({ rows }) => rows);
  const carriesLoss = Uint8Array.from(queryTiles, ({ block }) => (lossBlocks.includes(block) ? 1 : 0));
  const unwanted = (wants.key ? 0 : STOP_KEY) | (wants.value ? 0 : STOP_VALUE);
  const work = { forward: 0, dQuery: 0, dKeyValue: 0, dKey: 0, dValue: 0 };
  const allowedAt = expression?.allowedPairs ? allowedIn(form, expression.allowedPairs, expression.samples) : null;

  for (let sample = 0; sample < batch; sample++) {
    const queryValid = writeTiles(words, 4 * sample * queryTiles.length, queryTiles, validity, sample * length);
    const keyStart = places.keyTilesAt + 4 * sample * keyTiles.length;
    const keyValid = writeTiles(words, keyStart, keyTiles, validity, sample * length);
    // Where the next pair of each tile goes.
    const opened = (list: number, starts: Uint32Array) =>
      starts.map((start) => pairsAt + 2 * ((3 * sample + list) * count + start));
    const forward = opened(0, pairs.ofQuery);
    const dQuery = opened(1, pairs.ofQuery);
    const dKeyValue = opened(2, pairs.ofKey);
    for (let pair = 0; pair < count; pair++) {
      const query = pairs.query[pair];
      const key = pairs.key[pair];
      if (queryValid[query] === 0 || keyValid[key] === 0) continue;
      const area = queryRows[query] * keyRows[key];
      let flags = pairs.flags[pair];
      if (allowedAt) {
        const allowed = allowedAt(sample, query, key);
        if (allowed === 'none') continue;
        if (allowed === 'some') flags |= MASKED | EXPRESSION;
      }
      // All 32 bits: a tile with fewer rows, or with padding, is masked score by score.
      if (keyValid[key] !== 0xffffffff) flags |= MASKED;
      const window = pairs.window[pair];
      words[forward[query]] = flags | key;
      words[forward[query] + 1] = window;
      forward[query] += 2;
      work.forward += area;
      if (carriesLoss[query] === 0) continue;
      const passing = pairs.passing[pair] | unwanted;
      const stops = passing & (STOP_KEY | STOP_VALUE);
      const stopped = stops === (STOP_KEY | STOP_VALUE);
      if (wants.query) work.dQuery += area;
      if (wants.query || !stopped) {
        words[dQuery[query]] = flags | passing | key;
        words[dQuery[query] + 1] = window;
        dQuery[query] += 2;
      }
      if (stopped) continue;
      words[dKeyValue[key]] = flags | passing | query;
      words[dKeyValue[key] + 1] = window;
      dKeyValue[key] += 2;
      work.dKeyValue += area;
      if ((stops & STOP_KEY) === 0) work.dKey += area;
      if ((stops & STOP_VALUE) === 0) work.dValue += area;
    }
    const close = (at: number, tiles: number, list: number, starts: Uint32Array, ends: Uint32Array) => {
      for (let tile = 0; tile < tiles; tile++) {
        const start = pairsAt + 2 * ((3 * sample + list) * count + starts[tile]);
        words[at + 2 * (sample * tiles + tile)] = start;
        words[at + 2 * (sample * tiles + tile) + 1] = (ends[tile] - start) / 2;
      }
    };
    close(places.forwardAt, queryTiles.length, 0, pairs.ofQuery, forward);
    close(places.dQueryAt, queryTiles.length, 1, pairs.ofQuery, dQuery);
    close(places.dKeyValueAt, keyTiles.length, 2, pairs.ofKey, dKeyValue);
  }
  return { form, words, work };
}

/** Writes the tiles of a sample; returns the bits of the real tokens of each. */
function writeTiles(
  words: Uint32Array,
  start: number,
  tiles: readonly Tile[],
  validity: ArrayLike<number> | null,
  sampleStart: number,
): Uint32Array {
  return Uint32Array.from(tiles, ({ firstRow, rows, firstToken }, index) => {
    let bits = rows === 32 ? 0xffffffff : 2 ** rows - 1;
    for (let row = 0; validity && row < rows; row++)
      if (!validity[sampleStart + firstToken + row]) bits = (bits & ~(1 << row)) >>> 0;
    words.set([firstRow, rows, firstToken, bits], start + 4 * index);
    return bits;
  });
}

/** How much of a pair of this form's tiles a mask allows; for a query tile that is part of others, how much of those. */
function allowedIn({ table, natural }: PlanForm, allowedPairs: Uint32Array, samples: number) {
  const tiles = tilesOf(table.layout.blocks);
  return (sample: number, q: number, k: number): 'none' | 'some' | 'all' => {
    const key = natural.key[k];
    let allowed = 0;
    let area = 0;
    for (const query of natural.query[q]) {
      allowed += allowedPairs[((samples === 1 ? 0 : sample) * tiles.length + query) * tiles.length + key];
      area += tiles[query].rows * tiles[key].rows;
    }
    return allowed === 0 ? 'none' : allowed === area ? 'all' : 'some';
  };
}

/** Indices, in the order of tilesOf of the whole layout, of the tiles that each of a form's tiles overlaps. */
function naturalTiles(table: AttentionTable, queryTiles: readonly Tile[], keyTiles: readonly Tile[]) {
  const ofToken = new Map<number, number>();
  tilesOf(table.layout.blocks).forEach(({ firstToken, rows }, index) => {
    for (let row = 0; row < rows; row++) ofToken.set(firstToken + row, index);
  });
  const first = ({ firstToken }: Tile) => ofToken.get(firstToken)!;
  const last = ({ firstToken, rows }: Tile) => ofToken.get(firstToken + rows - 1)!;
  return {
    query: queryTiles.map((tile) => (first(tile) === last(tile) ? [first(tile)] : [first(tile), last(tile)])),
    key: keyTiles.map(first),
  };
}
