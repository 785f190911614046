/** Fills the words of a plan (attention-plan.ts) for one batch: its tiles with their padding, and the lists of pairs that are live. */
import {
  type Plan,
  type PlanExpression,
  type PlanForm,
  type PlanRequest,
  type PlanWork,
  pairFlags,
  pairWords,
} from './attention-plan.ts';
import { TILE, type Tile, tilesOf } from './attention-tiles.ts';

const { masked: MASKED, expression: EXPRESSION, stopKey: STOP_KEY, stopValue: STOP_VALUE } = pairFlags;
/** The bits of a full tile without padding. */
const ALL_ROWS = 0xffffffff;

/** Makes a batch's plan. Takes time in proportion to the pairs that the table allows, and to the tokens. */
export function fillPlan(form: PlanForm, request: PlanRequest): Plan {
  const { pairs, places } = form;
  const words = new Uint32Array(form.words);
  const { tokenData = [], constants = [] } = request.expression?.source ?? {};
  words.set(tokenData, places.dataAt);
  words.set(new Uint32Array(Float32Array.from(constants).buffer), places.constantsAt);
  words.set(new Uint32Array(pairs.scales.buffer), places.scalesAt);
  const work = { forward: 0, dQuery: 0, dKeyValue: 0, dKey: 0, dValue: 0 };
  const allowed = request.expression && allowedIn(form, request.expression);
  for (let sample = 0; sample < form.batch; sample++) fillSample(words, form, request, sample, work, allowed);
  return { form, words, work };
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };

/** Writes the tiles and lists of one sample, and adds their pairs to `work`. */
function fillSample(
  words: Uint32Array,
  { table, queryTiles, keyTiles, places, pairs }: PlanForm,
  { validity, lossBlocks, wants }: PlanRequest,
  sample: number,
  work: Writable<PlanWork>,
  allowed: Allowed | null | undefined,
): void {
  const { scalesAt, forwardAt, dQueryAt, dKeyValueAt } = places;
  const tokensAt = sample * table.layout.length;
  const queryReal = writeTiles(words, 4 * sample * queryTiles.length, queryTiles, validity, tokensAt);
  const keyReal = writeTiles(words, places.keyTilesAt + 4 * sample * keyTiles.length, keyTiles, validity, tokensAt);
  const pairsAt = scalesAt + pairs.scales.length + sample * pairWords(pairs);
  const ofQueries = 2 * pairs.byQuery[queryTiles.length];
  const forward = new Lists(words, pairsAt, pairs.byQuery);
  const dQuery = new Lists(words, pairsAt + ofQueries, pairs.byQuery);
  const dKeyValue = new Lists(words, pairsAt + 2 * ofQueries, pairs.byKey);
  const unwanted = (wants.key ? 0 : STOP_KEY) | (wants.value ? 0 : STOP_VALUE);

  for (const { query, first, end, flags: ofRun, window, passing: ofEdge } of pairs.runs) {
    if (queryReal[query] === 0) continue;
    const { block, rows } = queryTiles[query];
    const passing = ofEdge | unwanted;
    const carriesLoss = lossBlocks.includes(block);
    const toQuery = carriesLoss && wants.query;
    const toKey = carriesLoss && (passing & STOP_KEY) === 0;
    const toValue = carriesLoss && (passing & STOP_VALUE) === 0;
    let keys = 0;
    for (let at = first; at < end; at++) {
      const key = pairs.keysByToken[at];
      if (keyReal[key] === 0) continue;
      let flags = ofRun;
      if (allowed) {
        const part = allowed(sample, query, key);
        if (part === 'none') continue;
        if (part === 'some') flags |= MASKED | EXPRESSION;
      }
      // A tile with fewer rows, or with padding, is masked score by score.
      if (keyReal[key] !== ALL_ROWS) flags |= MASKED;
      forward.append(query, flags | key, window);
      if (toQuery || toKey || toValue) dQuery.append(query, flags | passing | key, window);
      if (toKey || toValue) dKeyValue.append(key, flags | passing | query, window);
      keys += keyTiles[key].rows;
    }
    const area = rows * keys;
    work.forward += area;
    if (toQuery) work.dQuery += area;
    if (toKey || toValue) work.dKeyValue += area;
    if (toKey) work.dKey += area;
    if (toValue) work.dValue += area;
  }
  forward.close(forwardAt + 2 * sample * queryTiles.length);
  dQuery.close(dQueryAt + 2 * sample * queryTiles.length);
  dKeyValue.close(dKeyValueAt + 2 * sample * keyTiles.length);
}

/** The lists of all tiles of one kind, in one sample. */
class Lists {
  /** Where the next pair of each tile goes. */
  private readonly next: Uint32Array;

  constructor(
    private readonly words: Uint32Array,
    private readonly at: number,
    /** Where the list of each tile begins, in pairs. */
    private readonly starts: Uint32Array,
  ) {
    this.next = starts.map((start) => at + 2 * start);
  }

  append(tile: number, pair: number, window: number): void {
    const place = this.next[tile];
    this.words[place] = pair;
    this.words[place + 1] = window;
    this.next[tile] = place + 2;
  }

  /** Writes where each list begins, and how many pairs it has. */
  close(at: number): void {
    for (let tile = 0; tile < this.starts.length - 1; tile++) {
      const start = this.at + 2 * this.starts[tile];
      this.words[at + 2 * tile] = start;
      this.words[at + 2 * tile + 1] = (this.next[tile] - start) / 2;
    }
  }
}

/** Writes the tiles of a sample; returns the bits of the real tokens of each. */
function writeTiles(
  words: Uint32Array,
  start: number,
  tiles: readonly Tile[],
  validity: ArrayLike<number> | null,
  tokensAt: number,
): Uint32Array {
  const real = new Uint32Array(tiles.length);
  tiles.forEach(({ firstRow, rows, firstToken }, index) => {
    let bits = rows === TILE ? ALL_ROWS : 2 ** rows - 1;
    for (let row = 0; validity && row < rows; row++) if (!validity[tokensAt + firstToken + row]) bits &= ~(1 << row);
    real[index] = bits;
    const at = start + 4 * index;
    words[at] = firstRow;
    words[at + 1] = rows;
    words[at + 2] = firstToken;
    words[at + 3] = bits;
  });
  return real;
}

type Allowed = (sample: number, query: number, key: number) => 'none' | 'some' | 'all';

/**
 * How much of a pair of this form's tiles the mask of an expression allows. It is counted on the tiles of the whole layout:
 * a query tile that begins inside of one of them overlaps the next as well, and takes the counts of both.
 */
function allowedIn(form: PlanForm, { allowedPairs, samples }: PlanExpression): Allowed | null {
  if (!allowedPairs) return null;
  const { blocks } = form.table.layout;
  const counted = tilesOf(blocks);
  const firstOf = blocks.map((_, block) => counted.findIndex((tile) => tile.block === block));
  /** Index of the counted tile that holds a row of a tile. */
  const holding = ({ block, firstToken }: Tile, row: number) =>
    firstOf[block] + Math.floor((firstToken + row - blocks[block].start) / TILE);
  const queries = form.queryTiles.map((tile) => ({ first: holding(tile, 0), last: holding(tile, tile.rows - 1) }));
  const keys = form.keyTiles.map((tile) => holding(tile, 0));
  return (sample, q, k) => {
    const { first, last } = queries[q];
    const key = keys[k];
    let allowed = 0;
    let area = 0;
    for (let query = first; query <= last; query++) {
      allowed += allowedPairs[((samples === 1 ? 0 : sample) * counted.length + query) * counted.length + key];
      area += counted[query].rows * counted[key].rows;
    }
    return allowed === 0 ? 'none' : allowed === area ? 'all' : 'some';
  };
}
