/**
 * Arenas: where each allocation of a recorded step lies, in as few bytes as can be.
 *
 * Two allocations that are in use at the same moment must not overlap. Allocations of one operation, of which it reads one and
 * writes the other, must lie in different buffers altogether: WebGPU forbids to read and to write one buffer in one dispatch,
 * whatever the ranges. So this is the packing of rectangles (time by bytes) into several strips, with a colouring on top. Each
 * allocation in turn is put where it makes the arenas grow least, of several such places into the tightest gap. What order is best
 * depends on the step: several are tried, and the smallest plan is taken.
 */
import { ALIGNMENT, roundUp } from './memory.ts';

/** What one operation of a step uses, as indices of allocations. */
export interface Uses {
  readonly reads: readonly number[];
  readonly writes: readonly number[];
}

export interface ArenaPlan {
  /** For each allocation; null where no operation uses it. */
  readonly places: readonly (Place | null)[];
  /** Bytes of each arena. */
  readonly arenaBytes: readonly number[];
  /** The largest sum of bytes that are in use at one operation: no plan has less. */
  readonly lowerBoundBytes: number;
}

export interface Place {
  readonly arena: number;
  /** Bytes, a multiple of 256. */
  readonly offset: number;
}

interface Allocation {
  readonly index: number;
  readonly bytes: number;
  /** Indices of the first and the last operation that uses it. */
  readonly first: number;
  readonly last: number;
  /** Allocations that must not share its buffer. */
  readonly conflicts: ReadonlySet<number>;
}

interface Placed {
  readonly allocation: Allocation;
  readonly offset: number;
}

interface Arena {
  bytes: number;
  /** In the order of their offsets. */
  readonly placed: Placed[];
}

type Order = (a: Allocation, b: Allocation) => number;

const span = ({ first, last }: Allocation) => last - first + 1;
const orders: readonly Order[] = [
  (a, b) => b.bytes - a.bytes,
  (a, b) => b.bytes * span(b) - a.bytes * span(a),
  (a, b) => span(b) - span(a),
  (a, b) => a.first - b.first,
  (a, b) => b.last - a.last,
];
/** A plan so near to the lower bound that no other order is tried. */
const NEAR = 1.02;

/**
 * Plans the places of allocations of `sizes` bytes that are used by `operations`, in this order.
 *
 * No arena has more than `limit` bytes, unless a single allocation has.
 */
export function planArenas(sizes: readonly number[], operations: readonly Uses[], limit: number): ArenaPlan {
  const allocations = allocationsOf(sizes, operations);
  const lowerBoundBytes = largestSum(allocations, operations.length);
  let best: Arena[] = [];
  let bestBytes = Number.POSITIVE_INFINITY;
  for (const order of orders) {
    // Largest first among equals, then by index: the same step has the same plan everywhere.
    const sorted = allocations.toSorted((a, b) => order(a, b) || b.bytes - a.bytes || a.index - b.index);
    const arenas = packed(sorted, limit);
    const bytes = arenas.reduce((sum, arena) => sum + arena.bytes, 0);
    if (bytes < bestBytes) [best, bestBytes] = [arenas, bytes];
    if (bestBytes <= NEAR * lowerBoundBytes) break;
  }
  const places: (Place | null)[] = sizes.map(() => null);
  best.forEach(({ placed }, arena) => {
    for (const { allocation, offset } of placed) places[allocation.index] = { arena, offset };
  });
  return { places, arenaBytes: best.map(({ bytes }) => bytes), lowerBoundBytes };
}

function allocationsOf(sizes: readonly number[], operations: readonly Uses[]): Allocation[] {
  const found = new Map<number, { first: number; last: number; conflicts: Set<number> }>();
  operations.forEach(({ reads, writes }, at) => {
    for (const index of [...reads, ...writes]) {
      const known = found.get(index);
      if (known) known.last = at;
      else found.set(index, { first: at, last: at, conflicts: new Set() });
    }
    for (const read of reads)
      for (const write of writes) {
        if (read === write) throw new Error(`operation ${at} reads and writes allocation ${read} through two bindings`);
        found.get(read)!.conflicts.add(write);
        found.get(write)!.conflicts.add(read);
      }
  });
  return [...found].map(([index, use]) => ({ index, bytes: roundUp(sizes[index], ALIGNMENT), ...use }));
}

function largestSum(allocations: readonly Allocation[], operations: number): number {
  const change = new Float64Array(operations + 1);
  for (const { bytes, first, last } of allocations) {
    change[first] += bytes;
    change[last + 1] -= bytes;
  }
  let sum = 0;
  return change.reduce((most, step) => {
    sum += step;
    return Math.max(most, sum);
  }, 0);
}

/** Places the allocations one after another. */
function packed(allocations: readonly Allocation[], limit: number): Arena[] {
  const arenas: Arena[] = [];
  const arenaOf = new Map<number, Arena>();
  for (const allocation of allocations) {
    const { index, bytes, conflicts } = allocation;
    const forbidden = new Set([...conflicts].map((other) => arenaOf.get(other)));
    let choice: { arena: Arena; gap: Gap; growth: number } | null = null;
    for (const arena of arenas) {
      if (forbidden.has(arena)) continue;
      const gap = tightestGap(arena, allocation);
      const end = gap.offset + bytes;
      const growth = Math.max(0, end - arena.bytes);
      if (growth > 0 && end > limit) continue;
      if (!choice || growth < choice.growth || (growth === choice.growth && gap.bytes < choice.gap.bytes))
        choice = { arena, gap, growth };
    }
    if (!choice || choice.growth > bytes) {
      const arena: Arena = { bytes: 0, placed: [] };
      arenas.push(arena);
      choice = { arena, gap: { offset: 0, bytes }, growth: bytes };
    }
    const { arena, gap } = choice;
    const behind = arena.placed.findIndex(({ offset }) => offset > gap.offset);
    arena.placed.splice(behind < 0 ? arena.placed.length : behind, 0, { allocation, offset: gap.offset });
    arena.bytes = Math.max(arena.bytes, gap.offset + bytes);
    arenaOf.set(index, arena);
  }
  return arenas;
}

interface Gap {
  readonly offset: number;
  readonly bytes: number;
}

/** The smallest gap between what is in use at the same time that holds the allocation; else the one behind them all, without end. */
function tightestGap({ placed, bytes: end }: Arena, { bytes, first, last }: Allocation): Gap {
  const gaps: Gap[] = [];
  let top = 0;
  for (const { allocation, offset } of placed) {
    if (allocation.last < first || allocation.first > last) continue;
    gaps.push({ offset: top, bytes: offset - top });
    top = Math.max(top, offset + allocation.bytes);
  }
  gaps.push({ offset: top, bytes: end - top });
  const behind = { offset: top, bytes: Number.POSITIVE_INFINITY };
  return gaps.reduce((best, gap) => (gap.bytes >= bytes && gap.bytes < best.bytes ? gap : best), behind);
}
