#!/usr/bin/env node
import { InputError, listAdapters } from '../engine/index.ts';
import { presets } from '../model/training/presets.ts';
/** The `insula` command: arguments in, calls, one line out. */
import { act, evaluate } from './act.ts';
import { benchAttention, benchAttentionOptions } from './bench-attention.ts';
import { benchData, benchDataOptions } from './bench-data.ts';
import { benchKernels, benchKernelsOptions } from './bench-kernels.ts';
import { benchRoofline, benchRooflineOptions } from './bench-roofline.ts';
import { benchStep, benchStepOptions } from './bench-step.ts';
import { benchTune, benchTuneOptions } from './bench-tune.ts';
import { commandLine, refuseOptionsOfNpm } from './command-line.ts';
import { convert, convertOptions } from './convert.ts';
import { inspectOptions, inspectStep } from './inspect.ts';
import { flag, number, type Option, readOptions, text } from './options.ts';
import { Progress } from './progress.ts';
import { actLines, deviceLines, evaluateLines, trainLines } from './text.ts';
import * as tokenize from './tokenize.ts';
import * as tokenizeOptions from './tokenize-options.ts';
import { train } from './train.ts';

// biome-ignore lint/suspicious/noExplicitAny: each command knows the types of its own options
type Values = any;
interface Command {
  readonly help: string;
  readonly options: Readonly<Record<string, Option>>;
  /** Words behind the command are taken, as `names`. */
  readonly names?: true;
  /** Ends by itself, with what it has, when the signal is aborted; others are ended. */
  readonly interruptible?: boolean;
  /** Returns what --json prints, and the lines for people. */
  run(
    values: Values,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<{ json: unknown; lines: string[]; status?: number }>;
}

const deviceOptions = {
  adapter: text("part of an adapter's name, as 'insula devices' lists it; the system's first by default"),
  floor: flag("open it with WebGPU's default limits and no features"),
  tuning: text("tuning file of 'insula bench --tune', in place of the one kept for this adapter"),
};
const dataOptions = {
  data: text('folder or file of a data set (LeRobot, RLDS, HDF5, ...); without it the built-in tabletop world'),
  dataset: text('which of several in that folder'),
  cameras: text('which of its cameras, with commas between, or none; all by default'),
  rate: text('control steps a second, of files that do not say'),
};
const mixtureOptions = {
  robot: text(
    'slot map of the robot, or of each of several data sets that --data or --dataset name with commas between',
  ),
};
const interrupted = new InputError('interrupted before the first step: there is nothing to save');

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
      preset: text('tiny (default; minutes on two processor cores) or small (a quarter of an hour)'),
      ...dataOptions,
      ...mixtureOptions,
      weights: text('how often each of several data sets comes: 2,1; n^0.43 of its n examples by default'),
      steps: number(`training steps; ${ofPresets('steps')} by default`),
      batch: number(`examples to a step; ${ofPresets('batch')} by default`, 1),
      accumulate: number('batches to a step, whose gradients are averaged; 1 by default', 1),
      recompute: flag('backward runs every layer again: less memory, more time (gradient checkpointing)'),
      moments: text("storage of AdamW's moments: f32 (default), bf16 or 8bit, packed with stochastic rounding"),
      cotrain: text('part of every batch that is questions about the built-in world (0.5: half); 0 by default'),
      questions: text('what they ask about instead: images with names, PATH.json and PATH.pack'),
      paraphrases: text('JSON file of other wordings: { "an instruction of the data": ["another wording", ...] }'),
      augment: flag('crops, rotates and recolours the training images, other each time'),
      tokenizer: text(
        'FAST tokenizer in place of one fitted to the data: file of insula tokenize fit, or published folder',
      ),
      statistics: text("openpi's norm_stats.json to normalise by, in place of the data's own statistics"),
      horizon: number('control steps of a chunk; as many as one second has by default', 1),
      seed: number('decides data, weights, noise and order; 0 by default'),
      out: text('folder for checkpoint and report; a new one in .insula by default'),
      resume: flag('goes on with the run in --out; without --out with the last one'),
      overwrite: flag('takes the place of the run in --out; without --out of the last one'),
      ...deviceOptions,
    },
    interruptible: true,
    async run(values, progress, signal) {
      const words = process.argv.slice(2);
      const summary = await train({ ...values, command: commandLine(words) }, progress, signal);
      const again = words.filter((word) => word !== '--resume' && word !== '--overwrite');
      const lines = trainLines(summary, commandLine([...again, '--resume']));
      return { json: summary, lines, status: summary.finished ? 0 : 130 };
    },
  },
  act: {
    help: 'one chunk of a trained policy beside the demonstrated one, and its latency by part',
    options: {
      checkpoint: text('file that insula train wrote; required'),
      ...dataOptions,
      ...mixtureOptions,
      episode: text('id or number of an episode; the first by default'),
      step: number('control step in it; 0 by default'),
      ask: text("a question about the picture, such as 'caption en', of policies trained with --cotrain"),
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
      checkpoint: text('file that insula train wrote; required'),
      ...dataOptions,
      ...mixtureOptions,
      episodes: number('closed-loop episodes; 20 by default', 1),
      seed: number("chooses scenes and noise; by default the scenes of the training's seed, and noise 0"),
      record: text('folder for what the policy did, or for its predictions of held-out episodes, as LeRobot 3.0'),
      ...deviceOptions,
    },
    async run(values, progress) {
      const result = await evaluate(values, progress);
      return { json: result, lines: evaluateLines(result) };
    },
  },
  convert: {
    help: 'writes a data set, or demonstrations of the built-in world, as LeRobot 3.0',
    options: { ...dataOptions, ...convertOptions },
    run: convert,
  },
  inspect: {
    help: 'what a training step does, operation by operation, and when',
    options: { ...inspectOptions, ...deviceOptions },
    run: inspectStep,
  },
  'bench step': {
    help: 'training steps of several systems in the same rounds: rates, memory, time by kernel',
    options: { ...benchStepOptions, ...deviceOptions },
    run: benchStep,
  },
  'tokenize report': {
    help: 'actions as tokens: length, error and use of every kind of tokenizer on held-out chunks',
    options: tokenizeOptions.reportOptions,
    run: tokenize.report,
  },
  'tokenize fit': {
    help: 'fits a tokenizer to the actions of a data set and writes it to a file',
    options: tokenizeOptions.fitOptions,
    run: tokenize.fit,
  },
  'tokenize encode': {
    help: 'ids of chunks of an episode, or of a JSON file',
    options: tokenizeOptions.encodeOptions,
    run: tokenize.encode,
  },
  'tokenize decode': {
    help: 'chunks of ids, in the units of the data',
    options: tokenizeOptions.decodeOptions,
    run: tokenize.decode,
  },
  'tokenize speed': {
    help: 'coefficients a second of FAST, and of @huggingface/tokenizers where it does the same work',
    options: tokenizeOptions.speedOptions,
    run: tokenize.speed,
  },
  bench: {
    help: 'with --tune the tuning file of this adapter, the fastest variants of its kernels, which all commands then use',
    options: { ...benchTuneOptions, ...deviceOptions },
    run: benchTune,
  },
  'bench attention': {
    help: 'attention variants, masks and directions in the same rounds as matrix products and the arithmetic roof',
    options: { ...benchAttentionOptions, ...deviceOptions },
    run: benchAttention,
  },
  'bench data': {
    help: 'examples a second that a data set gives, numbers alone and with images; without --data of one written for it',
    options: { ...dataOptions, ...benchDataOptions, ...deviceOptions },
    run: benchData,
  },
  'bench kernels': {
    help: "every op of a model's step, forward and backward: time, rates, percent of the roof, what binds; behind it names of ops",
    options: { ...benchKernelsOptions, ...deviceOptions },
    names: true,
    run: benchKernels,
  },
  'bench roofline': {
    help: "the adapter's arithmetic rate, bandwidth, launch and round-trip cost, measured once and kept",
    options: { ...benchRooflineOptions, adapter: deviceOptions.adapter, floor: deviceOptions.floor },
    run: benchRoofline,
  },
};

/** A number of the presets, for help. */
function ofPresets(what: 'steps' | 'batch'): string {
  const numbers = presets.map((preset) => preset[what]);
  const same = new Set(numbers).size === 1;
  return same ? String(numbers[0]) : presets.map(({ name }, i) => `${numbers[i]} (${name})`).join(', ');
}

function usage(name = ''): string {
  const command = commands[name];
  if (!command) {
    const family = Object.entries(commands).filter(([own]) => own.startsWith(`${name} `));
    const rows = (family.length > 0 ? family : Object.entries(commands)).map(
      ([own, { help }]) => `  ${own.padEnd(17)}${help}`,
    );
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
  const family = Object.keys(commands).filter((own) => own.startsWith(`${name} `));
  if (!command && family.length > 0 && args[0] === '--help') {
    process.stdout.write(`${usage(name)}\n`);
    return 0;
  }
  // A family may have a command of its own, which takes options only.
  if (!command || (family.length > 0 && args[0] !== undefined && !args[0].startsWith('-'))) {
    const known = family.length > 0 ? family : Object.keys(commands);
    throw new InputError(
      `no command '${[name, ...args].slice(0, family.length > 0 ? 2 : 1).join(' ')}'; there are ${known.join(', ')}`,
    );
  }
  refuseOptionsOfNpm(words, Object.keys(command.options));
  const { json, help, ...values } = readOptions(name, command, args);
  if (help) {
    process.stdout.write(`${usage(name)}\n`);
    return 0;
  }
  const progress = new Progress();
  const abort = new AbortController();
  const interrupt = () => {
    progress.end();
    if (!command.interruptible || abort.signal.aborted) process.exit(130);
    abort.abort(interrupted);
    progress.note('interrupted: finishing the step under way and saving; again to stop at once');
  };
  process.on('SIGINT', interrupt).on('SIGTERM', interrupt);
  const result = await command.run(values, progress, abort.signal).finally(() => progress.end());
  process.stdout.write(json ? `${JSON.stringify(result.json)}\n` : `${result.lines.join('\n')}\n`);
  return result.status ?? 0;
}

main(process.argv.slice(2)).then(
  (status) => process.exit(status),
  (error: Error) => {
    const expected = error instanceof InputError || process.env.INSULA_STACK === undefined;
    process.stderr.write(`insula: ${expected ? error.message.split('\n')[0] : error.stack}\n`);
    process.exit(error === interrupted ? 130 : 1);
  },
);
