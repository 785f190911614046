/** `insula serve` whole; INSULA_OPENPI names a Python with openpi-client, which then drives the tabletop world. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import WebSocket from 'ws';
import { makeScene } from '../../bench/tabletop/make-scene.ts';
import { simplePlacing } from '../../bench/tabletop/scene.ts';
import { TabletopWorld } from '../../bench/tabletop/world.ts';
import { Progress } from '../../cli/progress.ts';
import { serve } from '../../cli/serve.ts';
import { train } from '../../cli/train.ts';
import { DeviceLostError, openDevice } from '../../engine/index.ts';
import type { RawObservation } from '../../model/policy/encoding.ts';
import { Executor } from '../../model/policy/execution.ts';
import { Policy } from '../../model/policy/policy.ts';
import { NumberArray, packMessage, unpackMessage } from '../../model/policy/serving/messages.ts';
import { LivePage } from '../../model/policy/serving/page-node.ts';
import { ServedPolicy } from '../../model/policy/serving/served-policy.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import type { RunResult } from '../../model/training/run.ts';
import { normals } from '../support/numbers.ts';
import { runCommand } from '../support/run-command.ts';
import { trainRun } from '../support/train-run.ts';

const python = process.env.INSULA_OPENPI;
const skipped = python ? '' : ' (skipped: INSULA_OPENPI names no Python with openpi-client)';

let folder = '';
let checkpoint = '';
let run: RunResult;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-serve-'));
  checkpoint = join(folder, 'checkpoint.safetensors');
  run = await trainRun(checkpoint, { steps: 1 });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Hears at which port the command listens. */
class Listening extends Progress {
  constructor(private readonly tell: (port: number) => void) {
    super();
  }

  override note(line: string): void {
    const found = /ws:\/\/127\.0\.0\.1:(\d+)/.exec(line);
    if (found) this.tell(Number(found[1]));
  }
}

/** Serves while `work` runs, and gives the number of answers. */
async function serving(
  values: Parameters<typeof serve.runWith>[0],
  work: (port: number) => Promise<void>,
): Promise<number> {
  const abort = new AbortController();
  let served!: ReturnType<typeof serve.runWith>;
  const listening = new Promise<number>((tell) => {
    const progress = new Listening(tell);
    served = runCommand(serve, { checkpoint, port: 0, ...values }, { progress, signal: abort.signal });
  });
  try {
    await Promise.race([listening.then(work), served]);
  } finally {
    abort.abort();
  }
  return (await served).json.answers;
}

const image = (seed: number) =>
  Uint8Array.from(normals(16 * 16 * 3, seed), (own) => Math.max(0, Math.min(255, 128 + 60 * own)));
const observed = (seed: number): RawObservation => ({
  images: { front: { height: 16, width: 16, pixels: image(seed) } },
  ...{ state: [0.5, -0.25], instruction: 'put the red cube in the blue bin' },
});
const asMessage = ({ images, state, instruction }: RawObservation) =>
  packMessage({
    observation: { images: { front: new NumberArray([16, 16, 3], Uint8Array.from(images.front!.pixels)) } },
    ...{ state: new NumberArray([2], Float32Array.from(state!)), prompt: instruction },
  });

/** Asks about observations one after another, over one connection. */
async function ask(port: number, observations: readonly RawObservation[]): Promise<NumberArray[]> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}`);
  const next = async () => unpackMessage((await once(socket, 'message'))[0]) as Record<string, NumberArray>;
  expect(await next()).toMatchObject({
    server: 'insula',
    system: 'pi0',
    cameras: ['front'],
    action_dim: 3,
    state_dim: 2,
  });
  const answers: NumberArray[] = [];
  for (const observation of observations) {
    socket.send(asMessage(observation));
    answers.push((await next()).actions);
  }
  socket.close();
  return answers;
}

test('clients at once get what the policy alone would answer, and the page shows it', async () => {
  const { policy } = run;
  const observations = [observed(1), observed(2)];
  const expected: Float32Array[] = [];
  for (const [sample, own] of observations.entries()) expected.push((await policy.act([own], { sample }))[0]);
  const answers = await serving({ page: true }, async (port) => {
    const page = await fetch(`http://127.0.0.1:${port}/`);
    expect(await page.text()).toContain('EventSource');
    const events = (await fetch(`http://127.0.0.1:${port}/events`))
      .body!.pipeThrough(new TextDecoderStream())
      .getReader();
    for (const own of await Promise.all([ask(port, observations), ask(port, observations)]))
      expect(own.map(({ shape, data }) => [shape, data])).toEqual(expected.map((data) => [[data.length / 3, 3], data]));
    let shown = '';
    while (!shown.includes('"session":1')) shown += (await events.read()).value;
    expect(shown).toContain(`"picture":"${Buffer.from(image(1)).toString('base64')}","width":16,"height":16`);
    await events.cancel();
    expect((await fetch(`http://127.0.0.1:${port}/other`)).status).toBe(404);
  });
  expect(answers).toBe(4);
});

test('the server carries out chunks, an action an answer', async () => {
  const { policy } = run;
  const observations = Array.from({ length: 6 }, (_, i) => observed(i));
  const session = policy.session();
  let sample = 0;
  const call = (seen: readonly RawObservation[]) => session.act(seen, { sample: sample++, seed: 4 });
  const executor = new Executor(call, 3, { execution: 'temporal-ensembling' });
  const expected: Float32Array[] = [];
  for (const own of observations) expected.push((await executor.next(() => [own]))[0]);
  await serving({ execution: 'temporal-ensembling', seed: 4 }, async (port) => {
    const answers = await ask(port, observations);
    expect(answers.map(({ shape, data }) => [shape, data])).toEqual(expected.map((data) => [[1, 3], data]));
  });
});

test('actions that are there wait for no call of the policy, and what nobody waits for any more is not computed', async () => {
  const { configuration } = run.policy.model;
  const held: (() => void)[] = [];
  const calls: number[] = [];
  const policy = {
    model: { configuration },
    async actInWindows([{ state }]: readonly RawObservation[]) {
      calls.push(state![0]);
      if (state![0] > 0) await new Promise<void>((release) => held.push(release));
      return [new Float32Array(configuration.horizon * 3).fill(state![0])];
    },
  };
  const options = { execution: 'real-time-chunking', executeSteps: 2, delay: 1 } as const;
  const served = new ServedPolicy(policy as unknown as Policy, 3, options);
  const ask = async (session: number, number: number, reset = false) =>
    (await served.answer(session, { ...observed(1), state: [number, 0] }, reset)).actions[0];
  for (const session of [0, 1, 2]) for (const _ of [0, 1]) expect(await ask(session, -session)).toBeCloseTo(-session);
  // The calls for these steps wait one after another, and the answers do not.
  expect([await ask(0, 10), await ask(1, 11), await ask(2, 12)].map(Math.abs)).toEqual([0, 1, 2]);
  served.forget(1);
  const left = expect(ask(2, 13, true)).resolves.toBe(13);
  const gone = expect(ask(3, 14)).rejects.toThrow('the robot left before its turn');
  served.forget(3);
  while (held.length < 1) await new Promise(setImmediate);
  held.shift()!();
  expect(await ask(0, 15)).toBe(10);
  while (held.length < 1) await new Promise(setImmediate);
  held.shift()!();
  await Promise.all([left, gone]);
  await served.idle();
  expect(calls.map(Math.abs)).toEqual([0, 1, 2, 10, 13]);
});

test('the page gets small pictures, and one text for all who look', async () => {
  const page = await LivePage.open('a policy');
  const events = [[], [], []] as unknown[][];
  for (const [i, written] of events.entries()) {
    const response = {
      writeHead() {},
      on() {},
      write: (own: unknown) => written.push(own),
      writableLength: i * 2 ** 22,
    };
    expect(page.answer({ url: '/events' } as IncomingMessage, response as unknown as ServerResponse)).toBe(true);
  }
  const pixels = Uint8Array.from({ length: 480 * 640 * 3 }, (_, i) => ((i / 3) % 640) / 3 + (i % 3));
  const seen = { ...observed(1), images: { front: { height: 480, width: 640, pixels }, wrist: null } };
  page.show(7, seen, { actions: Float32Array.of(1, 2), dimension: 2, said: null, milliseconds: 5 });
  // The last browser takes nothing.
  expect(events.map(({ length }) => length)).toEqual([2, 2, 1]);
  expect(events[0][1]).toBe(events[1][1]);
  const { pictures, actions } = JSON.parse(`${events[0][1]}`.slice('data: '.length));
  expect(pictures).toEqual([
    { camera: 'front', picture: expect.any(String), width: 320, height: 240 },
    { camera: 'wrist' },
  ]);
  const shown = Buffer.from(pictures[0].picture, 'base64');
  const row = Array.from({ length: 320 }, (_, x) => [0, 1, 2].map((channel) => Math.trunc((2 * x) / 3 + channel)));
  expect(shown.length).toBe(320 * 240 * 3);
  expect([...shown.subarray(-320 * 3)]).toEqual(row.flat());
  expect(actions).toEqual([[1, 2]]);
});

test('a device that is lost between two requests, or during one, is opened again, and the answers are the same', async () => {
  const device = await openDevice();
  const load = async () => {
    const opened = await openCheckpoint(checkpoint);
    const model = await opened.loadModel(device);
    await opened.close();
    return new Policy(model, run.policy.encoding);
  };
  let recovered = 0;
  const served = new ServedPolicy(await load(), 3, { execution: 'temporal-ensembling' }, async (error) => {
    if (!((await device.errors.explained(error)) instanceof DeviceLostError)) return null;
    recovered += 1;
    await device.reopen();
    return load();
  });
  const answers = async (whenAsked: (step: number) => void) => {
    const actions: Float32Array[] = [];
    for (let step = 0; step < 4; step++) {
      const answer = served.answer(0, observed(step), step === 0);
      whenAsked(step);
      actions.push((await answer).actions);
    }
    return actions;
  };
  const expected = await answers(() => {});
  device.gpu.destroy();
  expect(await answers((step) => step === 2 && device.gpu.destroy())).toEqual(expected);
  expect(recovered).toBe(2);
  device.close();
});

test('bad options are one line', async () => {
  const error = (values: Parameters<typeof serve.runWith>[0]) =>
    expect(runCommand(serve, { checkpoint, port: 0, ...values })).rejects;
  await error({ checkpoint: join(folder, 'none') }).toThrow('no such file');
  await error({ robot: 'so100' }).toThrow('trained on one robot');
  await error({ key: ['wrist=a'] }).toThrow('no "wrist"; it has front, state, prompt');
  await error({ key: ['front'] }).toThrow('expected NAME=KEY');
  await error({ key: ['front=a', 'front=b'] }).toThrow('given twice');
  await error({ temperature: 1 }).toThrow('writes no tokens');
  await error({ execution: 'receding-horizon', 'execute-steps': 1000 }).toThrow('--execute-steps 1000');
  const regression = join(folder, 'regression.safetensors');
  await trainRun(regression, { steps: 1, system: 'openvla-oft' });
  await error({ checkpoint: regression, execution: 'real-time-chunking' }).toThrow(
    'openvla-oft does not act by a flow',
  );
  await error({ adapter: 'no such adapter' }).toThrow(/no WebGPU adapter/);
});

test.skipIf(!python)(`openpi-client drives 100 steps of the tabletop world${skipped}`, async () => {
  const out = join(folder, 'tabletop');
  await runCommand(train, { preset: 'nano', steps: 1, out });
  const world = await TabletopWorld.create();
  try {
    world.begin(makeScene(1, simplePlacing));
    await serving({ checkpoint: join(out, 'checkpoint.safetensors'), execution: 'receding-horizon' }, async (port) => {
      const program = fileURLToPath(new URL('./openpi-client.py', import.meta.url));
      const client = spawn(python!, [program, `${port}`], { stdio: ['pipe', 'pipe', 'inherit'] });
      const lines = createInterface({ input: client.stdout })[Symbol.asyncIterator]();
      for (let step = 0; step < 100; step++) {
        const { image, state, instruction } = world.observe();
        const pixels = Buffer.from(image.pixels).toString('base64');
        const asked = { pixels, shape: [image.height, image.width, 3], state: Array.from(state), instruction };
        client.stdin.write(`${JSON.stringify(asked)}\n`);
        const { value } = await lines.next();
        const action: number[] = JSON.parse(value);
        expect(action.length).toBe(4);
        world.step(Float32Array.from(action));
      }
      client.stdin.end();
      expect(await once(client, 'exit')).toEqual([0, null]);
    });
  } finally {
    world.delete();
  }
});
