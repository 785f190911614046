/** Serves the explorer: from the files that a package holds, or from those that are made of the sources. Node only. */
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import sirv from 'sirv';
import { listening } from '../../../model/policy/serving/listening-node.ts';
import { buildExplorer, installedPhysics, PHYSICS } from './build.ts';

const packaged = fileURLToPath(new URL('../page', import.meta.url));

interface Served {
  readonly url: string;
  close(): void;
}

/**
 * Serves the page to this machine alone. `folder` holds the page that is made where no package brought one.
 *
 * @param port 0 for any that is free
 * @throws InputError if the port is taken
 */
export async function serveExplorer(folder: string, port: number): Promise<Served> {
  const own = existsSync(packaged);
  if (!own) await buildExplorer(resolve(folder));
  const files = sirv(own ? packaged : resolve(folder), { dev: true });
  const installed = installedPhysics();
  const physics = installed === null ? files : sirv(installed, { dev: true });
  const server = createServer((request, response) => {
    const path = request.url?.replace(`/${PHYSICS}/`, '/');
    const isPhysics = path !== request.url;
    if (isPhysics) request.url = path;
    (isPhysics ? physics : files)(request, response);
  });
  await listening(server, '127.0.0.1', port);
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, close: () => server.close() };
}
