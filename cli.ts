#!/usr/bin/env node
/** The `insula` command: arguments in, calls, one line out. */
import { parseArgs } from 'node:util';
import { act, evaluate } from './bench/act.ts';
import { benchAttention, benchAttentionOptions } from './bench/attention/command.ts';
import { Progress } from './bench/progress.ts';
import { actLines, deviceLines, evaluateLines, trainLines } from './bench/text.ts';
import { train } from './bench/train.ts';
import { InputError, listAdapters } from './engine/index.ts';

/** A list may be given several times. */
type OptionType = 'string' | 'list' | 'number' | 'boolean';
interface Option {
  readonly type: OptionType;
  readonly help: string;
}
// biome-ignore lint/suspicious/noExplicitAny: each command knows the types of its own options
type Values = any;
interface Command {
  readonly help: string;
  readonly options: Readonly<Record<string, Option>>;
  /** Returns what --json prints, and the lines for people. */
  run(values: Values, progress: Progress): Promise<{ json: unknown; lines: string[]; status?: number }>;
}

const text = (help: string): Option => ({ type: 'string', help });
const number = (help: string): Option => ({ type: 'number', help });
const flag = (help: string): Option => ({ type: 'boolean', help });
const deviceOptions = {
  adapter: text("part of an adapter's name, as 'insula devices' lists it"),
  floor: flag("open it with WebGPU's default limits and no features"),
  tuning: text("tuning file of 'insula bench attention --tune', in place of the one kept for this adapter"),
};
const dataOptions = {
  data: text('folder of a data set; without it the built-in tabletop world'),
  dataset: text('name of the set in that folder'),
};

const commands: Readonly<Record<string, Command>> = {
  devices: {
    help: 'lists the adapters that can be opened, and why others cannot',
    options: {},
    async run() {
      const adapters = await listAdapters();
      const opened = adapters.some((adapter) => adapter.opens);
      return { json: { adapters }, lines: deviceLines(adapters), status: opened ? 0 : 1 };
    },
  },
  train: {
    help: 'trains a system on the built-in world or on a data set, measures it and writes a report',
    options: {
      system: text('knowledge-insulation (default), joint-training, pi0, pi05 or pi0-fast'),
      preset: text('tiny (default) or small'),
      ...dataOptions,
      steps: number('training steps'),
      batch: number('examples to a step'),
      horizon: number('control steps of a chunk; one second by default'),
      seed: number('decides data, weights, noise and order; 0 by default'),
      out: text('folder for checkpoint and report'),
      resume: flag('goes on from the checkpoint in --out'),
      ...deviceOptions,
    },
    async run(values, progress) {
      const abort = new AbortController();
      const interrupt = () => {
        if (abort.signal.aborted) process.exit(130);
        abort.abort();
        progress.note('interrupted: finishing the step under way and saving; again to stop at once');
      };
      process.on('SIGINT', interrupt).on('SIGTERM', interrupt);
      const command = `insula ${process.argv.slice(2).join(' ')}`;
      const summary = await train({ ...values, command }, progress, abort.signal);
      return { json: summary, lines: trainLines(summary), status: summary.finished ? 0 : 130 };
    },
  },
  act: {
    help: 'one chunk of a trained policy beside the demonstrated one, and its latency by part',
    options: {
      checkpoint: text('file that insula train wrote'),
      ...dataOptions,
      episode: text('id or number of an episode; the first by default'),
      step: number('control step in it; 0 by default'),
      seed: number('chooses the noise; 0 by default'),
      ...deviceOptions,
    },
    async run(values, progress) {
      const result = await act(values, progress);
      return { json: result, lines: actLines(result) };
    },
  },
  evaluate: {
    help: 'closed loop in the built-in world, or open loop on held-out episodes of a data set',
    options: {
      checkpoint: text('file that insula train wrote'),
      ...dataOptions,
      episodes: number('closed-loop episodes; 20 by default'),
      seed: number('chooses scenes and noise'),
      ...deviceOptions,
    },
    async run(values, progress) {
      const result = await evaluate(values, progress);
      return { json: result, lines: evaluateLines(result) };
    },
  },
  'bench attention': {
    help: 'attention variants, masks and directions in the same rounds as matrix products and the arithmetic roof',
    options: { ...benchAttentionOptions, ...deviceOptions },
    run: benchAttention,
  },
};

function usage(name?: string): string {
  const command = name === undefined ? undefined : commands[name];
  if (!command) {
    const rows = Object.entries(commands).map(([own, { help }]) => `  ${own.padEnd(17)}${help}`);
    return [
      'insula COMMAND [options]',
      '',
      ...rows,
      '',
      "  'insula COMMAND --help' lists a command's options; every command takes --json",
    ].join('\n');
  }
  const rows = Object.entries(command.options).map(([own, { type, help }]) => {
    const shown =
      type === 'boolean' ? `--${own}` : `--${own} ${{ string: 'TEXT', list: 'TEXT ...', number: 'N' }[type]}`;
    return `  ${shown.padEnd(20)}${help}`;
  });
  return [
    `insula ${name}: ${command.help}`,
    '',
    ...rows,
    `  ${'--json'.padEnd(20)}prints one JSON object on standard output`,
  ].join('\n');
}

function readOptions(name: string, { options }: Command, args: string[]): Values {
  const kinds = Object.entries({ ...options, json: flag(''), help: flag('') });
  let values: Record<string, unknown>;
  try {
    const types = kinds.map(([own, { type }]) => [
      own,
      { type: type === 'boolean' ? 'boolean' : 'string', multiple: type === 'list' } as const,
    ]);
    values = parseArgs({ args, options: Object.fromEntries(types), strict: true }).values;
  } catch (error) {
    throw new InputError(
      `insula ${name}: ${(error as Error).message.split('. To specify')[0]}; see insula ${name} --help`,
    );
  }
  for (const [own, { type }] of kinds) {
    const value = values[own];
    if (type !== 'number' || value === undefined) continue;
    if (!/^\d+$/.test(String(value)) || !Number.isSafeInteger(Number(value)))
      throw new InputError(`insula ${name}: --${own} ${value}: expected a whole number from 0 to 2^53 - 1`);
    values[own] = Number(value);
  }
  return values;
}

async function main(words: string[]): Promise<number> {
  // A command is one word, or two.
  const [name, ...args] = commands[words.slice(0, 2).join(' ')]
    ? [words.slice(0, 2).join(' '), ...words.slice(2)]
    : words;
  if (name === undefined || name === '--help' || name === 'help') {
    process.stdout.write(`${usage(args.join(' '))}\n`);
    return name === undefined ? 2 : 0;
  }
  const command = commands[name];
  if (!command) throw new InputError(`insula: no command '${name}'; there are ${Object.keys(commands).join(', ')}`);
  const { json, help, ...values } = readOptions(name, command, args);
  if (help) {
    process.stdout.write(`${usage(name)}\n`);
    return 0;
  }
  const progress = new Progress();
  const result = await command.run(values, progress).finally(() => progress.end());
  process.stdout.write(json ? `${JSON.stringify(result.json)}\n` : `${result.lines.join('\n')}\n`);
  return result.status ?? 0;
}

main(process.argv.slice(2)).then(
  (status) => process.exit(status),
  (error: Error) => {
    const expected = error instanceof InputError || process.env.INSULA_STACK === undefined;
    process.stderr.write(`insula: ${expected ? error.message.split('\n')[0] : error.stack}\n`);
    process.exit(1);
  },
);
