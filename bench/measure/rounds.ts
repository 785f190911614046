/**
 * Times several pieces of work beside each other: each starts once, which compiles it, then all run in rounds. The speed of a shared
 * machine changes within seconds, so only what ran in the same rounds can be compared.
 */
import { type Device, InputError } from '../../engine/index.ts';
import type { Entrant } from './entrant.ts';
import { type OtherBuild, serveRequests, servesRequests } from './other-build.ts';

/** The details of progress: alternative texts, the longest first. */
type OnProgress = (what: string, done: number, total: number, details?: readonly string[]) => void;

export interface Budget {
  /** The time for everything, compilation included. */
  readonly seconds: number;
  /** When it begins, in milliseconds of performance.now(); by default now. */
  readonly begin?: number;
  /** The most rounds. */
  readonly rounds?: number;
  /** Ends the rounds; what was measured until then is the result. */
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
  /** Another build, which runs the entrants of the same names in the same rounds. */
  readonly other?: OtherBuild;
}

export interface Rounds {
  /** Milliseconds by entrant, one for each round. */
  readonly times: readonly (readonly number[])[];
  /** Those of the other build, in the same rounds, by name. */
  readonly otherTimes: ReadonlyMap<string, readonly number[]>;
  /** Seconds until every entrant had started, the most of them compilation. */
  readonly startSeconds: number;
  readonly seconds: number;
  readonly ended: 'settled' | 'rounds' | 'seconds' | 'interrupted';
}

export const MOST_ROUNDS = 1000;

/**
 * Runs rounds until `settled` says that more would change nothing, or a limit of the budget is reached.
 *
 * @throws InputError if the budget cannot hold the starts and one round
 */
export async function inRounds(
  device: Device,
  entrants: readonly Entrant[],
  { seconds, begin = performance.now(), rounds = MOST_ROUNDS, signal, onProgress, other }: Budget,
  settled: (times: readonly (readonly number[])[]) => boolean = () => false,
): Promise<Rounds> {
  if (servesRequests()) await serveRequests(device.description, entrants);
  const elapsed = () => (performance.now() - begin) / 1000;
  const refuse = (what: string, needed: number) =>
    new InputError(
      `--seconds ${seconds}: ${what}; give at least ${Math.ceil(1.3 * needed)}, or measure fewer rows (${entrants.length} now)`,
    );
  const shared = entrants.map(({ name }) => other?.has(name) ?? false);
  let round = 0;
  for (const [done, entrant] of entrants.entries()) {
    signal?.throwIfAborted();
    await entrant.start();
    if (shared[done]) await other!.sample(entrant.name);
    const before = performance.now();
    await entrant.sample();
    if (shared[done]) await other!.sample(entrant.name);
    round += (performance.now() - before) / 1000;
    onProgress?.('compiled and run once:', done + 1, entrants.length, [timeLeft(seconds - elapsed()), '']);
    if (elapsed() > seconds)
      throw refuse(
        `compiling and running ${done + 1} of ${entrants.length} rows took ${elapsed().toFixed(0)} s`,
        (elapsed() * entrants.length) / (done + 1) + round,
      );
  }
  const startSeconds = elapsed();
  if (startSeconds + round > seconds)
    throw refuse(
      `compiling took ${startSeconds.toFixed(0)} s, and one round takes ${round.toFixed(1)} s`,
      startSeconds + round,
    );

  const times: number[][] = entrants.map(() => []);
  const otherTimes = new Map(entrants.flatMap(({ name }, i) => (shared[i] ? [[name, [] as number[]]] : [])));
  const result = (ended: Rounds['ended']): Rounds => {
    // A round that was begun and not ended is no round, unless it is the only one.
    const whole = Math.min(...times.map(({ length }) => length));
    if (whole > 0) for (const own of [...times, ...otherTimes.values()]) own.length = whole;
    return { times, otherTimes, startSeconds, seconds: elapsed(), ended };
  };
  const began = elapsed();
  for (let done = 0; done < rounds; done++) {
    const order = entrants.map((_, i) => (done % 2 === 0 ? i : entrants.length - 1 - i)); // so that a drift favours nobody
    for (const [place, i] of order.entries()) {
      if (signal?.aborted) return result('interrupted');
      if (elapsed() > 1.1 * seconds && done > 0) return result('seconds');
      const own = async () => void times[i].push(await entrants[i].sample());
      const another = async () => void otherTimes.get(entrants[i].name)?.push(await other!.sample(entrants[i].name));
      if (!shared[i]) await own();
      else for (const turn of (place + done) % 2 === 0 ? [own, another] : [another, own]) await turn();
    }
    const mean = (elapsed() - began) / (done + 1);
    const left = seconds - elapsed();
    onProgress?.(`round ${done + 1}, seconds:`, Math.min(elapsed(), seconds), seconds, [timeLeft(left), '']);
    if (!other && settled(times)) return result('settled');
    if (left < mean) return result('seconds');
  }
  return result('rounds');
}

const timeLeft = (seconds: number) => `, at most ${Math.max(0, seconds).toFixed(0)} s left`;
