#!/usr/bin/env node
/** The program `insula`: finds the command, reads its options, runs it, prints its result. */
import { createRequire } from 'node:module';
import { InputError, printable } from '../engine/files/errors.ts';
import { nearest } from '../engine/files/nearest.ts';
import type { Command } from './command.ts';
import { refuseOptionsOfNpm } from './command-line.ts';
import { commands } from './commands.ts';
import { answerSignals, interrupted } from './interruption.ts';
import { optionLines, readOptions, terminalWidth, wrapped } from './options.ts';
import { expectWritable } from './outputs.ts';
import { Progress } from './progress.ts';
import { withSystemFiles } from './system-files.ts';

const interruption = answerSignals();

/** The commands of two words that begin with `name`. */
const familyOf = (name: string) => Object.keys(commands).filter((own) => own.startsWith(`${name} `));

const summaries = (names: readonly string[]) =>
  names.map((name) => `  ${name.padEnd(17)}${commands[name].summary}`).join('\n');

const overview = () =>
  [
    'insula COMMAND [options]',
    '',
    summaries(Object.keys(commands)),
    `  ${'setup'.padEnd(17)}installs what is missing: an adapter that opens, and in a clone of the repository the dependencies`,
    '',
    "'insula COMMAND --help' lists a command's options; every command takes --json, and --system-file FILE, which adds the systems",
    'that FILE, a TypeScript module like those of model/systems/, exports.',
  ].join('\n');

/** Help of a command, with the commands of its family. */
function helpOf(name: string, command: Command | undefined): string {
  const family = familyOf(name);
  const parts: string[] = [];
  if (command) {
    const words = command.names === undefined ? '' : ` [${command.names}]`;
    const width = terminalWidth();
    parts.push(
      `insula ${name}${words} [options]: ${commands[name].summary}`,
      optionLines(command.options, width).join('\n'),
      ...(command.notes ?? []).map((note) => wrapped(note, width).join('\n')),
    );
  }
  if (family.length > 0) parts.push(`insula ${name} COMMAND [options]`, summaries(family));
  return parts.join('\n\n');
}

const isCommand = (name: string) => Object.hasOwn(commands, name);

/** A command has one word or two. The first word of a family may itself be a command, which takes options only. */
function commandNamed(words: readonly string[]): { name: string; args: readonly string[] } {
  const two = words.slice(0, 2).join(' ');
  if (isCommand(two) && words.length > 1) return { name: two, args: words.slice(2) };
  const [name, ...args] = words;
  const family = familyOf(name);
  const own = isCommand(name) && (family.length === 0 || args[0] === undefined || args[0].startsWith('-'));
  if (own || (family.length > 0 && ['--help', '-h'].includes(args[0]))) return { name, args };
  if (family.length === 0) throw new InputError(`no command '${name}'; ${nearest(name, Object.keys(commands))}`);
  const [second = ''] = args;
  const seconds = family.map((own) => own.slice(name.length + 1));
  throw new InputError(`no command '${`${name} ${second}`.trim()}'; ${nearest(second, seconds, `${name} `)}`);
}

async function main(words: readonly string[]): Promise<number> {
  const [first, ...others] = words;
  if (first === undefined || first === '--help' || first === '-h' || first === 'help') {
    const isNamed = others.length > 0 && !others[0].startsWith('-');
    const about = isNamed ? commandNamed([...others, '--help']).name : null;
    process.stdout.write(`${about === null ? overview() : helpOf(about, await commands[about]?.load())}\n`);
    return first === undefined ? 2 : 0;
  }
  if (first === '--version') {
    process.stdout.write(`${createRequire(import.meta.url)('insula/package.json').version}\n`);
    return 0;
  }
  const { name, args } = commandNamed(await withSystemFiles(words));
  const command = await commands[name]?.load();
  if (!command) {
    process.stdout.write(`${helpOf(name, undefined)}\n`);
    return 0;
  }
  refuseOptionsOfNpm(words, Object.keys(command.options));
  const { values, json, help, names } = readOptions(name, command, args);
  if (help) {
    process.stdout.write(`${helpOf(name, command)}\n`);
    return 0;
  }
  await expectWritable(command.options, values);
  const progress = new Progress();
  process.once('exit', () => progress.end());
  if (command.interruptible) interruption.finish((line) => progress.note(line));
  const result = await command
    .run(values, { progress, signal: interruption.signal, words, names })
    .finally(() => progress.end());
  process.stdout.write(json ? `${JSON.stringify(result.json)}\n` : `${printable(result.lines.join('\n'))}\n`);
  return result.status ?? 0;
}

// A reader that ended early, such as `head`, or a terminal that was closed, is no error of the command: a run goes on to its
// end. The callback below is called all the same.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});

main(process.argv.slice(2)).then(
  // A pipe takes 64 KiB at a time: what its reader has not taken yet would be lost.
  (status) => process.stdout.write('', () => process.exit(status)),
  (error: Error) => {
    const expected = error instanceof InputError || process.env.INSULA_STACK === undefined;
    process.stderr.write(`insula: ${expected ? error.message.split('\n')[0] : error.stack}\n`);
    process.exit(error === interrupted ? 130 : 1);
  },
);
