// Loaded into the program that program.mjs starts, before the program itself.

import { isatty, WriteStream } from 'node:tty';
import { isMainThread } from 'node:worker_threads';

const launcher = process.ppid;

/**
 * The program runs in a session of its own, out of reach of what ends the launcher's process group; when the launcher is
 * gone without a word, it asks itself to end, as a SIGTERM would.
 */
function endWithLauncher() {
  const timer = setInterval(() => {
    if (process.ppid === launcher) return;
    clearInterval(timer);
    process.kill(process.pid, 'SIGTERM');
  }, 1000).unref();
}

/**
 * Standard error of this process is a pipe to the launcher, for what native code writes; what the program writes goes
 * straight to the terminal, so that it can draw there.
 * @param {number} descriptor of the terminal
 */
function writeErrorsTo(descriptor) {
  const terminal = new WriteStream(descriptor);
  terminal.on('error', () => {}); // it was closed
  Object.defineProperty(process, 'stderr', { value: terminal, configurable: true, enumerable: true });
  // Node does the same for its own streams.
  process.on('SIGWINCH', () => /** @type {WriteStream & { _refreshSize(): void }} */ (terminal)._refreshSize());
}

/**
 * Bad input that nobody catches, in a user's own program, is its one line without a stack, as the commands print it.
 * @param {unknown} error
 */
function reportUncaught(error) {
  const bad = error instanceof Error && error.name === 'InputError' && process.env.INSULA_STACK === undefined;
  console.error(bad ? error.message : error);
  process.exit(1);
}

if (isMainThread) {
  endWithLauncher();
  // Vitest reports what its tests leave uncaught.
  if (!process.argv[1]?.includes('vitest')) process.on('uncaughtException', reportUncaught);
  const descriptor = Number(new URL(import.meta.url).searchParams.get('terminal') ?? -1);
  if (isatty(descriptor)) writeErrorsTo(descriptor);
}
