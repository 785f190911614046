import { expect } from 'vitest';

/** Counts calls of the methods of each object whose names match, until its `end`, which gives the counts by name. */
export function countCalls(...watched: readonly (readonly [object, RegExp])[]): { end(): Record<string, number> } {
  const counts: Record<string, number> = {};
  const undo = watched.flatMap(([target, pattern]) => {
    const names = Object.getOwnPropertyNames(Object.getPrototypeOf(target)).filter((name) => pattern.test(name));
    expect(names.length).toBeGreaterThan(0);
    const own = target as Record<string, unknown>;
    return names.map((name) => {
      const method = own[name] as (...values: unknown[]) => unknown;
      own[name] = (...values: unknown[]) => {
        counts[name] = (counts[name] ?? 0) + 1;
        return method.apply(target, values);
      };
      return () => delete own[name];
    });
  });
  return {
    end() {
      for (const restore of undo) restore();
      return counts;
    },
  };
}
