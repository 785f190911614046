// One set-up at a time on a machine: two that installed into the same folder would spoil it for both.

import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

const WAIT_MILLISECONDS = 200;

/** @param {number} id of a process of this machine */
function alive(id) {
  try {
    process.kill(id, 0);
    return true;
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code === 'EPERM';
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
  let holder = '';
  try {
    holder = readFileSync(path, 'utf8');
  } catch {
    return false; // given back just now
  }
  if (holder && !alive(Number(holder))) rmSync(path, { force: true });
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
