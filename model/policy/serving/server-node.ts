/**
 * openpi's websocket protocol: metadata first, then an answer for each observation, in order. `GET /healthz` answers as long as the process
 * lives. Node only.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, isIP } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';
import { InputError, printable, reasonOf } from '../../../engine/files/errors.ts';
import { listening } from './listening-node.ts';
import { type Message, packMessage, unpackMessage } from './messages.ts';

/** What answers the observations of a session, which begins with a connection. */
export interface Answering {
  readonly metadata: Message;
  answer(session: number, message: Message): Promise<{ readonly [key: string]: Message }>;
  /** The connection of a session is gone, perhaps while its answer is under way; nothing of it is asked again. */
  forget(session: number): void;
}

export interface ServerOptions {
  readonly host: string;
  /** 0 for any that is free. */
  readonly port: number;
  /** Connections at once; 64 by default. */
  readonly clients?: number;
  /** Bytes of one message; 64 MiB by default. */
  readonly messageBytes?: number;
  /** Milliseconds between two signs of life that are asked of a client; one that misses three is disconnected. */
  readonly heartbeat?: number;
  /** Answers other requests than /healthz; false if it does not know one. */
  readonly page?: (request: IncomingMessage, response: ServerResponse) => boolean;
  /** Called with lines about clients for people. */
  readonly onNote?: (line: string) => void;
}

export interface PolicyServer {
  readonly port: number;
  /** Finishes the answers under way, and disconnects. */
  close(): Promise<void>;
}

/** Messages of a client that wait for their answer; more stay in its socket. */
const WAITING = 2;
const HEARTBEAT_MILLISECONDS = 20_000;
const MISSED_HEARTBEATS = 3;
const [GOING_AWAY, INTERNAL_ERROR] = [1001, 1011];

/** @throws InputError if the port is taken or the address is none of this machine */
export async function servePolicy(answering: Answering, options: ServerOptions): Promise<PolicyServer> {
  const { host, port, clients = 64, messageBytes = 2 ** 26, heartbeat = HEARTBEAT_MILLISECONDS, onNote } = options;
  const http = createServer((request, response) => {
    const plain = (code: number, line: string) => response.writeHead(code, { 'content-type': 'text/plain' }).end(line);
    if (request.url === '/healthz') plain(200, 'OK\n');
    else if (!isOwn(nameOf(`http://${request.headers.host}`), host))
      plain(403, 'Open this page by the address of the machine.\n');
    else if (!options.page?.(request, response)) plain(404, 'There is no such page.\n');
  });
  const sockets = new WebSocketServer({ noServer: true, maxPayload: messageBytes, perMessageDeflate: false });
  const metadata = packMessage(answering.metadata);
  const working = new Set<Promise<void>>();
  let [sessions, closing] = [0, false];
  http.on('upgrade', (request, socket, head) => {
    const refusal =
      sockets.clients.size >= clients || closing ? '503 Service Unavailable' : refusedOrigin(request, host);
    if (refusal !== null) return void socket.end(`HTTP/1.1 ${refusal}\r\nConnection: close\r\n\r\n`);
    sockets.handleUpgrade(request, socket, head, (client) => {
      const session = sessions++;
      serve(client, session);
    });
  });

  function serve(client: WebSocket, session: number): void {
    let waiting = 0;
    let missed = 0;
    let before: number | null = null;
    let turn: Promise<void> = Promise.resolve();
    const beat = setInterval(() => {
      if (++missed > MISSED_HEARTBEATS) client.terminate();
      else client.ping();
    }, heartbeat);
    client.on('pong', () => {
      missed = 0;
    });
    let noted = '';
    /** Says what is new: a robot may err alike many times a second. */
    const note = (line: string) => {
      if (line !== noted) onNote?.(`session ${session}: ${printable(line)}`);
      noted = line;
    };
    const send = (data: Uint8Array | string) => new Promise<void>((sent) => client.send(data, () => sent()));
    const answer = async (bytes: Uint8Array): Promise<void> => {
      const start = performance.now();
      try {
        const own = await answering.answer(session, unpackMessage(bytes));
        const timing = { infer_ms: performance.now() - start, ...(before !== null && { prev_total_ms: before }) };
        await send(packMessage({ ...own, server_timing: timing }));
        before = performance.now() - start;
      } catch (error) {
        note(reasonOf(error));
        // openpi's client takes a text for an error. Bad input is answered and the session goes on.
        await send(reasonOf(error));
        if (!(error instanceof InputError)) client.close(INTERNAL_ERROR);
      }
    };
    client.on('message', (data, isBinary) => {
      missed = 0;
      if (++waiting >= WAITING) client.pause();
      const own = turn.then(async () => {
        if (client.readyState === client.OPEN)
          await (isBinary ? answer(data as Buffer) : send('the message is a text; observations are msgpack'));
        waiting -= 1;
        client.resume();
      });
      turn = own;
      working.add(own);
      void own.finally(() => working.delete(own));
    });
    client.on('error', ({ message }) => note(message));
    client.on('close', () => {
      clearInterval(beat);
      answering.forget(session);
    });
    client.send(metadata);
  }

  await listening(http, host, port);
  return {
    port: (http.address() as AddressInfo).port,
    async close() {
      closing = true;
      http.close();
      await Promise.allSettled([...working]);
      for (const client of sockets.clients) client.close(GOING_AWAY, 'the server ends');
      http.closeAllConnections();
      for (const client of sockets.clients) client.terminate();
    },
  };
}

/** A page of another site that a browser shows may not reach a robot; programs send no origin. */
function refusedOrigin({ headers: { origin, host } }: IncomingMessage, own: string): string | null {
  if (origin === undefined) return null;
  return isOwn(nameOf(origin), own) && new URL(origin).host === host ? null : '403 Forbidden';
}

const nameOf = (url: string) => (URL.canParse(url) ? new URL(url).hostname.replace(/^\[|\]$/g, '') : '');

/** An address, or the name that this machine listens at. Another name may be one of a site, which has it lead here (DNS rebinding). */
const isOwn = (name: string, own: string) => name === 'localhost' || name === own.toLowerCase() || isIP(name) > 0;
