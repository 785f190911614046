/** Many devices in one process: they leave no threads and no memory behind, and it ends by itself after the last. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { long } from '../support/long.ts';
import type { ManyDevices } from './many-devices.ts';

const DEVICES = long ? 1000 : 60;
/** A closed device is some tens of kilobytes until it is collected, which happens once in a while. */
const MOST_BYTES = 40e6;

test.skipIf(!existsSync('/proc/self/task'))(`${DEVICES} devices, one after the other and several at once`, async () => {
  const script = join(import.meta.dirname, 'many-devices.ts');
  const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', script, `${DEVICES}`]);
  const { threads, bytes, results }: ManyDevices = JSON.parse(stdout);
  expect(threads[1]).toBe(threads[0]);
  expect(bytes[1] - bytes[0]).toBeLessThan(MOST_BYTES);
  expect(results).toEqual(Array(50).fill(20));
});
