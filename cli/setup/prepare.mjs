// Makes a fresh clone ready to run: the dependencies of the lock file, and an adapter that opens. npm installs a package's
// dependencies, which leaves the adapter. Plain JavaScript, because it runs before the dependencies are there.

import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { adviceFor, family } from '../../engine/adapters/advice.mjs';
import { cacheFolder } from '../../engine/adapters/cache-folder.mjs';
import { chosenDriver, osRelease } from '../../engine/adapters/software-adapter.mjs';
import { dependenciesInstalled, installDependencies } from './dependencies.mjs';
import { exclusively } from './exclusive.mjs';
import { findAdapter } from './find-adapter.mjs';
import { fetchLavapipe } from './lavapipe.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** @param {string} line */
const print = (line) => console.error(`set-up: ${line}`);

function prepareAdapter() {
  const found = findAdapter();
  if (found.adapter !== 'none') return;
  const release = osRelease();
  const driver = chosenDriver(process.env);
  if (driver)
    throw new Error(
      `no WebGPU adapter opens with the Vulkan driver ${driver} (${found.reason}): name one that works in VK_ICD_FILENAMES, or unset it`,
    );
  const advice = adviceFor(process.platform, release);
  if (!release || family(release) === 'other')
    throw new Error(`no WebGPU adapter opens here: ${found.reason}. ${advice}`);
  print(`no WebGPU adapter opens here: ${found.reason}`);
  try {
    print(`software adapter ready: ${fetchLavapipe(release, print)}`);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    if (why === 'interrupted') throw error;
    throw new Error(`no software adapter could be fetched: ${why}. ${advice}`);
  }
}

function installIfNeeded() {
  if (dependenciesInstalled(root)) return;
  print('installing the dependencies of package-lock.json');
  installDependencies(root);
}

/**
 * Says nothing and takes a fraction of a second where there is nothing to do; sets the exit status where something fails.
 * @returns {import('./find-adapter.mjs').Found | undefined} the adapter that opens
 */
export function prepare() {
  // With a handler, Ctrl-C ends the program that the set-up waits for, and the set-up then tidies up and says so.
  process.on('SIGINT', () => {});
  const ready = () => dependenciesInstalled(root) && findAdapter().adapter !== 'none';
  try {
    if (!ready())
      exclusively(
        join(cacheFolder(), `setup-${hostname()}.lock`),
        () => print('waiting for another set-up to end'),
        () => {
          installIfNeeded();
          prepareAdapter();
        },
      );
    return findAdapter(); // and remembers it for the launcher
  } catch (error) {
    const { code, message } = /** @type {NodeJS.ErrnoException} */ (error);
    const unwritable = ['EACCES', 'EPERM', 'EROFS', 'ENOSPC'].includes(code ?? '');
    print(unwritable ? `${message}: make room there, or set XDG_CACHE_HOME to a folder that you can write` : message);
    process.exitCode = 1;
  }
}
