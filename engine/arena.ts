/**
 * Arenas: where each allocation of a recorded step lies, in as few bytes as can be.
 *
 * Two allocations that are in use at the same moment must not overlap. Allocations of one operation, of which it reads one and
 * writes the other, must lie in different buffers altogether: WebGPU forbids to read and to write one buffer in one dispatch,
 * whatever the ranges. So this is the packing of rectangles (time by bytes) into several strips, with a colouring on top.
 *
 * Each allocation in turn is put where it makes the arenas grow least, of several such places into the tightest gap. All hangs on
 * the order: what made them grow above the lower bound comes earlier in the next attempt (squeaky wheel optimisation, Joslin and
 * Clements 1999), and the smallest plan is taken.
 */
import { ALIGNMENT, roundUp } from './memory.ts';

/** The allocations that one operation of a step uses, by index. */
export interface Uses {
  readonly reads: readonly number[];
  readonly writes: readonly number[];
}

export interface ArenaPlan {
  /** For each allocation; null where no operation uses it. */
  readonly places: readonly (Place | null)[];
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

/** An allocation at its place: bytes from `offset` to before `end`, in use from operation `first` to `last`. */
type Placed = Readonly<Record<'index' | 'first' | 'last' | 'offset' | 'end', number>>;

interface Arena {
  bytes: number;
  /** In the order of their offsets. */
  readonly placed: Placed[];
}

const span = ({ first, last }: Allocation) => last - first + 1;
/** The first attempts begin with the longest in use, and the largest; largest first among equals. */
const firstOrders: readonly ((a: Allocation, b: Allocation) => number)[] = [
  (a, b) => span(b) - span(a) || b.bytes - a.bytes || a.index - b.index,
  (a, b) => b.bytes - a.bytes || span(b) - span(a) || a.index - b.index,
];
const ATTEMPTS = 32;
/** How much earlier the next attempt places what was placed badly: a quarter of the way from the front. */
const FORWARD = 0.25;
/** A plan so near to the lower bound that there is no other attempt. */
const NEAR = 1.05;

/**
 * Plans the places of allocations of `sizes` bytes that are used by `operations`, in this order.
 *
 * No arena has more than `limit` bytes, unless a single allocation has.
 */
export function planArenas(sizes: readonly number[], operations: readonly Uses[], limit: number): ArenaPlan {
  const allocations = allocationsOf(sizes, operations);
  const lowerBoundBytes = largestSum(allocations, operations.length);
  let best: Packing | null = null;
  for (const firstOrder of firstOrders) {
    let order = allocations.toSorted(firstOrder);
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (best && best.bytes <= NEAR * lowerBoundBytes) break;
      const packing = pack(order, limit, lowerBoundBytes);
      if (!best || packing.bytes < best.bytes) best = packing;
      const rank = new Map(
        order.map((allocation, i) => [allocation, packing.blamed.has(allocation) ? FORWARD * i : i]),
      );
      order = order.toSorted((a, b) => rank.get(a)! - rank.get(b)!);
    }
  }
  const arenas = best?.arenas ?? [];
  const places: (Place | null)[] = sizes.map(() => null);
  arenas.forEach(({ placed }, arena) => {
    for (const { index, offset } of placed) places[index] = { arena, offset };
  });
  return { places, arenaBytes: arenas.map(({ bytes }) => bytes), lowerBoundBytes };
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

interface Packing {
  readonly arenas: readonly Arena[];
  /** The sum over all arenas. */
  readonly bytes: number;
  /** The allocations that made the arenas grow above the lower bound. */
  readonly blamed: ReadonlySet<Allocation>;
}

function pack(allocations: readonly Allocation[], limit: number, lowerBoundBytes: number): Packing {
  const arenas: Arena[] = [];
  const arenaOf = new Map<number, Arena>();
  const blamed = new Set<Allocation>();
  let total = 0;
  for (const allocation of allocations) {
    const { index, bytes, first, last, conflicts } = allocation;
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
    const { arena, gap, growth } = choice;
    const { offset } = gap;
    const behind = arena.placed.findIndex((other) => other.offset > offset);
    const own = { index, first, last, offset, end: offset + bytes };
    arena.placed.splice(behind < 0 ? arena.placed.length : behind, 0, own);
    arena.bytes += growth;
    arenaOf.set(index, arena);
    total += growth;
    if (growth > 0 && total > lowerBoundBytes) blamed.add(allocation);
  }
  return { arenas, bytes: total, blamed };
}

type Gap = Readonly<Record<'offset' | 'bytes', number>>;

/** The smallest gap between what is in use at the same time that holds the allocation; else the one behind them all, without end. */
function tightestGap({ placed, bytes: end }: Arena, { bytes, first, last }: Allocation): Gap {
  let [offset, smallest] = [-1, Number.POSITIVE_INFINITY];
  let top = 0;
  // A large model has thousands of allocations, and this loop sees each beside each in every attempt.
  for (const own of placed) {
    if (own.last < first || own.first > last) continue;
    const gap = own.offset - top;
    if (gap >= bytes && gap < smallest) [offset, smallest] = [top, gap];
    if (own.end > top) top = own.end;
  }
  const gap = end - top;
  if (gap >= bytes && gap < smallest) [offset, smallest] = [top, gap];
  return { offset: offset < 0 ? top : offset, bytes: smallest };
}
