// Makes a fresh clone ready to run: the dependencies of the lock file, and an adapter that opens. Says nothing and takes a
// fraction of a second where there is nothing to do. Plain JavaScript, because it runs before the dependencies are there.

import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chosenDriver, findAdapter } from './adapter.mjs';
import { adviceFor, family, parseOsRelease } from './advice.mjs';
import { dependenciesInstalled, installDependencies } from './dependencies.mjs';
import { fetchLavapipe } from './lavapipe.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** @param {string} line */
const print = (line) => console.error(`set-up: ${line}`);

/** @returns {import('./advice.mjs').OsRelease | null} */
function osRelease() {
  if (process.platform !== 'linux') return null;
  for (const path of ['/etc/os-release', '/usr/lib/os-release']) {
    try {
      return parseOsRelease(readFileSync(path, 'utf8'));
    } catch {}
  }
  return null;
}

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
    const description = fetchLavapipe(release, print);
    print(`software adapter ready: ${description}`);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`no software adapter could be fetched: ${why}. ${advice}`);
  }
}

try {
  if (!dependenciesInstalled(root)) {
    print('installing the dependencies of package-lock.json');
    installDependencies(root);
  }
  prepareAdapter();
} catch (error) {
  print(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
