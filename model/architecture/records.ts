/** The same names with other values. */
export const mapped = <T, R>(
  record: Readonly<Record<string, T>>,
  change: (own: T, name: string) => R,
): Record<string, R> => Object.fromEntries(Object.entries(record).map(([name, own]) => [name, change(own, name)]));
