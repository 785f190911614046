// Starts a program of this repository in a child process, with the adapter that the set-up found.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { softwareEnvironment, softwareFolder } from '../../engine/adapters/software-adapter.mjs';
import { findAdapter } from './find-adapter.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');

/** One key press reaches the launcher from the terminal and once more from npm, a moment later. */
const SAME_PRESS_MILLISECONDS = 400;
const PARENT_CHECK_MILLISECONDS = 500;

/**
 * @param {string} program a `.ts` file, relative to the repository, or 'vitest'
 * @param {string[]} options
 * @returns {string[]} of node
 */
export function nodeOptions(program, options) {
  const tether = ['--import', pathToFileURL(join(here, 'tether.mjs')).href];
  if (program === 'vitest') return [...tether, join(root, 'node_modules/vitest/vitest.mjs'), ...options];
  return [...tether, '--import', import.meta.resolve('tsx'), resolve(root, program), ...options];
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
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGWINCH'];
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
 * npm passes a signal to a shell between it and the launcher, which dies of it without a word to the launcher.
 * @param {import('node:child_process').ChildProcess} child
 */
function endWithNpm(child) {
  const parent = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    child.kill('SIGTERM');
  }, PARENT_CHECK_MILLISECONDS);
}

/**
 * Ends with the exit status of the program (128 + the signal's number where a signal ended it).
 * @param {string} program a `.ts` file, relative to the repository, or 'vitest'
 * @param {string[]} options
 */
export function launch(program, options) {
  if (!existsSync(join(root, 'node_modules', 'tsx'))) {
    console.error(`the dependencies are not installed: run "node ${join(here, 'setup.mjs')}" first`);
    process.exitCode = 1;
    return;
  }
  // Where no adapter opens the program still runs: it says so, and what to install.
  const software = findAdapter().adapter === 'software';
  const environment = software ? softwareEnvironment(process.env, softwareFolder()) : process.env;
  const windows = process.platform === 'win32';
  const child = spawn(process.execPath, nodeOptions(program, options), {
    stdio: 'inherit',
    detached: !windows,
    env: { ...environment, TSX_TSCONFIG_PATH: join(root, 'tsconfig.json') },
  });
  if (!windows) forwardSignals(child);
  if (!windows && process.env.npm_lifecycle_event !== undefined) endWithNpm(child);
  else process.on('SIGINT', () => {}); // the console hands Ctrl-C to the child itself
  child.on('error', (error) => {
    console.error(`${program} could not be started: ${error.message}`);
    process.exitCode = 1;
  });
  child.on('exit', (code, signal) => {
    if (signal && !['SIGINT', 'SIGTERM', 'SIGHUP'].includes(signal)) console.error(`${program} was ended by ${signal}`);
    process.exit(code ?? 128 + (signal ? constants.signals[signal] : 0));
  });
}
