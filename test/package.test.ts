import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, createServer, preview } from 'vite';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { chromiumMissing, chromiumPath, launchChromium } from './browser/chromium.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const optional = Object.keys(manifest.optionalDependencies);
const floors = ['engine', 'kernels', 'tokenizers', 'model', 'bench', 'cli'];
/** Used while the sources are worked on. */
const toolsOnly = ['bench/tabletop/worker.mjs', 'cli/serve-worker.mjs', 'tokenizers/default-merges-node.ts'];
const long = process.env.INSULA_LONG === '1';
const skipped = long ? '' : ' (skipped: INSULA_LONG=1 runs it)';

/** A program that imports the package, in node and in a page. */
const use = `
import { openDevice, tensor } from 'insula/engine';
import { matmul } from 'insula/kernels';
import { FastTokenizer } from 'insula/tokenizers';
import { systems } from 'insula/model';
const device = await openDevice();
const product = device.step(() => matmul(tensor(device, [1, 2, 3, 4, 5, 6, 7, 8], [2, 4]), tensor(device, [1, 0, 0, 0, 0, 1, 0, 1], [2, 4]), { transposeB: true }));
const answer = [...(await product.read()), typeof FastTokenizer, systems.length > 4].join(' ');
device.close();
`;
const answer = '1 6 5 14 function true';
const typed = `
import { type Device, openDevice, type Tensor } from 'insula/engine';
import { matmul } from 'insula/kernels';
import { FastTokenizer } from 'insula/tokenizers';
import {
  act, configurationOf, exportCheckpoint, loadLlama, Model, type ModelConfiguration, type ModelSizes, type Objective,
  type ObjectiveSettings, randomBatch, type System, trainingInputs, trainingPass, TrainingStep,
} from 'insula/model';
export const device: Device = await openDevice();
export const product = (a: Tensor): Tensor => matmul(a, a);
export const classes = [FastTokenizer, Model, TrainingStep];
export const functions = [loadLlama, exportCheckpoint, trainingPass, act];
export const modelOf = (own: System, sizes: ModelSizes): Model => new Model(device, configurationOf(own, sizes));
export const losses = ({ objectives }: ModelConfiguration): readonly ObjectiveSettings[] => objectives;
export const inputs = (model: Model) => trainingInputs(model.architecture, randomBatch(model.configuration, 1, 0));
export const weights = (all: readonly Objective[]): number[] => all.map(({ weight }) => weight);
// @ts-expect-error a model has a vocabulary
export const lacking: ModelConfiguration = { backbone: 'gemma' };
// @ts-expect-error a device is no number
export const wrong: number = device;
`;
const typeSettings = {
  compilerOptions: { strict: true, noEmit: true, target: 'es2022', module: 'nodenext', types: [] },
  files: ['typed.ts'],
};

const folder = mkdtempSync(join(tmpdir(), 'insula-package-'));
const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';

interface Result {
  status: number;
  output: string;
  errors: string;
}

/** Runs a program as a person would: without what npm tells the programs that it starts. */
function run(program: string, words: readonly string[], cwd: string): Promise<Result> {
  const own = Object.entries(process.env).filter(
    ([name]) => !/^npm_(?!config_(registry|cache|userconfig)$)/i.test(name),
  );
  const settings = { cwd, env: Object.fromEntries(own), maxBuffer: 2 ** 26, shell: program.endsWith('.cmd') };
  return new Promise((resolve) => {
    execFile(program, words, settings, (error, output, errors) => {
      resolve({ status: error ? Number(error.code ?? -1) : 0, output, errors });
    });
  });
}

const node = (words: readonly string[], cwd: string) => run(process.execPath, words, cwd);

/** A project that is no part of the repository. */
async function makeProject(name: string): Promise<string> {
  const project = join(folder, name);
  await mkdir(join(project, 'node_modules'), { recursive: true });
  const files = {
    'package.json': JSON.stringify({ name, version: '1.0.0', type: 'module' }),
    'use.js': `${use}console.log(answer);`,
    'page.js': `${use}document.title = answer;`,
    'index.html': '<!doctype html><title>waiting</title><script type="module" src="/page.js"></script>',
    'typed.ts': typed,
    'tsconfig.json': JSON.stringify(typeSettings),
  };
  for (const [file, text] of Object.entries(files)) await writeFile(join(project, file), text);
  return project;
}

/** Files of the floors in the repository, with `/` between. */
function sourceFiles(): string[] {
  return floors.flatMap((floor) =>
    readdirSync(join(root, floor), { recursive: true, encoding: 'utf8' }).map(
      (path) => `${floor}/${path.replaceAll('\\', '/')}`,
    ),
  );
}

/** The explorer's page, which the package holds built; the modules that build and serve it are compiled as others are. */
const isPage = (path: string) => /(^|\/)bench\/explorer\/(?!host\/)/.test(path);

/** The files of the package that come from a source file. */
function packaged(path: string): string[] {
  if (toolsOnly.includes(path) || isPage(path)) return [];
  const [, stem, ending] = /^(.*)\.(\w+)$/.exec(path) ?? [];
  if (ending === 'ts') return [`dist/${stem}.js`, `dist/${stem}.d.ts`];
  if (ending === 'mjs') return [`dist/${stem}.mjs`, `dist/${stem}.d.mts`];
  // The page of the studies is data, as their runs are.
  const isSource = ending === 'wgsl' || (ending === 'html' && !path.startsWith('bench/results/'));
  return isSource || /^(bench\/results\/tuning|model\/pretrained)\//.test(path) ? [`dist/${path}`] : [];
}

describe('the package', () => {
  let packed: { size: number; unpackedSize: number; filename: string; files: { path: string }[] };
  let tarball = '';
  /** The package as npm installs it, in the long run. */
  let installed = '';
  /** The package without its optional parts, beside the repository's copies of what it depends on. */
  let project = '';
  const insula = (...words: string[]) =>
    node([join(project, 'node_modules/insula', manifest.bin.insula), ...words], project);

  beforeAll(async () => {
    const { status, output, errors } = await run(npm, ['pack', '--json', '--pack-destination', folder], root);
    expect(status, errors).toBe(0);
    [packed] = JSON.parse(output.slice(output.indexOf('[\n')));
    tarball = join(folder, packed.filename);
    project = await makeProject('project');
    const modules = join(project, 'node_modules');
    expect(await run('tar', ['-xzf', tarball, '-C', modules], folder)).toMatchObject({ status: 0 });
    expect(await node(['-e', `fs.renameSync('package', 'insula')`], modules)).toMatchObject({ status: 0 });
    for (const name of Object.keys(manifest.dependencies)) {
      await mkdir(dirname(join(modules, name)), { recursive: true });
      await symlink(join(root, 'node_modules', name), join(modules, name), 'junction');
    }
    if (!long) return;
    installed = await makeProject('installed');
    const installation = await run(npm, ['install', '--no-audit', '--no-fund', tarball], installed);
    expect(installation.status, installation.errors).toBe(0);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  test('holds every module compiled, with its types, and the shaders and the vision-language models; nothing else, and no data', () => {
    const beside = [
      'LICENSE',
      'README.md',
      'package.json',
      ...manifest.files.filter((path: string) => path !== 'dist'),
    ];
    const expected = [...beside, ...sourceFiles().flatMap(packaged)];
    expect(expected.length).toBeGreaterThan(500);
    const paths = packed.files.map(({ path }) => path);
    expect(paths.filter((path) => !isPage(path)).sort()).toEqual(expected.sort());
    expect(paths).toContain('dist/bench/explorer/page/index.html');
    // The vision-language models take 4 MB at most.
    expect(packed.size).toBeLessThan(7e6 + 4e6);
    expect(packed.unpackedSize).toBeLessThan(7e6 + 4e6);
  });

  test('what package.json names is there', () => {
    const entries = Object.values<string | Record<string, string>>(manifest.exports);
    const named = entries.flatMap((entry) => (typeof entry === 'string' ? [entry] : Object.values(entry)));
    const paths = [...named, ...Object.keys(manifest.browser), `./${manifest.bin.insula}`];
    expect(paths.length).toBeGreaterThan(10);
    expect(paths.filter((path) => !packed.files.some((file) => `./${file.path}` === path))).toEqual([]);
  });

  test('heavy packages are loaded when they are used, never by loading a module', () => {
    const modules = packed.files.map(({ path }) => path).filter((path) => /\.m?js$/.test(path) && !isPage(path));
    const texts = modules.map((path) => readFileSync(join(project, 'node_modules/insula', path), 'utf8'));
    for (const name of optional) {
      const named = texts.filter((text) => text.includes(`'${name}`));
      expect(named.length, name).toBe(1);
      expect(named[0], name).toMatch(new RegExp(`import\\('${name}[^']*'\\)`));
      expect(named[0], name).not.toMatch(new RegExp(`from '${name}`));
    }
  });

  test('another project imports it, with types', async () => {
    expect(await node(['use.js'], project)).toMatchObject({ status: 0, output: `${answer}\n` });
    const compiler = join(root, 'node_modules/typescript/bin/tsc');
    expect(await node([compiler, '--project', project], project)).toEqual({ status: 0, output: '', errors: '' });
  });

  test('the command runs in another project', async () => {
    const help = await insula('--help');
    expect(help).toMatchObject({ status: 0, errors: '' });
    expect(help.output).toMatch(/^insula COMMAND/);
    const { status, output, errors } = await insula('devices', '--json');
    expect({ status, errors }).toEqual({ status: 0, errors: '' });
    expect(JSON.parse(output).adapters[0].opens).toBe(true);
    const ready = await insula('setup');
    expect(ready).toMatchObject({ status: 0, errors: '' });
    expect(ready.output).toMatch(/^ready: \S/);
    expect(await insula('setup', '--fast')).toMatchObject({
      status: 1,
      errors: expect.stringMatching(/^insula: .*--fast.*\n$/),
    });
  });

  test('the command serves the explorer, which needs no build there', async () => {
    const words = [join(project, 'node_modules/insula', manifest.bin.insula), 'explore', '--port', '0'];
    const program = spawn(process.execPath, words, { cwd: project, stdio: ['ignore', 'ignore', 'pipe'] });
    try {
      const url = await new Promise<string>((resolve) => {
        program.stderr.on('data', (data) => {
          const [found] = /http:\S+/.exec(String(data)) ?? [];
          if (found) resolve(found);
        });
      });
      const page = await (await fetch(url)).text();
      const [, script] = /<script[^>]* src="([^"]+)"/.exec(page)!;
      expect((await fetch(new URL(script, url))).status).toBe(200);
      expect((await fetch(new URL('nothing.js', url))).status).toBe(404);
    } finally {
      program.kill();
    }
  });

  test('without its optional parts, one line says what is missing and how it is installed', async () => {
    const { status, errors } = await insula('train', '--steps', '1');
    expect(status).toBe(1);
    expect(errors).toMatch(/^insula: the built-in tabletop world needs .*: npm install @mujoco\/mujoco\n$/);
    await writeFile(join(project, 'file.hdf5'), '');
    const reading = await insula('train', '--data', 'file.hdf5');
    expect(reading).toMatchObject({
      status: 1,
      errors: expect.stringMatching(/^insula: reading HDF5 .*: npm install h5wasm\n$/),
    });
  });

  describe.skipIf(!long)(`installed by npm${skipped}`, () => {
    const fetchNode = async (version: string): Promise<string> => {
      const place = join(folder, `node-${version}`);
      await mkdir(place);
      await writeFile(join(place, 'package.json'), '{}');
      const { status, errors } = await run(npm, ['install', '--no-audit', '--no-fund', `node@${version}`], place);
      expect(status, errors).toBe(0);
      const program = join(place, 'node_modules/node/bin/node');
      expect((await run(program, ['--version'], place)).output).toMatch(new RegExp(`^v${version}\\.`));
      return program;
    };
    const inPage = async (url: string): Promise<string> => {
      const browser = await launchChromium();
      try {
        const page = await browser.newPage();
        const uncaught = new Promise<never>((_, reject) => page.on('pageerror', reject));
        await page.goto(url);
        await Promise.race([page.waitForFunction("document.title !== 'waiting'"), uncaught]);
        return await page.title();
      } finally {
        await browser.close();
      }
    };

    test.each(['20', '22', '24'])('node %s imports it', async (version) => {
      const program = await fetchNode(version);
      expect(await run(program, ['use.js'], installed)).toMatchObject({ status: 0, output: `${answer}\n` });
    });

    test('node 18 is refused in one line, by the command and by what npm start and npm test begin with', async () => {
      const program = await fetchNode('18');
      const inPackage = join(installed, 'node_modules/insula', manifest.bin.insula);
      const inRepository = ['insula', 'setup', 'launch'].map((name) => join(root, `cli/setup/${name}.mjs`));
      for (const script of [inPackage, ...inRepository]) {
        const errors = expect.stringMatching(/^Insula needs node 20.19 or later, and this is node 18.*\n$/);
        expect(await run(program, [script, 'devices'], installed)).toEqual({ status: 1, output: '', errors });
      }
    });

    test('npx insula trains and draws a report', async () => {
      const npx = (...words: string[]) => run(npm.replace('npm', 'npx'), ['insula', ...words], installed);
      expect(await npx('devices')).toMatchObject({ status: 0, errors: '' });
      const { status, output, errors } = await npx('train', '--steps', '2', '--out', 'run', '--json');
      expect(status, errors).toBe(0);
      expect(JSON.parse(output)).toMatchObject({ finished: true });
      expect(errors).not.toContain('Warning');
      expect(readFileSync(join(installed, 'run/report.html'), 'utf8')).toContain('<svg');
    });

    test.skipIf(!chromiumPath)(`a page of Vite imports it, served and built${chromiumMissing}`, async () => {
      const settings = { configFile: false, root: installed, logLevel: 'error' } as const;
      const local = { host: '127.0.0.1', port: 0 };
      const urlOf = (address: AddressInfo | string | null) => `http://127.0.0.1:${(address as AddressInfo).port}/`;
      const server = await createServer({ ...settings, server: local });
      await server.listen();
      expect(await inPage(urlOf(server.httpServer!.address()))).toBe(answer);
      await server.close();
      await build(settings);
      const built = await preview({ ...settings, preview: local });
      expect(await inPage(urlOf(built.httpServer.address()))).toBe(answer);
      await built.close();
    });
  });
});
