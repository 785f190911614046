/** The explorer as static files, made by Vite. Node only; a package holds them ready-made. */
import { cp, rename, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Plugin } from 'vite';
import { optionalPackages } from '../../../engine/files/optional-packages.ts';
import { MUJOCO } from '../../tabletop/world.ts';

const sources = fileURLToPath(new URL('..', import.meta.url));

/** Modules that only node loads: a page never reaches them. */
const nodeOnly =
  /[\\/](engine[\\/]files[\\/]files|data[\\/]import[\\/]video-node|data[\\/]store[\\/][a-z-]+-node|tokenizers[\\/]default-merges-node)\.ts$/;

const withoutNode: Plugin = {
  name: 'without-node',
  enforce: 'pre',
  load: (id) => (nodeOnly.test(id) ? 'export {};' : null),
};

/** The folder beside the page from which it loads the package of the physics, whose WebAssembly has 10 MB. */
export const PHYSICS = 'mujoco';

/** The package's code in the page; it is looked for when it is used, and may be missing as any optional package may. */
const physicsBeside = `
const url = import.meta.url.replace(/assets\\/[^/]*$/, '${PHYSICS}/mujoco.js');
const missing = () => { throw Object.assign(new Error("'${MUJOCO}'"), { code: 'ERR_MODULE_NOT_FOUND' }); };
export default (await import(/* @vite-ignore */ url).catch(missing)).default;`;

const leavesOut: Plugin = {
  name: 'leaves-out',
  enforce: 'pre',
  resolveId: (id) => (id === MUJOCO ? `\0${MUJOCO}` : null),
  load: (id) => (id === `\0${MUJOCO}` ? physicsBeside : null),
  // The page trains the smallest model alone.
  generateBundle(_, bundle) {
    for (const name of Object.keys(bundle))
      if (/\.safetensors$/.test(name) && !basename(name).startsWith('tiny')) delete bundle[name];
  },
};

/** The folder of the installed package of the physics; null if it is not installed. */
export function installedPhysics(): string | null {
  try {
    return dirname(createRequire(import.meta.url).resolve(`${MUJOCO}/mujoco.wasm`));
  } catch {
    return null;
  }
}

/** Copies the physics beside the page in `folder`; false if it is not installed. */
export async function addPhysics(folder: string): Promise<boolean> {
  const installed = installedPhysics();
  for (const file of installed ? ['mujoco.js', 'mujoco.wasm'] : [])
    await cp(join(installed!, file), join(folder, PHYSICS, file));
  return installed !== null;
}

/**
 * Writes the page and all that it loads to `folder`, in place of what lies there, from the sources in `root`.
 *
 * @throws InputError if Vite is not installed
 */
export async function buildExplorer(folder: string, root = sources): Promise<void> {
  const { build } = await optionalPackages('vite', 'building the explorer', () => import('vite'));
  const made = resolve(`${folder}.new`);
  await build({
    configFile: false,
    root,
    base: './',
    logLevel: 'error',
    plugins: [withoutNode, leavesOut],
    worker: { format: 'es', plugins: () => [withoutNode, leavesOut] },
    oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
    build: {
      outDir: made,
      emptyOutDir: true,
      target: 'esnext',
      assetsInlineLimit: 0,
      modulePreload: { polyfill: false },
      chunkSizeWarningLimit: 1e6,
    },
  });
  await rm(folder, { recursive: true, force: true });
  await rename(made, folder);
}
