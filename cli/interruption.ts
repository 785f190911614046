/** Signals that end a command: a run saves first, and ends at once only where a person insists. */
import { InputError } from '../engine/files/errors.ts';
import { endings } from './setup/endings.mjs';

/** The reason of the signal of an interrupted command. */
export const interrupted = new InputError('interrupted before the first step: there is nothing to save');

/** The keys of a terminal send these: Ctrl-C and Ctrl-\. */
const keys: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT'];

const TURN_MILLISECONDS = 100;
const TURNS_BEFORE_STOP = 10;
/** Exit status of a shell's command that Ctrl-C ended. */
const STATUS = 130;

/**
 * Answers signals until the process ends. The first one ends the process, or, once `finish` was called, aborts the returned
 * signal and calls what was given to it. After that only a key pressed again, a second or more later, ends the process: the
 * processes of npm, the shell and the launcher hand the same event on, some of them moments later, and a scheduler repeats it.
 */
export function answerSignals(): { signal: AbortSignal; finish(say: (line: string) => void): void } {
  const abort = new AbortController();
  let say: ((line: string) => void) | null = null;
  // Turns of the event loop, not time: signals that wait while a long computation blocks the loop arrived during it.
  let turns = 0;
  const answer = (name: NodeJS.Signals) => {
    if (say === null) process.exit(STATUS);
    if (abort.signal.aborted) {
      if (keys.includes(name) && turns >= TURNS_BEFORE_STOP) process.exit(STATUS);
      return;
    }
    say(
      'interrupted: finishing the work under way, and saving; Ctrl-C a second or more from now stops at once instead',
    );
    setInterval(() => {
      turns += 1;
    }, TURN_MILLISECONDS).unref();
    abort.abort(interrupted);
  };
  for (const name of endings) process.on(name, answer);
  return {
    signal: abort.signal,
    finish(own) {
      say = own;
    },
  };
}
