/** `insula explore`: the page that shows kernels, attention, gradient flow, a step and action tokens, and has them changed. */
import { join } from 'node:path';
import { addPhysics, buildExplorer } from '../bench/explorer/host/build.ts';
import { serveExplorer } from '../bench/explorer/host/serve.ts';
import { MUJOCO } from '../bench/tabletop/world.ts';
import { InputError } from '../engine/files/errors.ts';
import { command } from './command.ts';
import { WORK_FOLDER } from './device.ts';
import { number, outputFolder } from './options.ts';

const PORT = 8317;

export const explore = command({
  options: {
    port: number(`serves the page at this port of this machine; ${PORT} by default, 0 for any that is free`, 0, {
      to: 65535,
      excludes: 'build',
    }),
    build: outputFolder('writes the page as static files to this folder, and serves nothing'),
  },
  notes: [
    'The page computes on the GPU of the browser that shows it, and asks no other machine for anything. A browser that is not on this machine needs the static files, on a server with HTTPS: browsers have WebGPU on secure pages alone.',
  ],
  async run({ port = PORT, build }, { progress }) {
    if (build !== undefined) {
      await buildExplorer(build);
      const physics = await addPhysics(build);
      const lines = [`${build}: the explorer, to be served by any web server`];
      if (!physics)
        lines.push(`it has no physics, with which it makes demonstrations: npm install ${MUJOCO}, then build it again`);
      return { json: { folder: build, physics }, lines };
    }
    if (port > 65_535) throw new InputError(`explore: --port ${port}: expected an integer from 0 to 65535`);
    const { url } = await serveExplorer(join(WORK_FOLDER, 'explorer'), port);
    progress.note(`${url} (Ctrl-C ends)`);
    return await new Promise<never>(() => {});
  },
});
