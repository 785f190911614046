import { accessSync, constants } from 'node:fs';
import { SourceMap, type SourceMapPayload } from 'node:module';
import type { AddressInfo } from 'node:net';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Browser, chromium, type Page } from 'playwright-core';
import { createServer, type ViteDevServer } from 'vite';
import { long } from '../support/long.ts';

/** A test or a suite (then with `tasks`) in the page. */
export interface PageTask {
  id: string;
  name: string;
  skipped: boolean;
  /** The errors while the file was loaded. */
  errors: PageError[];
  tasks: PageTask[] | null;
}

export interface PageResult {
  id: string;
  skipped: boolean;
  errors: PageError[];
}

export interface PageError {
  message: string;
  stack?: string;
  diff?: string;
}

const root = fileURLToPath(new URL('../../', import.meta.url));
/** How long the browser, and then the page, may take to open on a machine with much else to do. */
const OPENING_MILLISECONDS = 600_000;
const programs = ['chromium', 'chromium-browser', 'google-chrome'];

/** The system's Chromium; null where none is installed. */
export const chromiumPath = findChromium();
export const chromiumMissing = chromiumPath ? '' : ` (skipped: no ${programs.join(', ')} in PATH)`;

function findChromium(): string | null {
  const folders = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder);
  const paths = programs.flatMap((program) => folders.map((folder) => join(folder, program)));
  const executable = (path: string) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  };
  return paths.find(executable) ?? null;
}

/** Chromium with WebGPU on its software adapter. */
export function launchChromium(): Promise<Browser> {
  const args = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--disable-quic'];
  return chromium.launch({ executablePath: chromiumPath!, timeout: OPENING_MILLISECONDS, args });
}

interface OpenedPage {
  readonly page: Page;
  /** Evaluates a call of an export of a module of the repository in the page. */
  call<T>(module: string, name: string, ...values: unknown[]): Promise<T>;
  /** A stack of the page with the repository's files, lines and columns in place of those that were served. */
  locate(stack: string): string;
  /** Errors that no test and no caller caught. */
  readonly uncaught: string[];
  close(): Promise<void>;
}

/**
 * Serves the repository's sources, and opens a page of them in Chromium with WebGPU on its software adapter.
 *
 * Throws where WebGPU does not open in the page.
 */
export async function openPage(): Promise<OpenedPage> {
  const server = await createServer({
    configFile: false,
    root,
    appType: 'mpa',
    logLevel: 'warn',
    clearScreen: false,
    // Sources as they are: every package that runs in a browser consists of ES modules.
    optimizeDeps: { noDiscovery: true },
    resolve: { alias: [{ find: /^vitest$/, replacement: join(root, 'test/browser/vitest.ts') }] },
    server: {
      host: '127.0.0.1',
      port: 0,
      hmr: false,
      ws: false,
      watch: null,
      fs: { allow: [root, join(root, '../shared/fixtures')] },
    },
  });
  let browser: Browser | null = null;
  const close = async () => {
    await browser?.close();
    await server.close();
  };
  try {
    await server.listen();
    browser = await launchChromium();
    const { port } = server.httpServer!.address() as AddressInfo;
    const origin = `http://127.0.0.1:${port}`;
    const locate = (stack: string) => locateFrames(stack, server, origin);
    const page = await browser.newPage();
    const uncaught: string[] = [];
    page.on('pageerror', (error) => uncaught.push(locate(error.stack ?? error.message)));
    page.on('crash', () => uncaught.push('the page crashed'));
    await page.goto(`${origin}/test/browser/page.html${long ? '?long' : ''}`, { timeout: OPENING_MILLISECONDS });
    await expectWebGpu(page);
    const call = <T>(module: string, name: string, ...values: unknown[]): Promise<T> =>
      page.evaluate(`import('/${module}').then((module) => module.${name}(...${JSON.stringify(values)}))`);
    return { page, call, locate, uncaught, close };
  } catch (error) {
    await close();
    throw error;
  }
}

function locateFrames(stack: string, { environments }: ViteDevServer, origin: string): string {
  return stack.replace(
    /(http:[^\s?()]+)(?:\?[^\s:()]*)?:(\d+):(\d+)/g,
    (frame, url: string, line: string, column: string) => {
      if (!url.startsWith(origin)) return frame;
      const file = join(root, url.slice(origin.length));
      const [module] = environments.client.moduleGraph.getModulesByFile(file) ?? [];
      const map = module?.transformResult?.map;
      if (!map || !('mappings' in map) || !map.mappings) return `${file}:${line}:${column}`;
      const entry = new SourceMap(map as SourceMapPayload).findEntry(Number(line) - 1, Number(column) - 1);
      return 'originalLine' in entry ? `${file}:${entry.originalLine + 1}:${entry.originalColumn + 1}` : file;
    },
  );
}

async function expectWebGpu(page: Page): Promise<void> {
  const missing = await page.evaluate(async () => {
    if (!navigator.gpu) return 'the page has no navigator.gpu';
    return (await navigator.gpu.requestAdapter()) ? null : 'navigator.gpu gives no adapter, not even the software one';
  });
  if (missing) throw new Error(`WebGPU does not open in ${chromiumPath}: ${missing}`);
}
