/**
 * Set-up of every test file. The bind groups of an eager op live until they are collected, the software driver maps a page of memory for
 * each, and Linux allows a process 65530 mappings: beyond half of them they are collected here, and a process that nears the limit
 * fails with its file's name before its driver crashes.
 */
import { existsSync, readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, expect } from 'vitest';

const MAPPINGS = '/proc/self/maps';
const HALF = 32_000;
const MOST = 60_000;

const count = () => readFileSync(MAPPINGS, 'latin1').split('\n').length;

/** The collector tells Dawn of what it has collected in a later turn. */
async function collect(): Promise<void> {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  await new Promise((resolve) => setTimeout(resolve, 10));
}

afterAll(async () => {
  if (!existsSync(MAPPINGS)) return;
  if (count() > HALF) await collect();
  expect(count(), 'memory mappings of this process, which Linux ends at 65530').toBeLessThan(MOST);
});
