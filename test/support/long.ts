import { type TestContext, test } from 'vitest';

/** Whether the long tests run too: INSULA_LONG=1 in the environment, or `long` in the address of the page of a browser. */
export const long =
  typeof process === 'object' ? process.env.INSULA_LONG === '1' : new URL(location.href).searchParams.has('long');

/** A test that proves more of what shorter ones prove already; it is skipped, and says so, without INSULA_LONG=1. `timeout`: milliseconds. */
export function longTest(name: string, run: (context: TestContext) => Promise<void>, timeout?: number): void {
  test.skipIf(!long)(long ? name : `${name} (skipped: set INSULA_LONG=1)`, run, timeout);
}
