/** Commands as child processes: started as users start them, signalled as terminals, service managers and schedulers do. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeSmallSet } from '../data/small-set.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const program = 'cli/main.ts';

/** The command of each way to start `insula`, in the repository's folder. */
export const commands: Record<Way, readonly string[]> = {
  npm: ['npm', 'run', 'insula', '--'],
  npx: ['npx', 'insula'],
  launcher: [process.execPath, 'cli/setup/launch.mjs', program],
  node: [process.execPath, '--import', 'tsx', program],
};
export type Way = 'npm' | 'npx' | 'launcher' | 'node';

/** The program that gives a command a terminal. */
export const hasScript = process.platform === 'linux' && spawnSync('script', ['--version']).status === 0;
export const withoutScript = hasScript ? '' : ' (skipped: no script of util-linux here)';

/** A process itself, its process group, or it and all its descendants at the same instant. */
export type Target = 'process' | 'group' | 'all';

export interface Ended {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly output: string;
  readonly errors: string;
}

export interface Running {
  readonly child: ChildProcess;
  /** What was written so far. */
  readonly errors: string;
  readonly output: string;
  /** Waits until a text was written to standard output or error. Throws if the process ends before. */
  written(text: string): Promise<void>;
  signal(name: NodeJS.Signals, target: Target): void;
  /** The end of the process and of all that write to its pipes. */
  readonly ended: Promise<Ended>;
}

/** Starts a command in a process group of its own. `environment` is added to this process's. */
export function start(
  command: readonly string[],
  { environment = {} }: { environment?: Record<string, string> } = {},
): Running {
  const child = spawn(command[0], command.slice(1), {
    cwd: root,
    detached: true,
    env: { ...process.env, npm_config_update_notifier: 'false', ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const [written, waiting] = [{ output: '', errors: '' }, new Set<() => void>()];
  const read = (stream: 'output' | 'errors') => (data: Buffer) => {
    written[stream] += data;
    for (const look of waiting) look();
  };
  child.stdout.on('data', read('output'));
  child.stderr.on('data', read('errors'));
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ status, signal, ...written }));
  });
  return {
    child,
    ended,
    get errors() {
      return written.errors;
    },
    get output() {
      return written.output;
    },
    written: (text) =>
      new Promise((resolve, reject) => {
        const look = () => {
          if (!(written.errors + written.output).includes(text)) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
        ended.then(() => reject(new Error(`ended before it wrote "${text}":\n${written.errors}`)), reject);
      }),
    signal(name, target) {
      const number = child.pid!;
      const targets = target === 'process' ? [number] : target === 'group' ? [-number] : withDescendants(number);
      for (const own of targets) send(own, name);
    },
  };
}

/** Starts `insula` with the given words. */
export const startInsula = (way: Way, words: readonly string[]): Running => start([...commands[way], ...words]);

/** Sends a signal to a process that may have ended just now. */
function send(number: number, name: NodeJS.Signals): void {
  try {
    process.kill(number, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** A process and all its descendants, whatever groups and sessions they are in. */
function withDescendants(number: number): number[] {
  const rows = execFileSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' })
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number));
  const found = [number];
  for (const own of found) found.push(...rows.filter(([, parent]) => parent === own).map(([id]) => id));
  return found;
}

export const pause = (milliseconds: number): Promise<void> => new Promise((done) => setTimeout(done, milliseconds));

/** Writes a data set of actions and states, and returns the options of a small run on it. */
export async function smallRun(folder: string): Promise<string[]> {
  const data = join(folder, 'data');
  await writeSmallSet(data);
  const sizes = ['--preset', 'nano', '--system', 'pi0', '--batch', '2'];
  return ['train', '--data', data, '--dataset', 'made', ...sizes];
}
