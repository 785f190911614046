/**
 * Two builds of the project beside each other, for `--compare`. A process of the same program is faster or slower than another by a tenth
 * and more, all its life: code and memory lie elsewhere. So both builds are started anew for each block of rounds, in which their rows
 * take turns, and a block counts once.
 */
import { type ChildProcess, execFileSync, fork } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Budget, timeLeft } from '../bench/measure/rounds.ts';
import type { Comparison } from '../bench/measure/run.ts';
import { type Ready, type Sampled, SERVES } from '../bench/measure/serve.ts';
import { changeOf, medianRatio, spread } from '../bench/measure/statistics.ts';
import { groupBy } from '../bench/measure/table.ts';
import { InputError, quote } from '../engine/index.ts';

const root = fileURLToPath(new URL('../', import.meta.url));
const LEAST_ROUNDS = 2;

/** Milliseconds of a row in one block: medians of its rounds, and the median of the ratios within a round. */
interface BlockRow {
  readonly name: string;
  readonly now: number;
  readonly before: number;
  readonly ratio: number;
}

/**
 * Compares this build with another, a folder with a checkout or a commit of this repository, by the rows of the command `words`.
 *
 * @throws InputError if there is no such build, it opens another adapter or has none of the rows, or the budget cannot hold one block
 */
export async function compareBuilds(
  build: string,
  words: readonly string[],
  { seconds, begin = performance.now(), signal, onProgress }: Budget,
): Promise<Comparison> {
  const { folder, remove } = existsSync(build)
    ? { folder: resolve(build), remove: async () => {} }
    : await checkOut(build);
  const elapsed = () => (performance.now() - begin) / 1000;
  const isOver = () => signal?.aborted === true || elapsed() > 1.1 * seconds;
  const blocks: BlockRow[][] = [];
  let alone: Comparison['alone'] = [0, 0];
  try {
    if (!existsSync(join(folder, 'cli', 'main.ts')))
      throw new InputError(`--compare ${build}: this folder holds no checkout of insula`);
    do {
      const own = new BuildProcess('this build', root, words);
      const other = new BuildProcess(`--compare ${build}: that build`, folder, words);
      try {
        const [here, there] = await Promise.all([own.ready(), other.ready()]);
        if (here.adapter !== there.adapter)
          throw new InputError(
            `--compare ${build}: that build opens ${quote(there.adapter)}, this one ${quote(here.adapter)}`,
          );
        const names = here.names.filter((name) => there.names.includes(name));
        if (names.length === 0)
          throw new InputError(
            `--compare ${build}: that build has none of these rows, such as ${quote(here.names[0])}`,
          );
        alone = [here.names.length - names.length, there.names.length - names.length];
        const block = await measureBlock(own, other, names, blocks.length, isOver);
        if (block) blocks.push(block);
        else if (blocks.length === 0)
          throw new InputError(
            signal?.aborted
              ? 'interrupted before one block of rounds was measured'
              : `--seconds ${seconds}: starting both builds with ${names.length} rows and ${LEAST_ROUNDS} rounds takes longer; give more, or measure fewer rows`,
          );
      } finally {
        own.end();
        other.end();
      }
      onProgress?.(`block ${blocks.length}, seconds:`, Math.min(elapsed(), seconds), seconds, [
        timeLeft(seconds - elapsed()),
        '',
      ]);
    } while (!isOver() && elapsed() * (1 + 1 / blocks.length) < seconds);
  } finally {
    await remove();
  }
  const rows = [...groupBy(blocks.flat(), ({ name }) => name)].map(([name, own]) => {
    const median = (what: 'now' | 'before') => spread(own.map((block) => block[what])).median;
    const ratio = medianRatio(own.map((block) => block.ratio));
    return { name, before: median('before'), now: median('now'), ratio, change: changeOf(ratio) };
  });
  const what = `compared with ${build} in ${blocks.length} blocks, each of new processes of both builds whose rows take turns`;
  return { what, rows, alone, drifts: null };
}

/** Rounds for as long as it took to start both builds; null if the time was over before the first ones. */
async function measureBlock(
  own: BuildProcess,
  other: BuildProcess,
  names: readonly string[],
  number: number,
  isOver: () => boolean,
): Promise<BlockRow[] | null> {
  const begin = performance.now();
  // A row starts, which compiles it, when it is asked for the first time.
  for (const name of names) {
    if (isOver()) return null;
    await own.sample(name);
    await other.sample(name);
  }
  const started = performance.now() - begin;
  const rows = names.map((name) => ({ name, now: [] as number[], before: [] as number[] }));
  for (let round = 0; round < LEAST_ROUNDS || performance.now() - begin < 2 * started; round++) {
    for (const [i, row] of rows.entries()) {
      if (isOver()) return null;
      const now = async () => void row.now.push(await own.sample(row.name));
      const before = async () => void row.before.push(await other.sample(row.name));
      // The build that goes first changes from row to row, and for each row from round to round and from block to block.
      for (const turn of (i + round + number) % 2 === 0 ? [now, before] : [before, now]) await turn();
    }
  }
  return rows.map(({ name, now, before }) => {
    const ratio = spread(now.map((time, round) => time / before[round])).median;
    return { name, now: spread(now).median, before: spread(before).median, ratio };
  });
}

class BuildProcess {
  private readonly child: ChildProcess;
  /** Rejects when the process ends, whenever that is. */
  private readonly ended: Promise<never>;

  constructor(what: string, folder: string, words: readonly string[]) {
    this.child = fork(join(folder, 'cli', 'main.ts'), [...words], {
      cwd: folder,
      execArgv: ['--import', import.meta.resolve('tsx')],
      env: { ...process.env, [SERVES]: '1', TSX_TSCONFIG_PATH: join(folder, 'tsconfig.json') },
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    let errors = '';
    this.child.stderr!.on('data', (text) => (errors = (errors + text).slice(-2000)));
    this.ended = new Promise((_, reject) => {
      this.child.on('error', () => {}); // a question to a process that has ended; its end is reported
      this.child.on('close', (code, signal) => {
        const last = errors.trim().split('\n').at(-1) || 'it said nothing';
        const failed = `ended ${signal ? `by ${signal}` : `with status ${code}`}: ${last}`;
        reject(new InputError(`${what} ${code === 0 ? 'is too old to be compared' : failed}`));
      });
    });
    this.ended.catch(() => {}); // it also ends when nobody waits
  }

  /** The adapter and rows of the build, which is its first answer. */
  ready(): Promise<Ready> {
    return this.answer<Ready>();
  }

  /** Milliseconds of one repeat of a row. */
  async sample(name: string): Promise<number> {
    const next = this.answer<Sampled>();
    this.child.send({ name });
    return (await next).milliseconds;
  }

  end(): void {
    this.child.kill();
  }

  private answer<Answer extends Ready | Sampled>(): Promise<Answer> {
    const next = new Promise<Answer>((resolve) => this.child.once('message', (own) => resolve(own as Answer)));
    return Promise.race([next, this.ended]);
  }
}

/** A commit of this repository in a temporary folder, with the dependencies of this tree. */
async function checkOut(commit: string): Promise<{ folder: string; remove: () => Promise<void> }> {
  const git = (...args: string[]) => execFileSync('git', args, { cwd: root, stdio: ['ignore', 'pipe', 'ignore'] });
  const folder = await mkdtemp(join(tmpdir(), 'insula-build-'));
  try {
    git('worktree', 'add', '--detach', folder, `${commit}^{commit}`);
  } catch {
    await rm(folder, { recursive: true });
    throw new InputError(
      `--compare ${commit}: no file, no folder and no commit of that name; name a run of --out, a folder with another checkout, or a commit`,
    );
  }
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'));
  const remove = async () => {
    await rm(join(folder, 'node_modules'), { force: true });
    git('worktree', 'remove', '--force', folder);
  };
  return { folder, remove };
}
