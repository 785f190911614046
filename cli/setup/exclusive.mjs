// One set-up at a time on a machine: two that installed into the same folder would spoil it for both.

import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { uptime } from 'node:os';
import { dirname } from 'node:path';

const WAIT_MILLISECONDS = 200;
/** More than the clocks of files and of processes differ. */
const CLOCK_MILLISECONDS = 3000;

/**
 * Whether a process of this machine has lived since `time`; elsewhere than on Linux, whether it lives.
 * @param {number} id
 * @param {number} time in milliseconds
 */
function livesSince(id, time) {
  try {
    process.kill(id, 0);
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EPERM') return false;
  }
  try {
    // Field 22, in hundredths of a second since the machine started; the second one, in brackets, may hold anything.
    const field = readFileSync(`/proc/${id}/stat`, 'utf8').split(') ').pop()?.split(' ')[19];
    return !(Date.now() - 1000 * (uptime() - Number(field) / 100) > time + CLOCK_MILLISECONDS);
  } catch {
    return true;
  }
}

/**
 * @param {string} path of the lock file
 * @returns {boolean} false where another process holds it
 */
function take(path) {
  try {
    writeFileSync(path, `${process.pid}`, { flag: 'wx' });
    return true;
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EEXIST') throw error;
  }
  try {
    const holder = readFileSync(path, 'utf8');
    if (holder && !livesSince(Number(holder), statSync(path).mtimeMs)) rmSync(path);
  } catch {
    // It was given back just now.
  }
  return false;
}

/**
 * Runs `action` while no other process runs one under the same lock file; a lock of a process that is gone does not count.
 * @param {string} path of the lock file
 * @param {() => void} waiting called once, where another process is at it
 * @param {() => void} action
 */
export function exclusively(path, waiting, action) {
  mkdirSync(dirname(path), { recursive: true });
  const cell = new Int32Array(new SharedArrayBuffer(4));
  for (let turn = 0; !take(path); turn++) {
    if (turn === 1) waiting(); // the first turn may only have removed a lock left behind
    if (turn > 0) Atomics.wait(cell, 0, 0, WAIT_MILLISECONDS);
  }
  try {
    action();
  } finally {
    rmSync(path, { force: true });
  }
}
