/** The first day on a new adapter: everything that is to be known of it, measured by the project's own commands within a limit of time. */
import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeFileSafely } from '../../engine/files/files.ts';
import { aligned } from '../measure/table.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const VITEST = join(root, 'node_modules', 'vitest', 'vitest.mjs');
/** The arguments of node that run a command of insula, with the loaders of this process. */
const insula = () => [...process.execArgv, process.argv[1]];

export interface Part {
  readonly name: string;
  /** Seconds after which it is asked to end; what it has written until then stays. */
  readonly seconds: number;
  /** The words of a command of insula, or the test runner with its own. */
  readonly words: readonly string[];
}

/** The parts in order, for a folder of results; `scale` stretches or shortens the limits of all. */
function partsOf(folder: string, scratch: string, scale: number): Part[] {
  const file = (name: string) => join(folder, name);
  const part = (name: string, seconds: number, ...words: string[]): Part => ({ name, words, seconds: seconds * scale });
  const bench = (name: string, seconds: number, ...words: string[]) =>
    part(
      name,
      1.3 * seconds,
      'bench',
      name,
      '--seconds',
      `${Math.round(seconds * scale)}`,
      '--out',
      file(`${name}.json`),
      ...words,
    );
  const tests = ['test/engine', 'test/kernels', 'test/model/golden.test.ts', `--outputFile.json=${file('tests.json')}`];
  return [
    part('devices', 10, 'devices'),
    part('verify', 90, 'verify', '--out', file('verify.json')),
    part(
      'tests',
      180,
      VITEST,
      'run',
      '--config',
      'test/vitest.config.ts',
      '--reporter=default',
      '--reporter=json',
      ...tests,
    ),
    bench('roofline', 30),
    bench('kernels', 50),
    bench('attention', 60, '--report', file('attention.html'), '--csv', file('attention.csv')),
    bench('step', 50),
    part('tune', 70, 'bench', '--tune', '--seconds', `${Math.round(50 * scale)}`, '--tuning', file('tuning.json')),
    part('train', 90, 'train', '--steps', '100', '--out', join(scratch, 'run')),
  ];
}

export interface Outcome {
  readonly name: string;
  readonly words: readonly string[];
  readonly seconds: number;
  /** 'passed', 'failed with status N', or 'stopped at its limit'. */
  readonly outcome: string;
}

/** Seconds of all parts at scale 1. */
const ALL_SECONDS = partsOf('', '', 1).reduce((sum, { seconds }) => sum + seconds, 0);

/**
 * Runs the parts one after the other in processes of their own, each with its output in `folder`. A part that fails does not keep
 * the next from running.
 */
export async function firstDay(
  { folder, scratch, minutes }: { readonly folder: string; readonly scratch: string; readonly minutes: number },
  onPart: (name: string, done: number, total: number) => void,
  parts = partsOf(folder, scratch, (60 * minutes) / ALL_SECONDS),
  program = insula(),
): Promise<Outcome[]> {
  await mkdir(folder, { recursive: true });
  const outcomes: Outcome[] = [];
  for (const part of parts) {
    onPart(part.name, outcomes.length, parts.length);
    outcomes.push(await runPart(part, folder, program));
    await writeFileSafely(join(folder, 'parts.json'), [`${JSON.stringify(outcomes, null, 1)}\n`]);
  }
  return outcomes;
}

/** How long a part that was asked to end may take to write what it has. */
const GRACE_SECONDS = 10;

async function runPart({ name, words, seconds }: Part, folder: string, program: readonly string[]): Promise<Outcome> {
  const start = performance.now();
  const child = spawn(process.execPath, words[0] === VITEST ? words : [...program, ...words], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout.pipe(createWriteStream(join(folder, `${name}.txt`)));
  child.stderr.pipe(createWriteStream(join(folder, `${name}.log`)));
  let stopped = false;
  const timers = [0, GRACE_SECONDS].map((grace) =>
    setTimeout(
      () => {
        stopped = true;
        child.kill(grace === 0 ? 'SIGTERM' : 'SIGKILL');
      },
      1000 * (seconds + grace),
    ),
  );
  const status = await new Promise<number | null>((resolve) => {
    child.on('close', resolve);
    child.on('error', () => resolve(null));
  });
  for (const timer of timers) clearTimeout(timer);
  const failed = status === 0 ? 'passed' : `failed with status ${status ?? 'none'}`;
  const outcome = stopped ? `stopped at its limit of ${Math.round(seconds)} s` : failed;
  return { name, words, seconds: (performance.now() - start) / 1000, outcome };
}

export function outcomeLines(outcomes: readonly Outcome[], folder: string): string[] {
  const rows = outcomes.map(({ name, seconds, outcome }) => [name, seconds.toFixed(0), outcome]);
  const all = outcomes.reduce((sum, { seconds }) => sum + seconds, 0);
  return [
    ...aligned([['part', 'seconds', 'outcome'], ...rows], 1),
    `${(all / 60).toFixed(1)} minutes in all; output and results: ${folder}`,
  ];
}
