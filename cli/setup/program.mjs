// Starts a program in a child process, with the adapter that the set-up found.

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { softwareEnvironment, softwareFolder } from '../../engine/adapters/software-adapter.mjs';
import { endings } from './endings.mjs';
import { findAdapter } from './find-adapter.mjs';
import { withoutNotices } from './notices.mjs';

const here = dirname(fileURLToPath(import.meta.url));
/** Holds cli/ and engine/: the repository, or dist/ of the package. */
export const root = join(here, '..', '..');

/** One key press reaches the launcher from the terminal and once more from npm, a moment later. */
const SAME_PRESS_MILLISECONDS = 400;
const PARENT_CHECK_MILLISECONDS = 500;
/** The time that the launcher gives what is left in the pipe when the program has ended. */
const DRAIN_MILLISECONDS = 1000;
/** The child's file descriptor of the launcher's standard error, where that is a terminal. */
const TERMINAL = 3;

/**
 * @param {string} program a `.ts` or `.js` file, relative to the repository or dist/, or 'vitest'
 * @param {string[]} options
 * @param {boolean} [terminal] whether the child gets the terminal of standard error
 * @returns {string[]} the arguments of node: its options, the file of the program, and the program's own options
 */
export function nodeOptions(program, options, terminal = false) {
  const tether = pathToFileURL(join(here, 'tether.mjs'));
  if (terminal) tether.searchParams.set('terminal', `${TERMINAL}`);
  const preload = ['--import', tether.href];
  if (program === 'vitest') return [...preload, join(root, 'node_modules/vitest/vitest.mjs'), ...options];
  if (/\.[cm]?ts$/.test(program)) preload.push('--import', import.meta.resolve('tsx'));
  return [...preload, resolve(root, program), ...options];
}

/**
 * @param {() => void} forward
 * @param {() => number} [now] in milliseconds
 * @returns {() => void} calls `forward` once for signals that follow one another within one key press
 */
export function oncePerPress(forward, now = () => performance.now()) {
  let last = Number.NEGATIVE_INFINITY;
  return () => {
    const time = now();
    if (time - last > SAME_PRESS_MILLISECONDS) forward();
    last = time;
  };
}

/**
 * Passes signals on to the child, each once. The child has a session of its own, so that the terminal's Ctrl-C reaches it
 * only from here: what it does then (finishing a checkpoint) is not disturbed by a second signal for the same key press.
 * @param {import('node:child_process').ChildProcess} child
 */
function forwardSignals(child) {
  /** @type {NodeJS.Signals[]} */
  const signals = [...endings, 'SIGWINCH'];
  for (const signal of signals)
    process.on(
      signal,
      oncePerPress(() => child.kill(signal)),
    );
  process.on('SIGTSTP', () => {
    child.kill('SIGSTOP');
    process.kill(process.pid, 'SIGSTOP');
  });
  process.on('SIGCONT', () => child.kill('SIGCONT'));
}

/**
 * npm starts the launcher through a shell. It passes some signals to that shell, which dies of them without a word to the
 * launcher, and itself dies of others without a word to the shell.
 * @param {import('node:child_process').ChildProcess} child
 */
function endWithNpm(child) {
  const parent = process.ppid;
  let npm = aboveShell(parent);
  const timer = setInterval(() => {
    const above = aboveShell(parent);
    npm ??= above;
    if (process.ppid === parent && (above === null || above === npm)) return;
    clearInterval(timer);
    child.kill('SIGTERM');
  }, PARENT_CHECK_MILLISECONDS);
}

/**
 * The parent of a process that is a shell, the process itself if it is none; null where the system does not say, as for a moment
 * when too many files are open.
 * @param {number} id
 */
function aboveShell(id) {
  try {
    const stat = /\((.*)\) \S (\d+)/.exec(readFileSync(`/proc/${id}/stat`, 'utf8'));
    return stat && (/^(ba|da|a|k|z)?sh$|^busybox$/.test(stat[1]) ? Number(stat[2]) : id);
  } catch {
    return null;
  }
}

/**
 * Passes on what the child writes to its standard error, without Dawn's notices.
 * @param {import('node:stream').Readable} pipe
 */
function forwardErrors(pipe) {
  const { write, end } = withoutNotices((text) => process.stderr.write(text, 'latin1'));
  pipe.setEncoding('latin1').on('data', write).on('end', end); // latin1 leaves every byte as it is
  process.stderr.on('error', () => {}); // nobody reads any more: the program goes on, and would end without the pipe
}

/**
 * Ends with the exit status of the program (128 + the signal's number where a signal ended it).
 * @param {string} program a `.ts` or `.js` file, relative to the repository or dist/, or 'vitest'
 * @param {string[]} options
 */
export function launch(program, options) {
  const windows = process.platform === 'win32';
  // vitest passes on what its own children write.
  const terminal = process.stderr.isTTY && program !== 'vitest';
  let nodeArguments;
  try {
    nodeArguments = nodeOptions(program, options, terminal);
  } catch {
    console.error('the dependencies are not installed: run "npx insula setup" first');
    process.exitCode = 1;
    return;
  }
  // Where no adapter opens the program still runs: it says so, and what to install.
  const software = findAdapter().adapter === 'software';
  const environment = software ? softwareEnvironment(process.env, softwareFolder()) : process.env;
  const child = spawn(process.execPath, nodeArguments, {
    stdio: ['inherit', 'inherit', 'pipe', ...(terminal ? [2] : [])],
    detached: !windows,
    env: { ...environment, TSX_TSCONFIG_PATH: join(root, 'tsconfig.json') },
  });
  forwardErrors(/** @type {import('node:stream').Readable} */ (child.stderr));
  if (windows)
    process.on('SIGINT', () => {}); // the console hands Ctrl-C to the child itself
  else {
    forwardSignals(child);
    if (process.env.npm_lifecycle_event !== undefined) endWithNpm(child);
  }
  child.on('error', (error) => {
    console.error(`${program} could not be started: ${error.message}`);
    process.exitCode = 1;
  });
  child.on('exit', (code, signal) => {
    const end = () => {
      if (signal && !endings.includes(signal)) console.error(`${program} was ended by ${signal}`);
      const status = code ?? 128 + (signal ? constants.signals[signal] : 0);
      process.stderr.write('', () => process.exit(status));
    };
    // A process that the program left behind may hold the pipe open.
    const timer = setTimeout(end, DRAIN_MILLISECONDS);
    child.on('close', () => {
      clearTimeout(timer);
      end();
    });
  });
}
