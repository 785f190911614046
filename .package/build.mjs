// Builds dist/, which the package holds in place of the sources: JavaScript with its types, and beside it the files that
// are read when the program runs. npm runs this before it packs. Nothing in the repository loads dist/.

import { execFileSync } from 'node:child_process';
import { cpSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { dependenciesInstalled, installDependencies } from '../cli/setup/dependencies.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const dist = join(root, 'dist');
const floors = ['engine', 'kernels', 'tokenizers', 'model', 'bench', 'cli'];
/** Shaders, a page, the tuning of adapters, and the vision-language models that come with the project, with their records. */
const isReadLater = (/** @type {string} */ path) =>
  /\.wgsl$|^policy.serving.page\.html$|^results.tuning.*\.json$|^pretrained.*\.(safetensors|json)$/.test(path);

if (!dependenciesInstalled(root)) installDependencies(root);
rmSync(dist, { recursive: true, force: true });
const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
execFileSync(process.execPath, [compiler, '--project', join(root, '.package')], { stdio: 'inherit' });
for (const floor of floors)
  for (const path of /** @type {string[]} */ (readdirSync(join(root, floor), { recursive: true })))
    if (isReadLater(path)) cpSync(join(root, floor, path), join(dist, floor, path));
const { buildExplorer } = await import(pathToFileURL(join(dist, 'bench', 'explorer', 'host', 'build.js')).href);
await buildExplorer(join(dist, 'bench', 'explorer', 'page'), join(root, 'bench', 'explorer'));
