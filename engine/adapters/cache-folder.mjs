// The folder of Insula in the user's cache, for the fetched software adapter, tuning files and converted data. Plain
// JavaScript, because the set-up needs it before the dependencies are installed.

import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';

/**
 * @param {Record<string, string | undefined>} [environment]
 * @param {string} [platform]
 * @param {string} [home]
 * @returns {string} Insula's folder in the user's cache
 */
export function cacheFolder(environment = process.env, platform = process.platform, home = homedir()) {
  const stated = platform === 'win32' ? environment.LOCALAPPDATA : environment.XDG_CACHE_HOME;
  return join(stated && isAbsolute(stated) ? stated : join(home, '.cache'), 'insula');
}
