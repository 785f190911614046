/** Times single tasks one after the other with tinybench; what is compared runs in rounds instead. */
import { Bench, type Fn, type Statistics } from 'tinybench';

export type { Statistics };

/**
 * The statistics of each task in milliseconds: it warms up, then runs for `milliseconds` and at least `iterations` times. A task may
 * return { overriddenDuration } where only a part of it counts; `milliseconds` are then those of the parts.
 */
export async function timeSingle<Name extends string>(
  tasks: Readonly<Record<Name, Fn>>,
  { milliseconds, iterations = 16 }: { readonly milliseconds: number; readonly iterations?: number },
): Promise<Record<Name, Statistics>> {
  const bench = new Bench({ time: milliseconds, iterations, warmupTime: 0, warmupIterations: 2, throws: true });
  for (const [name, run] of Object.entries<Fn>(tasks)) bench.add(name, run);
  const results = await bench.run();
  return Object.fromEntries(
    results.map(({ name, result }) => {
      if (!('latency' in result)) throw new Error(`tinybench: ${name} is ${result.state}`);
      return [name, result.latency];
    }),
  ) as Record<Name, Statistics>;
}
