/** Set-up of every test file: a process that nears Linux's limit of memory mappings fails here, before its driver crashes. */
import { existsSync, readFileSync } from 'node:fs';
import { afterAll, expect } from 'vitest';

const MAPPINGS = '/proc/self/maps';
/** Linux allows 65530. */
const MOST = 60_000;

afterAll(() => {
  if (!existsSync(MAPPINGS)) return;
  const mappings = readFileSync(MAPPINGS, 'latin1').split('\n').length;
  expect(mappings, 'memory mappings of this process, which Linux ends at 65530').toBeLessThan(MOST);
});
