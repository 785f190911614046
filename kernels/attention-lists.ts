/** The lists of a plan as pairs of tiles, for people who look at them. */
import { type Plan, pairFlags, TILE_OF_PAIR } from './attention-plan.ts';
import type { Tile } from './attention-tiles.ts';

export const planLists = ['forward', 'dQuery', 'dKeyValue'] as const;
export type PlanList = (typeof planLists)[number];

export interface LivePair {
  readonly query: Tile;
  readonly key: Tile;
  /** The kernel asks for each of its scores whether it counts: at a causal edge, by an expression, or in a tile of fewer keys. */
  readonly masked: boolean;
  /** Whether the edge of a backward list passes gradient to K, and to V. */
  readonly toKey: boolean;
  readonly toValue: boolean;
}

/** The pairs of a list, in the order in which its kernel takes them. */
export function livePairs({ form, words }: Plan, list: PlanList, sample = 0): LivePair[] {
  const { queryTiles, keyTiles, places } = form;
  const byKey = list === 'dKeyValue';
  const [own, others] = byKey ? [keyTiles, queryTiles] : [queryTiles, keyTiles];
  const at = { forward: places.forwardAt, dQuery: places.dQueryAt, dKeyValue: places.dKeyValueAt }[list];
  return own.flatMap((tile, index) => {
    const begin = at + 2 * (sample * own.length + index);
    const [start, count] = [words[begin], words[begin + 1]];
    return Array.from({ length: count }, (_, pair) => {
      const word = words[start + 2 * pair];
      const other = others[word & TILE_OF_PAIR];
      return {
        ...(byKey ? { query: other, key: tile } : { query: tile, key: other }),
        masked: (word & pairFlags.masked) !== 0,
        toKey: (word & pairFlags.stopKey) === 0,
        toValue: (word & pairFlags.stopValue) === 0,
      };
    });
  });
}
