/** The duration of a part of a policy call, as `onLatency` reports it. */
export interface PartLatency {
  readonly part: string;
  readonly milliseconds: number;
}

/** Milliseconds by part; numbered parts, such as "Euler step 3", are together under their name. */
export function timesByPart(latency: readonly PartLatency[]): ReadonlyMap<string, readonly number[]> {
  const times = new Map<string, number[]>();
  for (const { part, milliseconds } of latency) {
    const name = part.replace(/ \d+$/, '');
    times.set(name, [...(times.get(name) ?? []), milliseconds]);
  }
  return times;
}
