// The dependencies of package-lock.json, installed only where node_modules is not already what the lock file says.

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Whether an installed tree is the one of the lock file. npm writes its own list of what it installed
 * (node_modules/.package-lock.json) as its last act, so an interrupted installation never matches.
 * @param {string} lockText package-lock.json
 * @param {string} installedText node_modules/.package-lock.json
 */
export function dependenciesMatch(lockText, installedText) {
  const wanted = JSON.parse(lockText).packages;
  const own = Object.keys(wanted[''].optionalDependencies ?? {}).map((name) => `node_modules/${name}`);
  /** @type {Record<string, { version?: string }>} */
  let installed;
  try {
    installed = JSON.parse(installedText).packages ?? {};
  } catch {
    return false;
  }
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === '') continue;
    const present = installed[path];
    // Optional packages of other packages are mostly binaries for other platforms.
    const mayLack = entry.optional && !own.includes(path);
    if (!present ? !mayLack : present.version !== entry.version) return false;
  }
  return Object.keys(installed).every((path) => path in wanted);
}

/** @param {string} root the repository; or dist/ of the package, where npm has seen to the dependencies */
export function dependenciesInstalled(root) {
  const lock = join(root, 'package-lock.json');
  if (!existsSync(lock)) return true;
  const installed = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(installed)) return false;
  return dependenciesMatch(readFileSync(lock, 'utf8'), readFileSync(installed, 'utf8'));
}

/**
 * `npm ci`, with its output shown. Throws where it fails.
 * @param {string} root the repository
 */
export function installDependencies(root) {
  const npm = process.env.npm_execpath ?? '';
  const own = /npm-cli\.c?js$/.test(npm);
  const options = ['ci', '--include=dev', '--no-audit', '--no-fund', '--no-update-notifier'];
  const result = spawnSync(own ? process.execPath : 'npm', own ? [npm, ...options] : options, {
    cwd: root,
    stdio: 'inherit',
    shell: !own && process.platform === 'win32',
  });
  if (result.status !== 0) {
    const why = result.error?.message ?? result.signal ?? `exit status ${result.status}`;
    throw new Error(
      `npm ci failed (${why}): the dependencies of package-lock.json could not be installed. Check the network and npm's registry setting, then run this command again.`,
    );
  }
}
