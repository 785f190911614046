/** The explorer as static files, made by Vite. Node only; a package holds them ready-made. */
import { rename, rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Plugin } from 'vite';
import { optionalPackages } from '../../../engine/files/optional-packages.ts';

const sources = fileURLToPath(new URL('..', import.meta.url));

/** Modules that only node loads: a page never reaches them. */
const nodeOnly =
  /[\\/](engine[\\/]files[\\/]files|data[\\/]lerobot[\\/]video-node|data[\\/]files[\\/]hdf5-node|tokenizers[\\/]default-merges-node)\.ts$/;

const withoutNode: Plugin = {
  name: 'without-node',
  enforce: 'pre',
  load: (id) => (nodeOnly.test(id) ? 'export {};' : null),
};

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
    plugins: [withoutNode],
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
