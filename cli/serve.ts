/** `insula serve`: a trained policy behind openpi's websocket protocol. */
import { InputError, quote } from '../engine/index.ts';
import { type ExecutionKind, executionKinds } from '../model/policy/execution.ts';
import { type Message, NumberArray } from '../model/policy/serving/messages.ts';
import {
  type ExpectedObservation,
  namesOf,
  type ObservationKeys,
  readObservation,
} from '../model/policy/serving/observations.ts';
import { LivePage } from '../model/policy/serving/page-node.ts';
import { type Answering, servePolicy } from '../model/policy/serving/server-node.ts';
import type { CheckpointSettings } from '../model/training/checkpoint.ts';
import { command } from './command.ts';
import { deviceOptions } from './device.ts';
import { choice, decimal, flag, list, number, seedNumber, text } from './options.ts';
import { executionOf, expectExecution, expectNamed, expectTokensToDraw, openPolicy } from './policy.ts';
import { PolicyThread } from './policy-thread.ts';
import type { Progress } from './progress.ts';
import type { ServeWork } from './serve-worker.ts';

/** openpi's port. */
const PORT = 8000;
const inSteps = ['receding-horizon', 'real-time-chunking'];

export const serve = command({
  options: {
    checkpoint: text('file that insula train wrote; required'),
    host: text('address to listen at; 127.0.0.1 by default, which only programs of this machine reach'),
    port: number(`port to listen at; ${PORT} by default, 0 for any that is free`, 0, { to: 65_535 }),
    clients: number('robots that are connected at once; 64 by default', 1),
    robot: text('name of the robot that asks, for a policy of several'),
    key: list(
      'NAME=KEY: the key of an observation for a camera, state or prompt, where it is not found by its name; state=KEY,KEY joins several; may be given several times',
    ),
    execution: choice(
      'how the server carries out chunks, one action an answer; without it an answer is a whole chunk, as from openpi, and the client carries it out',
      executionKinds,
    ),
    'execute-steps': number(
      'control steps from one chunk to the next; by default 5, or as many as a shorter chunk has',
      1,
      {
        needs: { execution: inSteps },
      },
    ),
    delay: number(
      'control steps that pass while a chunk is computed, in which answers come from the old one; by default 1 for real-time chunking, otherwise 0',
      0,
      { needs: { execution: inSteps } },
    ),
    steps: number('Euler steps of a flow, DDIM steps of a diffusion; 10 by default', 1),
    seed: seedNumber('chooses the noise, and the tokens with --temperature; 0 by default'),
    temperature: decimal('draws tokens by the softmax of their logits divided by this; the likeliest by default', {
      above: 0,
    }),
    page: flag('also serves a page that shows what the policy sees, says and does'),
    ...deviceOptions,
  },
  interruptible: true,
  notes: [
    "The protocol is that of openpi's serve_policy.py: its clients (WebsocketClientPolicy of the package openpi-client) connect as they are. An observation has a picture for each camera, a state in the robot's units and a prompt; names such as observation/image, images/top or observation.state are found by their last part, and a camera that is None is masked; a prompt that is None is no instruction. A connection is an episode; reset: True in an observation begins the next one. Nothing is encrypted, and nobody is asked who they are: give --host only in a network that you trust.",
  ],
  async run(values, { progress, signal }) {
    const path = await expectNamed(values.checkpoint);
    const {
      host = '127.0.0.1',
      port = PORT,
      clients,
      adapter,
      floor,
      tuning,
      execution,
      seed,
      temperature,
      steps,
    } = values;
    const checkpoint = await openPolicy(path);
    await checkpoint.close();
    const { settings } = checkpoint;
    if (temperature !== undefined) expectTokensToDraw(settings);
    if (execution) expectExecution(values, settings);
    const robot = robotOf(settings, values.robot);
    const keys = keysOf(values.key ?? [], robot.expected);
    const options = { ...executionOf(values), seed, temperature, steps };
    const work: ServeWork = {
      checkpoint: path,
      device: { adapter, floor, tuning },
      dimension: robot.dimension,
      options,
    };
    const thread = new PolicyThread(work, progress);
    const description = await thread.ready;
    const title = `${settings.run.system}, preset ${settings.run.preset.name}`;
    const page = values.page ? await LivePage.open(title) : null;
    const metadata = metadataOf(settings, robot, execution);
    const answering = answeringBy(thread, { metadata, expected: robot.expected, keys, page, progress });
    try {
      const server = await servePolicy(answering, {
        ...{ host, port, clients, page: page?.answer },
        onNote: (line) => progress.note(line),
      });
      const address = `${host.includes(':') ? `[${host}]` : host}:${server.port}`;
      progress.note(
        `${title}, on ${description}: ws://${address}${page ? `, page http://${address}/` : ''} (Ctrl-C ends)`,
      );
      await Promise.race([
        thread.failed,
        new Promise((end) => signal.addEventListener('abort', end, { once: true })),
      ]).finally(() => server.close());
      const served = { answers: thread.answers, port: server.port };
      return { json: served, lines: [`${thread.answers} answers`] };
    } finally {
      await thread.end();
    }
  },
});

interface ServedRobot {
  readonly expected: ExpectedObservation;
  readonly dimension: number;
}

/** @throws InputError if the policy is of several robots, and none or another one is named */
function robotOf({ encoding: { robots = {}, statistics, cameras } }: CheckpointSettings, name?: string): ServedRobot {
  const names = Object.keys(robots);
  const named = name ?? (names.length === 1 ? names[0] : undefined);
  if (statistics ? named !== undefined : named === undefined || !robots[named])
    throw new InputError(
      statistics
        ? `--robot ${named}: this policy was trained on one robot; leave it out`
        : `--robot${named === undefined ? '' : ` ${named}`}: this policy was trained on ${names.join(', ')}; name one`,
    );
  const own = statistics ?? robots[named!].statistics;
  return {
    expected: { cameras, state: own.states?.mean.length ?? null, robot: statistics ? undefined : named },
    dimension: own.actions.mean.length,
  };
}

/** @throws InputError if a word is no NAME=KEY, or the policy has no input of that name */
function keysOf(words: readonly string[], { cameras }: ExpectedObservation): ObservationKeys {
  const found: Record<string, string> = {};
  for (const word of words) {
    const at = word.indexOf('=');
    const [name, key] = [word.slice(0, at), word.slice(at + 1)];
    if (at < 1 || key === '') throw new InputError(`--key ${word}: expected NAME=KEY`);
    if (![...cameras, 'state', 'prompt'].includes(name))
      throw new InputError(
        `--key ${word}: this policy has no ${quote(name)}; it has ${[...cameras, 'state', 'prompt'].join(', ')}`,
      );
    if (Object.hasOwn(found, name)) throw new InputError(`--key ${word}: ${quote(name)} is given twice`);
    found[name] = key;
  }
  const { state, prompt, ...others } = found;
  return { cameras: others, state: state?.split(','), prompt };
}

function metadataOf(
  { run, data, configuration: { horizon }, encoding: { cameras } }: CheckpointSettings,
  { dimension, expected: { state, robot } }: ServedRobot,
  execution: ExecutionKind | undefined,
): Message {
  return {
    ...{ server: 'insula', system: run.system, preset: run.preset.name, cameras, rate: data.rate },
    ...{ action_dim: dimension, action_horizon: execution ? 1 : horizon, state_dim: state, robot: robot ?? null },
    execution: execution ?? null,
  };
}

interface Serving {
  readonly metadata: Message;
  readonly expected: ExpectedObservation;
  readonly keys: ObservationKeys;
  readonly page: LivePage | null;
  readonly progress: Progress;
}

function answeringBy(thread: PolicyThread, { metadata, expected, keys, page, progress }: Serving): Answering {
  const unusedOf = new Map<number, string>();
  return {
    metadata,
    async answer(session, message) {
      const { observation, reset, unused } = readObservation(message, expected, keys);
      const unusedNames = namesOf(unused);
      if (unusedNames !== (unusedOf.get(session) ?? ''))
        progress.note(`session ${session}: not used: ${unusedNames || 'nothing'}`);
      unusedOf.set(session, unusedNames);
      const answer = await thread.answer(session, observation, reset);
      const { actions, dimension, said, milliseconds } = answer;
      const isThere = unusedOf.has(session); // a robot may leave meanwhile
      if (isThere) page?.show(session, observation, answer);
      return {
        actions: new NumberArray([actions.length / dimension, dimension], actions),
        ...(said && { said: said.words }),
        policy_timing: { infer_ms: milliseconds },
      };
    },
    forget(session) {
      unusedOf.delete(session);
      thread.forget(session);
      page?.forget(session);
    },
  };
}
