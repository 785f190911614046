// Which adapter this machine has: the system's own or the software adapter that the set-up fetched. The answer is kept in the user's cache folder, for as long as the machine's drivers stay what they are.

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { hostname, release } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheFolder } from '../../engine/adapters/cache-folder.mjs';
import {
  chosenDriver,
  driverVariables,
  manifest,
  softwareEnvironment,
  softwareFolder,
} from '../../engine/adapters/software-adapter.mjs';

/**
 * @typedef {import('../../engine/adapters/software-adapter.mjs').Environment} Environment
 * @typedef {{ adapter: 'system' | 'software', description: string }} Remembered
 * @typedef {Remembered | { adapter: 'none', reason: string }} Found
 */

const require = createRequire(import.meta.url);
const CHECK_MILLISECONDS = 60_000;
/** Where drivers and devices show up or vanish. */
const driverPlaces = [
  '/etc/ld.so.cache',
  '/etc/vulkan/icd.d',
  '/usr/share/vulkan/icd.d',
  '/usr/local/share/vulkan/icd.d',
  '/dev/dri',
  '/dev/nvidiactl',
  '/dev/dxg',
];

/**
 * Opens the default adapter in a child process.
 * @param {Environment} environment of the child
 * @returns {{ description: string } | { reason: string }}
 */
export function checkAdapter(environment) {
  const script = join(dirname(fileURLToPath(import.meta.url)), 'check-adapter.mjs');
  const child = spawnSync(process.execPath, [script], {
    env: environment,
    encoding: 'utf8',
    timeout: CHECK_MILLISECONDS,
  });
  if (child.status === 0) {
    const answer = JSON.parse(child.stdout);
    const loader = /Couldn't load Vulkan: (.*)/.exec(child.stderr)?.[1];
    return 'reason' in answer && loader ? { reason: `${answer.reason} (${loader})` } : answer;
  }
  if (child.signal === 'SIGINT') throw new Error('interrupted');
  const how = child.error?.message ?? (child.signal ? `ended by ${child.signal}` : `exit status ${child.status}`);
  return { reason: `opening an adapter crashed (${how})` };
}

/**
 * The things that an answer depends on: while this stays the same, the adapter that opened opens again.
 * @param {Environment} environment
 */
function machineKey(environment) {
  const hash = createHash('sha256');
  hash.update(readFileSync(require.resolve('webgpu/package.json')));
  for (const part of [process.version, process.platform, process.arch, hostname(), release()]) hash.update(`${part}\n`);
  for (const name of [...driverVariables, 'LD_LIBRARY_PATH']) hash.update(`${name}=${environment[name] ?? ''}\n`);
  for (const path of driverPlaces) {
    const stat = statSync(path, { throwIfNoEntry: false });
    hash.update(`${path} ${stat?.mtimeMs ?? '-'} ${stat?.isDirectory() ? readdirSync(path).join() : ''}\n`);
  }
  const libraries = join(softwareFolder(), 'lib');
  if (existsSync(libraries))
    for (const name of readdirSync(libraries)) hash.update(`${name} ${statSync(join(libraries, name)).size}\n`);
  return hash.digest('hex');
}

/**
 * The answer that was remembered, checked by hand, because no library is installed yet where the set-up loads this file.
 * @param {string} path
 * @returns {{ key: string, found: Remembered } | null} null where there is none that can be read
 */
export function readAnswer(path) {
  try {
    const { key, found } = JSON.parse(readFileSync(path, 'utf8'));
    const { adapter, description } = found;
    const whole = [key, description].every((text) => typeof text === 'string');
    return whole && ['system', 'software'].includes(adapter) ? { key, found: { adapter, description } } : null;
  } catch {
    return null;
  }
}

/**
 * The system's adapter, else the published software adapter, else why neither opens. Only an adapter that opened is remembered.
 * @param {Environment} [environment]
 * @returns {Found}
 */
export function findAdapter(environment = process.env) {
  const answerPath = join(cacheFolder(), 'adapter.json');
  const folder = softwareFolder();
  const key = machineKey(environment);
  const answer = readAnswer(answerPath);
  if (answer?.key === key && (answer.found.adapter === 'system' || existsSync(manifest(folder)))) return answer.found;

  /** @type {Found} */
  let found;
  const own = checkAdapter(environment);
  if ('description' in own) found = { adapter: 'system', description: own.description };
  else found = { adapter: 'none', reason: own.reason };
  if (found.adapter === 'none' && !chosenDriver(environment) && existsSync(manifest(folder))) {
    const software = checkAdapter(softwareEnvironment(environment, folder));
    if ('description' in software) found = { adapter: 'software', description: software.description };
  }
  if (found.adapter !== 'none') writeAnswer(answerPath, JSON.stringify({ key, found }));
  return found;
}

/**
 * @param {string} path
 * @param {string} text
 */
function writeAnswer(path, text) {
  const temporary = `${path}.${process.pid}`;
  try {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(temporary, text);
    renameSync(temporary, path);
  } catch {
    // Without a writable cache folder the adapter is opened for a check each time, which costs less than a second.
  }
}
