import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { planArenas, type Uses } from '../../engine/arena.ts';
import { Random } from '../../engine/index.ts';

const MIB = 2 ** 20;

/** First and last operation that uses each allocation. */
function spans(sizes: readonly number[], operations: readonly Uses[]): ([number, number] | null)[] {
  return sizes.map((_, index) => {
    const used = operations.flatMap(({ reads, writes }, at) => ([...reads, ...writes].includes(index) ? [at] : []));
    return used.length > 0 ? [used[0], used[used.length - 1]] : null;
  });
}

/** Plans, checks all that every plan must fulfil by comparing pairs, and gives the ratio to the lower bound. */
function checkedRatio(sizes: readonly number[], operations: readonly Uses[], limit: number): number {
  const { places, arenaBytes, lowerBoundBytes } = planArenas(sizes, operations, limit);
  const live = spans(sizes, operations);
  const rounded = sizes.map((bytes) => Math.ceil(bytes / 256) * 256);
  expect(places.map((place) => place === null)).toEqual(live.map((span) => span === null));
  places.forEach((place, a) => {
    if (!place) return;
    expect(place.offset % 256).toBe(0);
    expect(place.offset + rounded[a]).toBeLessThanOrEqual(arenaBytes[place.arena]);
    places.slice(0, a).forEach((other, b) => {
      if (!other || other.arena !== place.arena) return;
      const together = live[a]![0] <= live[b]![1] && live[b]![0] <= live[a]![1];
      const overlap = place.offset < other.offset + rounded[b] && other.offset < place.offset + rounded[a];
      expect(together && overlap, `allocations ${a} and ${b} overlap`).toBe(false);
    });
  });
  for (const { reads, writes } of operations) {
    const written = writes.map((index) => places[index]!.arena);
    for (const index of reads) expect(written, 'an arena is read and written').not.toContain(places[index]!.arena);
  }
  const largest = Math.max(...rounded);
  for (const bytes of arenaBytes) expect(bytes).toBeLessThanOrEqual(Math.max(limit, largest));
  const sums = operations.map((_, at) =>
    rounded.reduce((sum, bytes, i) => (live[i] && live[i][0] <= at && at <= live[i][1] ? sum + bytes : sum), 0),
  );
  expect(lowerBoundBytes).toBe(Math.max(0, ...sums));
  const total = arenaBytes.reduce((sum, bytes) => sum + bytes, 0);
  expect(total).toBeGreaterThanOrEqual(lowerBoundBytes);
  return lowerBoundBytes === 0 ? 1 : total / lowerBoundBytes;
}

/** A network of residual blocks, forward and backward: activations live until their gradient is computed. */
function network(seed: number, layers: number): { sizes: number[]; operations: Uses[] } {
  const random = new Random(seed, 0, 0);
  const sizes: number[] = [];
  const operations: Uses[] = [];
  const allocate = (bytes: number) => sizes.push(bytes) - 1;
  const bytes = () => 1 + random.integer(sizes.length, MIB);
  const tape: { inputs: number[]; output: number }[] = [];
  const op = (inputs: number[], size: number) => {
    const output = allocate(size);
    operations.push({ reads: inputs, writes: [output] });
    tape.push({ inputs, output });
    return output;
  };
  let x = allocate(bytes());
  operations.push({ reads: [], writes: [x] });
  for (let layer = 0; layer < layers; layer++) {
    const width = bytes();
    const normed = op([x], sizes[x]);
    const activated = op([op([normed], width), op([normed], width)], width);
    const slices = allocate(4 * width);
    operations.push({ reads: [activated], writes: [slices] });
    x = op([x, op([activated, slices], sizes[x])], sizes[x]);
  }
  const gradients = new Map([[x, allocate(sizes[x])]]);
  operations.push({ reads: [x], writes: [gradients.get(x)!] });
  for (const { inputs, output } of tape.reverse())
    for (const input of inputs) {
      const made = allocate(sizes[input]);
      operations.push({ reads: [gradients.get(output)!, ...inputs], writes: [made] });
      const present = gradients.get(input);
      gradients.set(input, made);
      if (present === undefined) continue;
      const sum = allocate(sizes[input]);
      operations.push({ reads: [present, made], writes: [sum] });
      gradients.set(input, sum);
    }
  return { sizes, operations };
}

describe('arenas', () => {
  test('no overlap, no buffer read and written at once, nothing above the limit: any graph', () => {
    const graph = fc.integer({ min: 1, max: 24 }).chain((count) => {
      const index = fc.integer({ min: 0, max: count - 1 });
      const uses = fc.record({
        used: fc.uniqueArray(index, { minLength: 1, maxLength: 6 }),
        written: fc.integer({ min: 0, max: 2 }),
      });
      const sizes = fc.array(fc.integer({ min: 1, max: 20_000 }), { minLength: count, maxLength: count });
      return fc.tuple(sizes, fc.array(uses, { maxLength: 40 }), fc.constantFrom(4096, 65_536, 128 * MIB));
    });
    const property = fc.property(graph, ([sizes, drawn, limit]) => {
      const operations = drawn.map(({ used, written }) => ({
        writes: used.slice(0, written),
        reads: used.slice(written),
      }));
      checkedRatio(sizes, operations, limit);
    });
    fc.assert(property, { seed: 1, numRuns: 500 });
  });

  test.each([1, 2, 3, 5, 8, 13])('networks of %i layers take at most 1.25 times the lower bound', (layers) => {
    for (let seed = 0; seed < 4; seed++) {
      const { sizes, operations } = network(seed, layers);
      for (const limit of [128 * MIB, 8 * MIB])
        expect(checkedRatio(sizes, operations, limit)).toBeLessThanOrEqual(1.25);
    }
  });

  test('memory is used again as soon as its last reader has run, though not by what that one writes', () => {
    const chain = Array.from({ length: 9 }, (_, i) => ({ reads: i > 0 ? [i - 1] : [], writes: [i] }));
    const { places, arenaBytes } = planArenas(Array(9).fill(1000), chain, MIB);
    expect(arenaBytes).toEqual([1024, 1024]);
    expect(places.map((place) => place!.arena)).toEqual([0, 1, 0, 1, 0, 1, 0, 1, 0]);
  });

  test('one allocation bound to be read and to be written is refused', () => {
    expect(() => planArenas([256], [{ reads: [0], writes: [0] }], MIB)).toThrow(
      'operation 0 reads and writes allocation 0 through two bindings',
    );
  });
});
