import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { long } from '../support/long.ts';
import {
  commands,
  type Ended,
  hasScript,
  pause,
  type Running,
  smallRun,
  start,
  startInsula,
  type Target,
  type Way,
  withoutScript,
} from './processes.ts';

const interruption = new URL('../../cli/interruption.ts', import.meta.url).href;
let folder = '';
let words: string[] = [];
let runs = 0;
const newRun = () => join(folder, `run${runs++}`);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-signals-'));
  words = await smallRun(folder);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** The files in a folder that no run leaves there, hidden ones included. */
const remains = (path: string) =>
  (existsSync(path) ? readdirSync(path) : []).filter((name) => name.startsWith('.') || name.endsWith('.part'));

/** Expects that a run said where to resume it, and that the checkpoint is the one of its last step. */
async function expectSaved({ output, errors }: Ended, path: string): Promise<void> {
  const step = Number(/^interrupted after step (\d+), saved in .*; resume it with: .* --resume$/m.exec(output)?.[1]);
  expect(step, errors + output).toBeGreaterThanOrEqual(0);
  expect(errors.match(/interrupted: finishing the work under way, and saving/g), errors).toHaveLength(1);
  await expectCheckpoint(path, step);
  expect(remains(path)).toEqual([]);
}

async function expectCheckpoint(path: string, step: number): Promise<void> {
  const checkpoint = await openCheckpoint(join(path, 'checkpoint.safetensors'));
  expect(checkpoint.progress.step).toBe(step);
  await checkpoint.close();
}

/** The time that a run may take to save and end on a machine with much else to do. */
const LIMIT_MILLISECONDS = 90_000;

interface Case {
  readonly way: Way;
  readonly target: Target;
  readonly signals: readonly NodeJS.Signals[];
  /** Milliseconds between the signals. */
  readonly apart?: number;
}

async function interrupt({ way, target, signals, apart = 0 }: Case, moment: (run: Running) => Promise<void>) {
  const path = newRun();
  const run = startInsula(way, [...words, '--steps', '1000000', '--out', path]);
  await moment(run);
  for (const [i, name] of signals.entries()) {
    if (i > 0) await pause(apart);
    run.signal(name, target);
  }
  const late = setTimeout(LIMIT_MILLISECONDS, null, { ref: false }).then(() => {
    throw new Error(`did not end: ${JSON.stringify({ way, target, signals, apart, path })}`);
  });
  const ended = await Promise.race([run.ended, late]);
  await expectSaved(ended, path);
  // A shell or npm of its own accord ends by the signal, or by its number.
  if (way === 'launcher' || way === 'node') expect(ended.status).toBe(130);
  else expect(ended.status).not.toBe(0);
}

const cases: Case[] = [
  { way: 'npm', target: 'all', signals: ['SIGTERM', 'SIGTERM'], apart: 300 },
  { way: 'npx', target: 'process', signals: ['SIGHUP'] },
  { way: 'launcher', target: 'all', signals: ['SIGINT', 'SIGINT'], apart: 500 },
  { way: 'node', target: 'process', signals: ['SIGQUIT', 'SIGUSR2'], apart: 50 },
];

const onlyPosix = describe.skipIf(process.platform === 'win32');

onlyPosix('a run', () => {
  const trained = (run: Running) => run.written('train: step');

  test('saves and says how to resume it, whoever gets the signal, once or twice', async () => {
    await Promise.all(cases.map((own) => interrupt(own, trained)));
  }, 120_000);

  test('that a signal meets before it has begun ends, and leaves nothing', async () => {
    const moments = long ? Array.from({ length: 30 }, (_, i) => 100 * i) : [30, 900];
    for (const moment of moments) {
      const path = newRun();
      const run = startInsula(moment % 200 === 0 ? 'node' : 'launcher', [...words, '--steps', '0', '--out', path]);
      await pause(moment);
      run.signal('SIGTERM', 'all');
      const { status, signal, errors } = await run.ended;
      const before = 'insula: interrupted before the first step: there is nothing to save\n';
      expect([130, 143, 0], errors).toContain(signal ? 143 : status);
      expect(errors.replace(before, ''), `${moment} ms`).not.toMatch(/\n +at |^insula:/m);
      expect(remains(path)).toEqual([]);
    }
  }, 600_000);

  test('goes on to its end when nobody reads what it writes', async () => {
    const all = (['launcher', 'node'] as const).map(async (way) => {
      const path = newRun();
      const run = startInsula(way, [...words, '--steps', '3', '--out', path]);
      await run.written('\n');
      for (const stream of [run.child.stdout!, run.child.stderr!]) stream.destroy();
      expect((await run.ended).status).toBe(0);
      expect(JSON.parse(readFileSync(join(path, 'summary.json'), 'utf8'))).toMatchObject({ finished: true, step: 3 });
      expect(existsSync(join(path, 'report.html'))).toBe(true);
    });
    await Promise.all(all);
  }, 120_000);

  test.skipIf(!hasScript)(
    `saves when its terminal is closed${withoutScript}`,
    async () => {
      const path = newRun();
      const typed = [...commands.launcher, ...words, '--steps', '1000000', '--out', path].join(' ');
      const run = start(['script', '-qec', typed, '/dev/null']);
      await trained(run);
      run.signal('SIGKILL', 'process'); // its end of the terminal is gone
      const summary = join(path, 'summary.json');
      while (!existsSync(summary) || remains(path).length > 0) await pause(50);
      const { step, finished } = JSON.parse(readFileSync(summary, 'utf8'));
      expect(finished).toBe(false);
      await expectCheckpoint(path, step);
    },
    120_000,
  );

  test.skipIf(!long)(
    `saves at random moments${long ? '' : ' (skipped: set INSULA_LONG=1)'}`,
    async () => {
      const signal = fc.constantFrom<NodeJS.Signals>('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT');
      const round = fc.record({
        way: fc.constantFrom<Way>('npm', 'npx', 'launcher', 'node'),
        target: fc.constantFrom<Target>('process', 'group', 'all'),
        signals: fc.array(signal, { minLength: 1, maxLength: 2 }),
        apart: fc.nat(900),
        moment: fc.nat(3000),
      });
      const rounds = fc.sample(round, { numRuns: 60, seed: 20 });
      const atOnce = 4;
      for (let first = 0; first < rounds.length; first += atOnce)
        await Promise.all(
          rounds.slice(first, first + atOnce).map(({ moment, ...own }) =>
            interrupt(own, async (run) => {
              await run.written('made: data folder');
              await pause(moment);
            }),
          ),
        );
    },
    3_600_000,
  );
});

onlyPosix('a command that saves', () => {
  /** A program that takes five seconds to save. */
  async function startSaving(): Promise<Running> {
    const path = join(folder, 'saving.mts');
    await writeFile(
      path,
      `import { answerSignals } from ${JSON.stringify(interruption)};
      const { signal, finish } = answerSignals();
      finish(console.log);
      const waiting = setInterval(() => {}, 1000);
      signal.addEventListener('abort', () => {
        clearInterval(waiting);
        const end = performance.now() + 1200;
        while (performance.now() < end); // a long computation
        setTimeout(() => process.exit(7), 3800);
      });
      console.log('ready');`,
    );
    const run = start([process.execPath, 'cli/setup/launch.mjs', path]);
    await run.written('ready');
    return run;
  }
  const ending = async (signals: readonly [after: number, name: NodeJS.Signals][]) => {
    const run = await startSaving();
    run.signal('SIGINT', 'process');
    await run.written('interrupted');
    for (const [after, name] of signals) {
      await pause(after);
      run.signal(name, 'process');
    }
    return (await run.ended).status;
  };

  test('is stopped by a second key press after the answer, and by no signal of the same moment or of a scheduler', async () => {
    const [same, blocked, scheduler, key] = await Promise.all([
      ending([
        [50, 'SIGINT'],
        [500, 'SIGINT'],
      ]),
      // It arrives at once, and is read when the computation is over.
      ending([[600, 'SIGINT']]),
      ending([
        [3500, 'SIGTERM'],
        [200, 'SIGHUP'],
      ]),
      ending([[3500, 'SIGINT']]),
    ]);
    expect({ same, blocked, scheduler, key }).toEqual({ same: 7, blocked: 7, scheduler: 7, key: 130 });
  }, 60_000);
});
