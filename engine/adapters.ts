/** The WebGPU adapters of a machine, and advice on what to install if there is none. */

import { adviceFor, parseOsRelease } from './adapters/advice.mjs';
import { type AdapterReport, describeAdapter, identity, type OpenAdapter } from './adapters/describe.mjs';

export type { AdapterReport, ClosedAdapter, OpenAdapter } from './adapters/describe.mjs';

/**
 * Reports on every adapter that opens, with the default one marked, and then on those that do not, with the reason.
 * Under node each backend is opened in a process of its own, so that a driver that crashes does not end this one.
 */
export async function listAdapters(): Promise<AdapterReport[]> {
  if (inBrowser()) return listBrowserAdapters();
  const path = './adapters/list-adapters.mjs';
  const { listNodeAdapters } = (await import(/* @vite-ignore */ path)) as typeof import('./adapters/list-adapters.mjs');
  return listNodeAdapters();
}

/** A paragraph of advice on what to install on this operating system so that an adapter opens. */
export function installAdvice(): string {
  if (inBrowser()) return adviceFor('browser');
  if (process.platform !== 'linux') return adviceFor(process.platform);
  const { readFileSync } = process.getBuiltinModule('node:fs');
  try {
    return adviceFor('linux', parseOsRelease(readFileSync('/etc/os-release', 'utf8')));
  } catch {
    return adviceFor('linux');
  }
}

function inBrowser(): boolean {
  return typeof process !== 'object' || !process.versions?.node;
}

async function listBrowserAdapters(): Promise<AdapterReport[]> {
  if (!navigator.gpu)
    return [
      { opens: false, backend: 'browser', name: '', reason: 'this browser, or this page without https, has no WebGPU' },
    ];
  const found = new Map<string, OpenAdapter>();
  const choices: GPURequestAdapterOptions[] = [
    { powerPreference: 'high-performance' },
    { powerPreference: 'low-power' },
    { forceFallbackAdapter: true },
  ];
  for (const choice of choices) {
    const adapter = await navigator.gpu.requestAdapter(choice);
    if (!adapter) continue;
    const described = { ...describeAdapter(adapter, 'browser', ''), isDefault: found.size === 0 };
    if (!found.has(identity(described))) found.set(identity(described), described);
  }
  if (found.size) return [...found.values()];
  return [{ opens: false, backend: 'browser', name: '', reason: 'the browser has WebGPU but offers no adapter' }];
}
