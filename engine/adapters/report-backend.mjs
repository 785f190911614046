// Opens every adapter of one of Dawn's backends, or without a backend the default adapter, and prints their reports as
// one line of JSON. list-adapters.mjs runs it as a process of its own, so that a driver that crashes ends only this
// process.

import { writeSync } from 'node:fs';
import { create, globals } from 'webgpu';
import { describeAdapter } from './describe.mjs';

/** A name that no adapter has, so that Dawn's error lists the names of all adapters. */
const NO_NAME = 'a name that no adapter has';
/**
 * @param {GPU} gpu
 * @param {string} backend
 * @param {string} name
 * @returns {Promise<import('./describe.mjs').AdapterReport>}
 */
async function report(gpu, backend, name) {
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) return { opens: false, backend, name, reason: await absence(gpu) };
  const device = await adapter.requestDevice();
  device.destroy();
  return describeAdapter(adapter, backend, name);
}

/**
 * Returns the reason why a backend gives no adapter, as far as Dawn reports it here; it writes more to standard error.
 * @param {GPU} gpu
 * @returns {Promise<string>}
 */
async function absence(gpu) {
  // The type of the package does not name the option yet.
  const options = /** @type {GPURequestAdapterOptions} */ ({ featureLevel: 'compatibility' });
  const compatible = await gpu.requestAdapter(options);
  return compatible
    ? "it opens only at WebGPU's compatibility level, and Insula needs the core level"
    : 'no adapter was found';
}

/**
 * @param {string} backend
 * @returns {Promise<string[]>} names of its adapters
 */
async function names(backend) {
  try {
    await create([`backend=${backend}`, `adapter=${NO_NAME}`]).requestAdapter();
  } catch (error) {
    const listed = [...String(error).matchAll(/backend: '([^']*)', name: '(.*)'/g)];
    return [...new Set(listed.filter((match) => match[1] === backend).map((match) => match[2]))];
  }
  return [];
}

/** @param {string} backend */
async function reports(backend) {
  if (!backend) return [await report(create([]), '', '')];
  const all = [];
  for (const name of await names(backend)) {
    try {
      all.push(await report(create([`backend=${backend}`, `adapter=${name}`]), backend, name));
    } catch (error) {
      all.push({ opens: false, backend, name, reason: error instanceof Error ? error.message : String(error) });
    }
  }
  return all.length
    ? all
    : [{ opens: false, backend, name: '', reason: await absence(create([`backend=${backend}`])) }];
}

Object.assign(globalThis, globals);
writeSync(1, `${JSON.stringify(await reports(process.argv[2] ?? ''))}\n`);
