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

/** An answer of the other build: first its adapter and rows, then the milliseconds of each row that it is asked for. */
type Answer = { readonly adapter: string; readonly names: readonly string[] } | { readonly milliseconds: number };

export class OtherBuild implements AsyncDisposable {
  private constructor(
    readonly build: string,
    private readonly process: BuildProcess,
    /** The rows that it measures. */
    public names: ReadonlySet<string>,
    private readonly remove: () => Promise<void>,
  ) {}

  /**
   * Starts the command `words` in the build: a folder with a checkout, or a commit of this repository, which is checked out into a
   * temporary folder.
   *
   * @throws InputError if there is no such build, or if it does not open the same adapter
   */
  static async start(build: string, adapter: string, words: readonly string[]): Promise<OtherBuild> {
    const { folder, remove } = existsSync(build)
      ? { folder: resolve(build), remove: async () => {} }
      : await checkOut(build);
    let process: BuildProcess | null = null;
    try {
      if (!existsSync(join(folder, 'cli', 'main.ts')))
        throw new InputError(`--compare ${build}: this folder holds no checkout of insula`);
      process = new BuildProcess(build, folder, words);
      const own = await process.answer();
      if (!('names' in own)) throw new Error(`--compare ${build}: an answer out of turn`);
      if (own.adapter !== adapter)
        throw new InputError(`--compare ${build}: that build opens ${quote(own.adapter)}, this one ${quote(adapter)}`);
      return new OtherBuild(build, process, new Set(own.names), remove);
    } catch (error) {
      process?.end();
      await remove();
      throw error;
    }
  }

  has(name: string): boolean {
    return this.names.has(name);
  }

  /** Leaves the other rows alone. */
  restrictTo(names: readonly string[]): void {
    this.names = new Set(names.filter((name) => this.names.has(name)));
  }

  /** Milliseconds of one repeat of a row, which starts at its first sample. */
  async sample(name: string): Promise<number> {
    const own = await this.process.ask({ name });
    if (!('milliseconds' in own)) throw new Error(`--compare ${this.build}: an answer out of turn`);
    return own.milliseconds;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.process.end();
    await this.remove();
  }
}

/** The process of the build: one answer for its start, and one for each question. */
class BuildProcess {
  private readonly child: ChildProcess;
  /** Rejects when the process ends, whenever that is. */
  private readonly ended: Promise<never>;

  constructor(build: string, folder: string, words: readonly string[]) {
    const program = join(folder, 'cli', 'main.ts');
    const tsx = createRequire(program).resolve('tsx');
    this.child = fork(program, [...words], {
      cwd: folder,
      execArgv: ['--import', pathToFileURL(tsx).href],
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
        const what = code === 0 ? 'is too old to be measured beside another' : failed;
        reject(new InputError(`--compare ${build}: that build ${what}`));
      });
    });
    this.ended.catch(() => {}); // it also ends when nobody waits
  }

  answer(): Promise<Answer> {
    const next = new Promise<Answer>((resolve) => this.child.once('message', (own) => resolve(own as Answer)));
    return Promise.race([next, this.ended]);
  }

  ask(question: { readonly name: string }): Promise<Answer> {
    const next = this.answer();
    this.child.send(question);
    return next;
  }

  end(): void {
    this.child.kill();
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
