import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { addPhysics, buildExplorer } from '../bench/explorer/host/build.ts';

describe('the explorer as static files', () => {
  const folder = mkdtempSync(join(tmpdir(), 'insula-explorer-'));
  const page = join(folder, 'page');
  const files = (ending: RegExp) =>
    readdirSync(page, { recursive: true, encoding: 'utf8' }).filter((name) => ending.test(name));
  beforeAll(() => buildExplorer(page));
  afterAll(() => rmSync(folder, { recursive: true }));

  test('its script has less than 1 MB, compressed', () => {
    const bytes = files(/\.js$/).map((name) => gzipSync(readFileSync(join(page, name))).length);
    expect(bytes.length).toBeGreaterThan(3);
    expect(bytes.reduce((sum, own) => sum + own, 0)).toBeLessThan(1e6);
  });

  test('it holds the smallest vision-language model alone, and no physics but that which is added', async () => {
    expect(files(/\.safetensors$/)).toEqual([expect.stringMatching(/\btiny-[^/]*$/)]);
    expect(files(/^mujoco/)).toEqual([]);
    expect(await addPhysics(page)).toBe(true);
    expect(files(/\.wasm$/)).toContain(join('mujoco', 'mujoco.wasm'));
  });

  test('the page itself may not make functions out of text', () => {
    expect(readFileSync(join(page, 'index.html'), 'utf8')).toMatch(/script-src 'self' 'wasm-unsafe-eval';/);
  });
});
