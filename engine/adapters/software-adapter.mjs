// The software adapter that the set-up fetches: its folder in the user's cache, and the environment that opens it.

import { readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { parseOsRelease } from './advice.mjs';
import { cacheFolder } from './cache-folder.mjs';

/** @typedef {Record<string, string | undefined>} Environment */

/** Variables by which the user chooses the Vulkan driver; the set-up never overrides them. */
export const driverVariables = ['VK_DRIVER_FILES', 'VK_ICD_FILENAMES'];

/** @returns {import('./advice.mjs').OsRelease | null} of this machine; null if it is not Linux or has no os-release file */
export function osRelease() {
  if (process.platform !== 'linux') return null;
  for (const path of ['/etc/os-release', '/usr/lib/os-release']) {
    try {
      return parseOsRelease(readFileSync(path, 'utf8'));
    } catch {
      // the file is absent: try the next one
    }
  }
  return null;
}

/**
 * The folder depends on the release, because machines of several releases may share a home folder, and their libraries
 * differ.
 * @returns {string} the folder of the fetched software adapter, whether it exists or not
 */
export function softwareFolder() {
  const release = osRelease();
  return join(
    cacheFolder(),
    ['lavapipe', release?.id, release?.codename, process.arch].filter((part) => part).join('-'),
  );
}

/**
 * @param {string} folder of a software adapter
 * @returns {string} its driver manifest for the Vulkan loader
 */
export function manifest(folder) {
  return join(folder, 'lavapipe.json');
}

/**
 * @param {Environment} environment
 * @returns {string | undefined} the user's own choice of a Vulkan driver
 */
export function chosenDriver(environment) {
  return driverVariables.map((name) => environment[name]).find((value) => value);
}

/**
 * Returns the environment in which the software adapter of `folder` opens. The user's settings stay: LD_LIBRARY_PATH is
 * prepended to, and other variables are set only if they are unset.
 * @param {Environment} environment
 * @param {string} folder
 * @returns {Environment}
 */
export function softwareEnvironment(environment, folder) {
  if (chosenDriver(environment)) return environment;
  const libraries = [join(folder, 'lib'), environment.LD_LIBRARY_PATH].filter((part) => part);
  return {
    ...environment,
    VK_ICD_FILENAMES: manifest(folder),
    LD_LIBRARY_PATH: libraries.join(delimiter),
    XDG_RUNTIME_DIR: environment.XDG_RUNTIME_DIR || join(folder, 'run'),
  };
}

/**
 * Returns the environment without the set-up's software adapter.
 * @param {Environment} environment
 * @returns {Environment | null} null if that adapter is not in use
 */
export function systemEnvironment(environment) {
  const folder = softwareFolder();
  if (environment.VK_ICD_FILENAMES !== manifest(folder)) return null;
  const { VK_ICD_FILENAMES: _, LD_LIBRARY_PATH, ...rest } = environment;
  const libraries = (LD_LIBRARY_PATH ?? '').split(delimiter).filter((part) => part && part !== join(folder, 'lib'));
  return libraries.length ? { ...rest, LD_LIBRARY_PATH: libraries.join(delimiter) } : rest;
}
