// Lists every WebGPU adapter of this machine, for engine/adapters.ts under node.

import { execFile } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { identity } from './describe.mjs';
import { systemEnvironment } from './software-adapter.mjs';

/** @typedef {import('./describe.mjs').AdapterReport} AdapterReport */

const OPEN_MILLISECONDS = 60_000;

/** @type {Record<string, string[]>} */
const backendsOf = {
  darwin: ['metal'],
  win32: ['d3d12', 'd3d11', 'vulkan'],
  linux: ['vulkan', 'opengl', 'opengles'],
};

/**
 * @param {string} backend '' for the adapter that opens by default
 * @param {import('./software-adapter.mjs').Environment} environment
 * @returns {Promise<AdapterReport[]>}
 */
function reportBackend(backend, environment) {
  const script = join(dirname(fileURLToPath(import.meta.url)), 'report-backend.mjs');
  return new Promise((resolve) => {
    const settings = { env: environment, timeout: OPEN_MILLISECONDS };
    execFile(process.execPath, [script, backend], settings, (error, output, messages) => {
      if (error) {
        const how = error.signal
          ? `ended by ${error.signal}`
          : (error.message.split('\n').find((line) => /^\w*Error:/.test(line)) ?? `exit status ${error.code}`);
        resolve([{ opens: false, backend, name: '', reason: `opening it crashed (${how})` }]);
        return;
      }
      const loader = dawnReason(messages);
      try {
        // A driver may print lines of its own before.
        /** @type {AdapterReport[]} */
        const reports = JSON.parse(output.trim().split('\n').at(-1) ?? '');
        resolve(reports.map((one) => (!one.opens && loader ? { ...one, reason: `${one.reason} (${loader})` } : one)));
      } catch {
        resolve([{ opens: false, backend, name: '', reason: 'it gave no report that can be read' }]);
      }
    });
  });
}

/**
 * @param {string} messages that Dawn wrote to standard error
 * @returns {string | undefined} the first one that explains why nothing opened
 */
export function dawnReason(messages) {
  const warnings = [...messages.matchAll(/^(?:Warning|Error): (.*)$/gm)].map((match) => match[1]);
  return warnings.find((warning) => !warning.includes('artificially reduced'));
}

/**
 * Reports on adapters that open come first. If the set-up's software adapter is in use, the system's own Vulkan drivers
 * are listed too.
 * @returns {Promise<AdapterReport[]>}
 */
export async function listNodeAdapters() {
  const backends = backendsOf[process.platform] ?? backendsOf.linux;
  const [[preferred], ...lists] = await Promise.all([
    reportBackend('', process.env),
    ...backends.map((backend) => reportBackend(backend, process.env)),
  ]);
  const reports = lists.flat();
  for (const one of reports)
    if (one.opens && preferred.opens && identity(one) === identity(preferred)) one.isDefault = true;
  const system = systemEnvironment(process.env);
  if (system) {
    const closed = (await reportBackend('vulkan', system)).filter((one) => !one.opens);
    reports.push(...closed.map((one) => ({ ...one, name: one.name || "the system's own drivers" })));
  }
  return reports.sort((a, b) => Number(b.opens) - Number(a.opens));
}
