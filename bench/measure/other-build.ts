/** Another build of the project in a process of its own, which measures the same rows in the same rounds. */
import { type ChildProcess, execFileSync, fork } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { InputError, quote } from '../../engine/index.ts';
import type { Entrant } from './entrant.ts';

/** Tells a command that it is the other build of a comparison. */
const SERVES = 'INSULA_BENCH_SERVES';
const root = fileURLToPath(new URL('../../', import.meta.url));

/** What the other build answers: first its adapter and rows, then the milliseconds of each row that it is asked for. */
type Answer = { readonly adapter: string; readonly names: readonly string[] } | { readonly milliseconds: number };

export class OtherBuild implements AsyncDisposable {
  private constructor(
    readonly description: string,
    private readonly child: ChildProcess,
    private readonly names: ReadonlySet<string>,
    private readonly remove: () => Promise<void>,
  ) {}

  /**
   * Starts the command `words` in the build: a folder with a checkout, or a commit of this repository, which is checked out beside it.
   *
   * @throws InputError if there is no such build, or if it does not open the same adapter
   */
  static async start(build: string, adapter: string, words: readonly string[]): Promise<OtherBuild> {
    const { folder, remove } = existsSync(build)
      ? { folder: resolve(build), remove: async () => {} }
      : await checkOut(build);
    const program = join(folder, 'cli', 'main.ts');
    let child: ChildProcess | null = null;
    try {
      if (!existsSync(program)) throw new InputError(`--compare ${build}: this folder holds no checkout of insula`);
      const tsx = createRequire(program).resolve('tsx');
      child = fork(program, [...words], {
        cwd: folder,
        execArgv: ['--import', pathToFileURL(tsx).href],
        env: { ...process.env, [SERVES]: '1', TSX_TSCONFIG_PATH: join(folder, 'tsconfig.json') },
        stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      });
      const own = await answer(child, build);
      if (!('names' in own)) throw new Error(`--compare ${build}: an answer out of turn`);
      if (own.adapter !== adapter)
        throw new InputError(`--compare ${build}: that build opens ${quote(own.adapter)}, this one ${quote(adapter)}`);
      return new OtherBuild(build, child, new Set(own.names), remove);
    } catch (error) {
      child?.kill();
      await remove();
      throw error;
    }
  }

  has(name: string): boolean {
    return this.names.has(name);
  }

  /** Milliseconds of one repeat of a row, which starts at its first sample. */
  async sample(name: string): Promise<number> {
    this.child.send({ name });
    const own = await answer(this.child, this.description);
    if (!('milliseconds' in own)) throw new Error(`--compare ${this.description}: an answer out of turn`);
    return own.milliseconds;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill();
    await this.remove();
  }
}

function answer(child: ChildProcess, build: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    let words = '';
    const collect = (text: Buffer) => {
      words = (words + text).slice(-2000);
    };
    const end = (code: number | null) => {
      settle();
      const last = words.trim().split('\n').at(-1) || 'it said nothing';
      const what = code === 0 ? 'is too old to be measured beside another' : `ended with status ${code}: ${last}`;
      reject(new InputError(`--compare ${build}: that build ${what}`));
    };
    const arrived = (message: unknown) => {
      settle();
      resolve(message as Answer);
    };
    const settle = () => {
      child.off('message', arrived).off('close', end);
      child.stderr?.off('data', collect);
    };
    child.on('message', arrived).on('close', end);
    child.stderr?.on('data', collect);
  });
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

export const servesRequests = () => process.env[SERVES] === '1';

/** Measures the rows that the process which started this one asks for, until it is gone. */
export function serveRequests(adapter: string, entrants: readonly Entrant[]): Promise<never> {
  const byName = new Map(entrants.map((entrant) => [entrant.name, entrant]));
  const started = new Set<string>();
  const send = (own: Answer) => void process.send!(own);
  return new Promise((_, reject) => {
    process.on('disconnect', () => process.exit(0));
    process.on('message', ({ name }: { name: string }) => {
      const entrant = byName.get(name)!;
      const measure = async () => {
        if (!started.has(name)) await entrant.start();
        started.add(name);
        send({ milliseconds: await entrant.sample() });
      };
      measure().catch(reject);
    });
    send({ adapter, names: [...byName.keys()] });
  });
}
