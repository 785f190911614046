/** A command as one build of a comparison (cli/bench-builds.ts): it measures the rows that another process asks for. */
import type { Entrant } from './rounds.ts';

/** The variable of the environment that tells a command so. */
export const SERVES = 'INSULA_BENCH_SERVES';

/** An answer of a build: first its adapter and rows, then the milliseconds of each row that it is asked for. */
export interface Ready {
  readonly adapter: string;
  readonly names: readonly string[];
}
export interface Sampled {
  readonly milliseconds: number;
}

/** Measures the rows that the process which started this one asks for, until it is gone; does nothing if none asks. */
export async function serveRequests(adapter: string, entrants: readonly Entrant[]): Promise<void> {
  if (process.env[SERVES] !== '1') return;
  const byName = new Map(entrants.map((entrant) => [entrant.name, entrant]));
  const started = new Set<string>();
  const send = (own: Ready | Sampled) => void process.send!(own);
  await new Promise((_, reject) => {
    process.on('disconnect', () => process.exit(0));
    process.on('message', ({ name }: { name: string }) => {
      const entrant = byName.get(name)!;
      const measure = async () => {
        if (!started.has(name)) await entrant.start();
        started.add(name);
        send({ milliseconds: await entrant.sample() });
      };
      measure().catch(reject);
    });
    send({ adapter, names: [...byName.keys()] });
  });
}
