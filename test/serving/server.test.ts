import { connect } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import WebSocket from 'ws';
import { InputError } from '../../engine/index.ts';
import { type Message, packMessage, unpackMessage } from '../../model/policy/serving/messages.ts';
import {
  type Answering,
  type PolicyServer,
  type ServerOptions,
  servePolicy,
} from '../../model/policy/serving/server-node.ts';

let server: PolicyServer | null = null;
afterEach(async () => {
  await server?.close();
  server = null;
});

let forgotten: number[] = [];

/** Answers with what was asked and the session, after a moment that differs from one message to the next. */
const echo = (): Answering => ({
  metadata: { name: 'echo' },
  async answer(session, message) {
    const { number = 0, fail } = message as Record<string, number>;
    await wait((number * 7) % 3);
    if (fail === 1) throw new InputError('this one is bad');
    if (fail === 2) throw new Error('broken');
    return { session, number };
  },
  forget: forgetting(),
});

function forgetting(): (session: number) => void {
  const own: number[] = [];
  forgotten = own;
  return (session) => own.push(session);
}

let notes: string[] = [];

async function begin(options: Partial<ServerOptions> = {}): Promise<number> {
  notes = [];
  const onNote = (line: string) => notes.push(line);
  server = await servePolicy(echo(), { host: '127.0.0.1', port: 0, onNote, ...options });
  return server.port;
}

interface Client {
  readonly socket: WebSocket;
  /** The next frame: bytes of a message, or a text. */
  next(): Promise<Message | string>;
  ask(message: Message): Promise<Message | string>;
}

function client(port: number, options: WebSocket.ClientOptions = {}): Promise<Client> {
  return new Promise((connected, refused) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate: false, ...options });
    const frames: (Message | string)[] = [];
    const waiting: ((frame: Message | string) => void)[] = [];
    socket.on('message', (data: Buffer, isBinary) => {
      const frame = isBinary ? unpackMessage(data) : data.toString();
      const taker = waiting.shift();
      if (taker) taker(frame);
      else frames.push(frame);
    });
    const next = () =>
      frames.length > 0
        ? Promise.resolve(frames.shift()!)
        : new Promise<Message | string>((taken) => waiting.push(taken));
    const ask = (message: Message) => {
      socket.send(packMessage(message));
      return next();
    };
    socket.on('open', () => connected({ socket, next, ask }));
    socket.on('error', refused);
  });
}

const closed = ({ socket }: Client) => new Promise<number>((done) => socket.on('close', (code) => done(code)));
const healthy = async (port: number) => (await (await fetch(`http://127.0.0.1:${port}/healthz`)).text()) === 'OK\n';

test('metadata come first, then answers in order, each with its timing', async () => {
  const { socket, next, ask } = await client(await begin());
  expect(await next()).toEqual({ name: 'echo' });
  const first = (await ask({ number: 3 })) as Record<string, Message>;
  expect(first).toEqual({ session: 0, number: 3, server_timing: { infer_ms: expect.any(Number) } });
  // Two at once: the answers keep the order, although the second one takes less time.
  socket.send(packMessage({ number: 2 }));
  socket.send(packMessage({ number: 0 }));
  expect([await next(), await next()]).toMatchObject([
    { number: 2, server_timing: { prev_total_ms: expect.any(Number) } },
    { number: 0 },
  ]);
  socket.close();
});

test('1,000 requests of 8 clients lose and mix up nothing, and health answers meanwhile', async () => {
  const port = await begin();
  const clients = await Promise.all(Array.from({ length: 8 }, () => client(port)));
  const work = clients.map(async ({ next, ask, socket }, own) => {
    await next();
    const sessions = new Set<Message>();
    for (let i = 0; i < 125; i++) {
      const answer = (await ask({ number: own * 1000 + i })) as Record<string, Message>;
      expect(answer.number).toBe(own * 1000 + i);
      sessions.add(answer.session);
    }
    socket.close();
    return [...sessions];
  });
  expect(await healthy(port)).toBe(true);
  expect((await Promise.all(work)).flat().sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
});

test('bad input is answered with a text, and the session goes on; an error of the program ends it', async () => {
  const port = await begin();
  const own = await client(port);
  await own.next();
  for (const _ of [0, 1, 2]) expect(await own.ask({ fail: 1 })).toBe('this one is bad');
  expect(notes).toEqual(['session 0: this one is bad']);
  own.socket.send('a text');
  expect(await own.next()).toMatch(/observations are msgpack/);
  own.socket.send(Buffer.of(0xc1));
  expect(await own.next()).toMatch(/msgpack/);
  expect(await own.ask({ number: 4 })).toMatchObject({ number: 4 });
  const end = closed(own);
  expect(await own.ask({ fail: 2 })).toBe('broken');
  expect(await end).toBe(1011);
  expect(await healthy(port)).toBe(true);
});

test('a message that is too large, a client that vanishes and bytes that are no protocol end that client alone', async () => {
  const port = await begin({ messageBytes: 1000 });
  const [large, vanishing, other] = await Promise.all([client(port), client(port), client(port)]);
  const end = closed(large);
  large.socket.send(Buffer.alloc(2000));
  expect(await end).toBe(1009);
  expect(notes).toEqual(['session 0: Max payload size exceeded']);
  vanishing.socket.send(packMessage({ number: 4 }));
  vanishing.socket.terminate();
  const raw = connect(port, '127.0.0.1');
  raw.on('error', () => {}).write('\0\x01 nonsense\r\n\r\n');
  await new Promise((done) => raw.on('close', done).resume());
  await other.next();
  expect(await other.ask({ number: 1 })).toMatchObject({ number: 1 });
  other.socket.close();
  await vanished(3);
  expect(forgotten.sort()).toEqual([0, 1, 2]);
});

/** Until the server has forgotten so many sessions. */
async function vanished(count: number): Promise<void> {
  while (forgotten.length < count) await wait(5);
}

test('a session is forgotten while its answer is under way', async () => {
  let release: (() => void) | null = null;
  const answering: Answering = { ...echo(), answer: () => new Promise((done) => (release = () => done({}))) };
  server = await servePolicy(answering, { host: '127.0.0.1', port: 0 });
  const { socket, next } = await client(server.port);
  await next();
  socket.send(packMessage({}));
  while (!release) await wait(5);
  socket.terminate();
  await vanished(1);
  (release as () => void)();
});

test('a client that sends and never reads waits in its socket', async () => {
  let asked = 0;
  const counting: Answering = {
    ...echo(),
    answer: async () => ({ number: ++asked, filling: new Uint8Array(2 ** 20) }),
  };
  server = await servePolicy(counting, { host: '127.0.0.1', port: 0 });
  const { socket } = await client(server.port);
  socket.pause();
  for (let i = 0; i < 500; i++) socket.send(packMessage({ number: i }));
  const other = await client(server.port);
  await other.next();
  await other.ask({});
  await wait(200);
  // Some answers fit into the buffers of the system.
  expect(asked).toBeLessThan(200);
  socket.terminate();
});

test('a client that shows no sign of life is disconnected, and one that lives is not', async () => {
  const port = await begin({ heartbeat: 20 });
  const alive = await client(port);
  const dead = await client(port, { autoPong: false });
  await closed(dead);
  await alive.next();
  expect(await alive.ask({ number: 1 })).toMatchObject({ number: 1 });
});

test('more clients than there may be, and pages of other sites, are refused', async () => {
  const port = await begin({ clients: 2 });
  const [first] = await Promise.all([client(port), client(port, { origin: `http://127.0.0.1:${port}` })]);
  await expect(client(port)).rejects.toThrow('503');
  const end = closed(first);
  first.socket.close();
  await end;
  await vanished(1);
  for (const origin of ['https://elsewhere.example', 'null', 'http://127.0.0.1:1'])
    await expect(client(port, { origin }), origin).rejects.toThrow('403');
  // A name that a site made lead here: the browser sends it as origin and host alike.
  const rebound = { origin: `http://rebound.example:${port}`, headers: { host: `rebound.example:${port}` } };
  await expect(client(port, rebound)).rejects.toThrow('403');
});

test('a page is for those who name this machine, which a name of a site that leads here does not', async () => {
  const port = await begin({ page: (_, response) => Boolean(response.end('pictures')) });
  const got = (host: string) =>
    new Promise<string>((done) => {
      const socket = connect(port, '127.0.0.1', () => socket.end(`GET /events HTTP/1.1\r\nHost: ${host}\r\n\r\n`));
      let text = '';
      socket.on('data', (own) => (text += own)).on('close', () => done(text));
    });
  for (const host of [`localhost:${port}`, `127.0.0.1:${port}`, `[::1]:${port}`, '192.0.2.7'])
    expect(await got(host), host).toContain('pictures');
  for (const host of [`rebound.example:${port}`, 'localhost.example', '127.0.0.1.example', ' ', 'a b'])
    expect(await got(host), host).not.toContain('pictures');
});

test('a port in use, and an address that is none of this machine', async () => {
  const port = await begin();
  await expect(servePolicy(echo(), { host: '127.0.0.1', port })).rejects.toThrow(
    `port ${port}: another program listens`,
  );
  await expect(servePolicy(echo(), { host: '192.0.2.1', port: 0 })).rejects.toThrow('no address of this machine');
});

test('closing finishes the answers under way', async () => {
  const own = await client(await begin());
  await own.next();
  own.socket.send(packMessage({ number: 2 }));
  await wait(1);
  const end = closed(own);
  await server!.close();
  server = null;
  expect(await own.next()).toMatchObject({ number: 2 });
  expect(await end).toBe(1001);
});
