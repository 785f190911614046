/** The WebGPU adapters of a machine, and advice on what to install if there is none. */

import { adviceFor, parseOsRelease } from './adapters/advice.mjs';
import type { AdapterReport } from './adapters/describe.mjs';

export type { AdapterReport, ClosedAdapter, OpenAdapter } from './adapters/describe.mjs';

/**
 * Reports on every adapter that opens, with the default one marked, and then on those that do not, with the reason (node only).
 * Each backend is opened in a process of its own, so that a driver that crashes does not end this one.
 */
export async function listAdapters(): Promise<AdapterReport[]> {
  const path = './adapters/list-adapters.mjs';
  const { listNodeAdapters } = (await import(/* @vite-ignore */ path)) as typeof import('./adapters/list-adapters.mjs');
  return listNodeAdapters();
}

/** A paragraph of advice on what to install on this operating system so that an adapter opens (node only). */
export function installAdvice(): string {
  if (process.platform !== 'linux') return adviceFor(process.platform);
  const { readFileSync } = process.getBuiltinModule('node:fs');
  try {
    return adviceFor('linux', parseOsRelease(readFileSync('/etc/os-release', 'utf8')));
  } catch {
    return adviceFor('linux');
  }
}
