/**
 * Times several pieces of work beside each other: each starts once, which compiles it, then all run in rounds. The speed of a shared
 * machine changes within seconds, so only what ran in the same rounds can be compared.
 */
import { InputError } from '../../engine/index.ts';

/** A piece of work that takes part in rounds. */
export interface Entrant {
  /** Unique in a run. */
  readonly name: string;
  /** Runs for the first time, which compiles. */
  start(): Promise<void>;
  /** Milliseconds of one repeat. */
  sample(): Promise<number>;
}

/** The details of progress: alternative texts, the longest first. */
type OnProgress = (what: string, done: number, total: number, details?: readonly string[]) => void;

export interface Budget {
  /** The time for everything, compilation included; a round under way may take a tenth more. */
  readonly seconds: number;
  /** When it begins, in milliseconds of performance.now(); by default now. */
  readonly begin?: number;
  /** The number of rounds, if there is time for them; without it rounds go on until they are settled. */
  readonly rounds?: number;
  /** Ends the rounds; what was measured until then is the result. */
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

export interface Rounds {
  /** Milliseconds by entrant, one for each round; none for those that there was no time to start. */
  readonly times: readonly (readonly number[])[];
  /** Seconds until the rounds began, most of them compilation. */
  readonly startSeconds: number;
  readonly seconds: number;
  readonly ended: 'settled' | 'rounds' | 'seconds' | 'interrupted';
}

const MOST_ROUNDS = 1000;
/** The share of the time after which no other entrant starts, so that those which have started are measured. */
const STARTING = 0.6;

/**
 * Runs rounds until `settled` says that more would change nothing, or a limit of the budget is reached.
 *
 * @throws InputError if the budget cannot hold the start of one entrant and one round
 */
export async function inRounds(
  entrants: readonly Entrant[],
  { seconds, begin = performance.now(), rounds, signal, onProgress }: Budget,
  settled: (times: readonly (readonly number[])[]) => boolean = () => false,
): Promise<Rounds> {
  const elapsed = () => (performance.now() - begin) / 1000;
  let [started, round] = [0, 0];
  for (const [i, entrant] of entrants.entries()) {
    signal?.throwIfAborted();
    await entrant.start();
    const before = performance.now();
    await entrant.sample();
    round += (performance.now() - before) / 1000;
    started = i + 1;
    onProgress?.('compiled and run once:', started, entrants.length, [timeLeft(seconds - elapsed()), '']);
    if (elapsed() > STARTING * seconds || elapsed() + round > seconds) break;
  }
  const startSeconds = elapsed();
  if (startSeconds + round > 1.1 * seconds)
    throw new InputError(
      `--seconds ${seconds}: compiling and running ${started} of ${entrants.length} rows took ${startSeconds.toFixed(1)} s, which leaves no time for a round; give at least ${Math.ceil(2 * startSeconds + round)}`,
    );

  const running = entrants.slice(0, started);
  const times: number[][] = entrants.map(() => []);
  const result = (ended: Rounds['ended']): Rounds => {
    // A round that was begun and not ended is no round, unless it is the only one.
    const whole = Math.min(...times.slice(0, started).map(({ length }) => length));
    if (whole > 0) for (const own of times.slice(0, started)) own.length = whole;
    return { times, startSeconds, seconds: elapsed(), ended };
  };
  const began = elapsed();
  for (let done = 0; done < (rounds ?? MOST_ROUNDS); done++) {
    const order = running.map((_, i) => (done % 2 === 0 ? i : started - 1 - i)); // so that a drift favours nobody
    for (const i of order) {
      if (signal?.aborted) return result('interrupted');
      if (elapsed() > 1.1 * seconds && done > 0) return result('seconds');
      times[i].push(await running[i].sample());
    }
    const mean = (elapsed() - began) / (done + 1);
    const left = seconds - elapsed();
    onProgress?.(`round ${done + 1}, seconds:`, Math.min(elapsed(), seconds), seconds, [timeLeft(left), '']);
    if (rounds === undefined && settled(times)) return result('settled');
    if (left < mean) return result('seconds');
  }
  return result('rounds');
}

export const timeLeft = (seconds: number) => `, at most ${Math.max(0, seconds).toFixed(0)} s left`;
