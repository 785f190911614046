/** `insula bench first-day`: everything that is to be known of a new adapter, measured by the other commands within a limit of time. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { aligned } from '../bench/measure/table.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { InputError } from '../engine/index.ts';
import { command } from './command.ts';
import { decimal, outputFolder } from './options.ts';
import { takeNewFolder } from './outputs.ts';

export const benchFirstDay = command({
  options: {
    out: outputFolder('empty or new folder for the results; required'),
    minutes: decimal('time for everything; 12 by default', { from: 0.5 }),
  },
  notes: [
    'In order: insula devices, insula verify, bench roofline, kernels, attention and step, bench --tune, a short training, and in a clone the tests of engine and kernels, each in a process of its own with a part of the time. What a part prints is in NAME.txt and NAME.log, its results in NAME.json, and parts.json says how each ended. A part that fails does not stop the others; the status is 1 then.',
    'In a clone, the folder is fit for bench/results/: name it after the adapter.',
  ],
  async run({ out, minutes = 12 }, { progress }) {
    if (out === undefined) throw new InputError('bench first-day: name a folder for the results with --out FOLDER');
    const leave = await takeNewFolder('out', out, (line) => progress.note(line));
    const scratch = await mkdtemp(join(tmpdir(), 'insula-first-day-'));
    try {
      const outcomes = await firstDay({ folder: resolve(out), scratch, minutes }, (name, done, total) =>
        progress.note(`part ${done + 1} of ${total}: ${name}`),
      );
      const passed = outcomes.every(({ outcome }) => outcome === 'passed');
      return { json: outcomes, lines: outcomeLines(outcomes, out), status: passed ? 0 : 1 };
    } finally {
      await rm(scratch, { recursive: true, force: true });
      await leave();
    }
  },
});

const root = fileURLToPath(new URL('../', import.meta.url));
const VITEST = join(root, 'node_modules', 'vitest', 'vitest.mjs');
const TESTS = 'vitest run --config test/vitest.config.ts test/engine test/kernels test/model/golden';

interface Part {
  readonly name: string;
  /** Its share of the time, in seconds of 12 minutes. */
  readonly seconds: number;
  /** The words of a command of insula, or the test runner with its own. */
  readonly words: readonly string[];
}

/** The parts in order. The tests are last: what the others leave of their time is theirs. */
function partsOf(folder: string, scratch: string, minutes: number): Part[] {
  const file = (name: string) => join(folder, name);
  const part = (name: string, seconds: number, words: string, ...more: string[]): Part => ({
    ...{ name, seconds, words: [...words.split(' '), ...more] },
  });
  const limit = (seconds: number) => `--seconds ${Math.max(1, Math.round((seconds * minutes) / 12))}`;
  const bench = (name: string, seconds: number, ...more: string[]) =>
    part(name, 1.3 * seconds, `bench ${name} ${limit(seconds)} --out`, file(`${name}.json`), ...more);
  return [
    part('devices', 10, 'devices'),
    part('verify', 90, 'verify --out', file('verify.json')),
    bench('roofline', 30),
    bench('kernels', 50),
    bench('attention', 60, '--report', file('attention.html'), '--csv', file('attention.csv')),
    bench('step', 50),
    part('tune', 70, `bench --tune ${limit(50)} --tuning`, file('tuning.json')),
    part('train', 120, 'train --steps 100 --out', join(scratch, 'run')),
    ...(existsSync(VITEST) ? [part('tests', 180, TESTS)] : []), // a package has none
  ];
}

interface Outcome {
  readonly name: string;
  readonly words: string;
  readonly seconds: number;
  /** 'passed', 'failed with status N', or 'stopped at its limit'. */
  readonly outcome: string;
}

/**
 * Runs the parts one after the other in processes of their own, each with its output in `folder`. A part that fails does not keep
 * the next from running; the time that one leaves is shared by the others.
 */
export async function firstDay(
  { folder, scratch, minutes }: { readonly folder: string; readonly scratch: string; readonly minutes: number },
  onPart: (name: string, done: number, total: number) => void,
  parts = partsOf(folder, scratch, minutes),
  // By default insula, with the loaders of this process.
  program = [...process.execArgv, process.argv[1]],
): Promise<Outcome[]> {
  const begin = performance.now();
  await mkdir(folder, { recursive: true });
  // Results that are shown around tell nothing of the folders of this machine.
  const places = [
    [scratch, ''],
    [folder, '.'],
    [root, ''],
    [homedir(), '~'],
  ];
  const withoutPlaces = (text: string) => places.reduce((own, [place, name]) => own.replaceAll(place, name), text);
  const write = (name: string, text: string) => writeFileSafely(join(folder, name), [withoutPlaces(text)]);
  const outcomes: Outcome[] = [];
  for (const [i, { name, words, seconds }] of parts.entries()) {
    onPart(name, i, parts.length);
    const left = 60 * minutes - (performance.now() - begin) / 1000;
    const shares = parts.slice(i).reduce((sum, part) => sum + part.seconds, 0);
    const limit = (left * seconds) / shares;
    const { output, errors, ...own } = await run(
      words[0] === 'vitest' ? [VITEST, ...words.slice(1)] : [...program, ...words],
      limit,
    );
    if (output !== '') await write(`${name}.txt`, output);
    if (errors !== '') await write(`${name}.log`, errors);
    outcomes.push({ name, words: withoutPlaces(words.join(' ')), ...own });
    await write('parts.json', `${JSON.stringify(outcomes, null, 1)}\n`);
  }
  return outcomes;
}

/** How long a part that was asked to end may take to write what it has. */
const GRACE_SECONDS = 10;

async function run(words: readonly string[], limit: number) {
  const start = performance.now();
  const child = spawn(process.execPath, words, {
    cwd: root,
    env: { ...process.env, NO_COLOR: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [output, errors, stopped] = ['', '', false];
  child.stdout.on('data', (text) => (output += text));
  child.stderr.on('data', (text) => (errors += text));
  const stop = (signal: NodeJS.Signals) => () => {
    stopped = true;
    child.kill(signal);
  };
  const timers = [
    setTimeout(stop('SIGTERM'), 1000 * limit),
    setTimeout(stop('SIGKILL'), 1000 * (limit + GRACE_SECONDS)),
  ];
  const status = await new Promise<number | null>((resolve) => child.on('close', resolve));
  timers.forEach(clearTimeout);
  const ended = status === 0 ? 'passed' : `failed with status ${status ?? 'none'}`;
  const outcome = stopped ? `stopped at its limit of ${Math.round(limit)} s` : ended;
  return { seconds: (performance.now() - start) / 1000, outcome, output, errors };
}

export function outcomeLines(outcomes: readonly Outcome[], folder: string): string[] {
  const rows = outcomes.map(({ name, seconds, outcome }) => [name, seconds.toFixed(0), outcome]);
  const all = outcomes.reduce((sum, { seconds }) => sum + seconds, 0);
  return [
    ...aligned([['part', 'seconds', 'outcome'], ...rows], 1),
    `${(all / 60).toFixed(1)} minutes in all; output and results: ${folder}`,
  ];
}
