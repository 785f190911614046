/** Rows as lines for people, and values by their key. */
import type { Spread } from './statistics.ts';

/** Three significant digits. */
export function digits(value: number): string {
  return value >= 1000 ? value.toFixed(0) : value.toPrecision(3);
}

export function quartiles({ lowerQuartile, upperQuartile }: Spread): string {
  return `${digits(lowerQuartile)} - ${digits(upperQuartile)}`;
}

/** Values by their key, in the order of their first ones. */
export function groupBy<T>(values: Iterable<T>, keyOf: (value: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const value of values) groups.set(keyOf(value), [...(groups.get(keyOf(value)) ?? []), value]);
  return groups;
}

/** The value of a key, which is made when it is asked for the first time. */
export function remembered<Key, Value>(values: Map<Key, Value>, key: Key, make: () => Value): Value {
  const value = values.get(key) ?? make();
  values.set(key, value);
  return value;
}

/** Rows as lines. The first `left` columns are aligned to the left, the others to the right. */
export function aligned(rows: readonly string[][], left = 4): string[] {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  return rows.map((row) =>
    `  ${row.map((cell, i) => (i < left ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('  ')}`.trimEnd(),
  );
}
