/** Listening at a port, with one line for whoever typed it. Node only. */
import type { Server } from 'node:http';
import { InputError } from '../../../engine/files/errors.ts';

/** @throws InputError if the port is taken or not for this user, or the host is no address of this machine */
export function listening(server: Server, host: string, port: number): Promise<void> {
  return new Promise((done, fail) => {
    server.once('error', ({ code, message }: NodeJS.ErrnoException) => {
      const reasons: Record<string, string> = {
        EADDRINUSE: `port ${port}: another program listens there; give --port`,
        EACCES: `port ${port}: this user may not listen there; give --port above 1023`,
        EADDRNOTAVAIL: `host ${host}: is no address of this machine`,
        ENOTFOUND: `host ${host}: is no address of this machine`,
      };
      fail(new InputError(reasons[code ?? ''] ?? `${host}:${port}: ${message}`));
    });
    server.listen(port, host, done);
  });
}
