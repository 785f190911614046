import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Locator, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { serveExplorer } from '../../bench/explorer/host/serve.ts';
import { chromiumMissing, chromiumPath, launchChromium } from './chromium.ts';

export interface OpenedExplorer {
  readonly page: Page;
  /** Errors that the page did not catch, and what it wrote to the console as an error. */
  readonly errors: readonly string[];
  /** Shows a section, as a link with `state` does. */
  show(section: string, state?: string): Promise<void>;
  close(): Promise<void>;
}

/** Patience with a software adapter on a machine with much else to do. */
export const PATIENCE = { timeout: 900_000 };

/** Builds the explorer and opens it in Chromium, with WebGPU on its software adapter or without any. */
export async function openExplorer({ webgpu = true } = {}): Promise<OpenedExplorer> {
  const folder = mkdtempSync(join(tmpdir(), 'insula-explorer-'));
  const server = await serveExplorer(join(folder, 'page'), 0);
  const browser = await launchChromium();
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(PATIENCE.timeout);
  if (!webgpu) await page.addInitScript(() => Object.defineProperty(navigator, 'gpu', { value: undefined }));
  // Keeps the page's device, so that a test can lose it.
  await page.addInitScript(() => {
    if (!navigator.gpu) return;
    const request = GPUAdapter.prototype.requestDevice;
    GPUAdapter.prototype.requestDevice = async function (...options) {
      const device = await request.apply(this, options);
      Object.assign(globalThis, { loseDevice: () => device.destroy() });
      return device;
    };
  });
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(error.stack ?? error.message));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  const show = async (section: string, state?: string) => {
    await page.goto('about:blank');
    await page.goto(`${server.url}#${section}${state === undefined ? '' : `/${state}`}`);
  };
  const close = async () => {
    await browser.close();
    server.close();
    rmSync(folder, { recursive: true, force: true });
  };
  return { page, errors, show, close };
}

/** Tests in one browser, which is open while they run. After them, no error has been left that the page does not tell. */
export function inExplorer(name: string, tests: (explorer: OpenedExplorer) => void): void {
  describe.skipIf(!chromiumPath)(`${name}, in Chromium${chromiumMissing}`, () => {
    const explorer = {} as OpenedExplorer;
    beforeAll(async () => {
      Object.assign(explorer, await openExplorer());
    }, PATIENCE.timeout);
    afterAll(() => explorer.close());
    tests(explorer);
    test('nothing goes wrong that the page does not tell', () => {
      expect(explorer.errors).toEqual([]);
    });
  });
}

/** The texts of a table's body, by row; waits for the first. */
export async function rowsOf(table: Locator): Promise<string[][]> {
  const rows = table.locator('tbody tr');
  await rows.first().waitFor();
  return Promise.all((await rows.all()).map((row) => row.locator('th,td').allInnerTexts()));
}
