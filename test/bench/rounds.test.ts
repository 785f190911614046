import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { multiplyAdd } from '../../bench/measure/probes.ts';
import { type Entrant, inRounds } from '../../bench/measure/rounds.ts';
import { type Comparison, compareSaved, courseLine, measureRun, readSavedRun } from '../../bench/measure/run.ts';
import { timeSingle } from '../../bench/measure/single.ts';
import { changeOf, medianInterval, pairedRatio, ratioOfRuns, spread } from '../../bench/measure/statistics.ts';
import { Work } from '../../bench/measure/work.ts';
import { benchKernels } from '../../cli/bench-kernels.ts';
import { comparisonLines } from '../../cli/bench-run.ts';
import { Random, tensor } from '../../engine/index.ts';
import { scale } from '../../kernels/index.ts';
import { testDevice } from '../support/devices.ts';
import { runCommand } from '../support/run-command.ts';

const device = await testDevice('normal');
let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-rounds-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('statistics', () => {
  test('median and quartiles', () => {
    expect(spread([4, 1, 3, 2, 5])).toEqual({ median: 3, lowerQuartile: 2, upperQuartile: 4, rounds: 5 });
    expect(spread([1, 2]).median).toBe(1.5);
  });

  test("the median's interval has the ranks of the sign test", () => {
    const upTo = (n: number) => Array.from({ length: n }, (_, i) => n - i);
    expect(medianInterval(upTo(7))).toBeNull();
    expect(medianInterval(upTo(8))).toEqual([1, 8]);
    // Tables of the sign test: of 20 values the 4th and the 17th at 99 %, the 6th and the 15th at 95 %.
    expect(medianInterval(upTo(20))).toEqual([4, 17]);
    expect(medianInterval(upTo(20), 0.05)).toEqual([6, 15]);
  });

  test('it holds the median of skewed noise as often as it says', () => {
    const random = new Random(1, 0, 0);
    let [held, drawn] = [0, 0];
    for (let i = 0; i < 2000; i++) {
      // The exponential of a uniform number has the median 1 / sqrt(e).
      const values = Array.from({ length: 15 }, () => Math.exp(-random.uniform(drawn++)));
      const [low, high] = medianInterval(values)!;
      held += Number(low <= Math.exp(-0.5) && Math.exp(-0.5) <= high);
    }
    expect(held / 2000).toBeGreaterThan(0.985);
  });

  test('what rounds share does not count; what differs by less than a process does is no change', () => {
    const random = new Random(2, 0, 0);
    const load = Array.from({ length: 30 }, (_, i) => 1 + 4 * random.uniform(i));
    const times = (factor: number) => load.map((busy, i) => factor * busy * (1 + 0.02 * random.uniform(100 + i)));
    const change = (factor: number) => changeOf(pairedRatio(times(factor), times(1)));
    expect([0.5, 0.9, 0.99, 1, 1.04, 1.2].map(change)).toEqual([
      ...['faster', 'faster', 'same', 'same', 'undecided', 'slower'],
    ]);
    expect(pairedRatio([1, 2], [1, 2])).toBeNull();
  });

  test('two runs: the interval covers how the machine changed meanwhile', () => {
    const flat = (value: number) => Array.from({ length: 20 }, () => value);
    expect(changeOf(ratioOfRuns(flat(2), flat(1), [1]))).toBe('slower');
    expect(changeOf(ratioOfRuns(flat(2), flat(1), [1, 1.9]))).toBe('slower');
    expect(changeOf(ratioOfRuns(flat(2), flat(1), [2.1]))).toBe('undecided');
    expect(ratioOfRuns(flat(2), flat(1), [2])!.ratio).toBe(1);
  });
});

/** An entrant that takes no time and says what it is told. */
const saying = (name: string, times: () => number): Entrant => ({
  name,
  start: async () => {},
  sample: async () => times(),
});

describe('rounds', () => {
  test('every task runs in every round; what a repeat takes is given back', async () => {
    using x = tensor(device, [1, 2, 3, 4], [4]);
    const calls = [0, 0];
    const work = calls.map((_, i) => {
      const run = () => {
        calls[i] += 1;
        for (let n = 0; n <= i; n++) scale(x, 2);
      };
      return new Work(device, `work ${i}`, { prepare: () => run });
    });
    const before = device.memory.stepBytes;
    const { times, ended } = await inRounds(work, { rounds: 4, seconds: 60 });
    expect(ended).toBe('rounds');
    work.forEach(({ dispatches, workgroups, stepBytes, repeats }, i) => {
      expect(times[i]).toHaveLength(4);
      expect(Math.min(...times[i])).toBeGreaterThan(0);
      expect([dispatches, workgroups]).toEqual([i + 1, i + 1]);
      expect(stepBytes).toBe(256 * (i + 1));
      expect(calls[i]).toBeGreaterThan(4 * repeats);
    });
    expect(device.memory.stepBytes).toBe(before);
  });

  test('they end when the answer is settled, or with what was measured when interrupted', async () => {
    const abort = new AbortController();
    let samples = 0;
    const counting = saying('a', () => {
      samples += 1;
      if (samples === 8) abort.abort(new Error('stop'));
      return samples;
    });
    const entrants = [counting, saying('b', () => 1)];
    const settled = await inRounds(entrants, { seconds: 60 }, ([own]) => own.length === 3);
    expect([settled.ended, settled.times.map(({ length }) => length)]).toEqual(['settled', [3, 3]]);
    const stopped = await inRounds(entrants, { seconds: 60, signal: abort.signal });
    // The last round was not ended.
    expect([stopped.ended, stopped.times.map(({ length }) => length)]).toEqual(['interrupted', [2, 2]]);
  });

  test('what there is no time to start is left out; a budget that cannot hold one round is one line', async () => {
    const slow = (name: string, milliseconds: number): Entrant => ({
      ...saying(name, () => 1),
      start: () => new Promise((resolve) => setTimeout(resolve, milliseconds)),
    });
    const entrants = ['a', 'b', 'c'].map((name) => slow(name, 400));
    const { times } = await inRounds(entrants, { seconds: 1, rounds: 3 });
    expect(times.map(({ length }) => length)).toEqual([3, 3, 0]);
    await expect(inRounds([slow('a', 30)], { seconds: 0.01 })).rejects.toThrow(
      /^--seconds 0\.01: compiling and running 1 of 1 rows took 0\.\d s, which leaves no time for a round; give at least 1$/,
    );
  });

  test('the arithmetic probe computes the number that its comment states', async () => {
    const numbers = await device.step(() => multiplyAdd(device, 64, 10)).read();
    for (const number of numbers) expect(number).toBeCloseTo(8 * 0.5, 5); // x = x / 2 + 1/4 tends to 1/2 in each of 8 chains
  });

  test('a single task is timed by tinybench, in whole or for the part that it names', async () => {
    const { part } = await timeSingle({ part: () => ({ overriddenDuration: 7 }) }, { milliseconds: 1 });
    expect([part.p50, part.min, part.samplesCount]).toEqual([7, 7, 16]);
    const failing = timeSingle({ failing: () => Promise.reject(new Error('no')) }, { milliseconds: 1 });
    await expect(failing).rejects.toThrow('no');
  });
});

const results = (name: string) => fileURLToPath(new URL(`../../bench/results/${name}-lavapipe.json`, import.meta.url));

describe('saved runs', () => {
  test('the results in the repository can be compared with', async () => {
    for (const name of ['attention', 'kernels', 'step', 'policy']) {
      const { rows, adapter } = await readSavedRun(results(name), `bench ${name}`);
      expect(rows.length).toBeGreaterThan(0);
      expect(adapter.software).toBe(true);
    }
  });

  test('a run beside a saved one: the rows of both, the drift of known work, and what is alone', async () => {
    const measured = async (factor: number, names: readonly string[]) => {
      const run = await measureRun(
        device,
        { seconds: 60, rounds: 20 },
        {
          ...{ command: 'bench kernels', options: {} },
          rows: names.map((name) => ({ work: saying(name, () => factor) })),
          anchors: [saying('known', () => 3)],
        },
      );
      return { ...run, rows: run.rows.map(({ timed }) => timed) };
    };
    const path = join(folder, 'run.json');
    await writeFile(path, JSON.stringify(await measured(1, ['a', 'b'])));
    const saved = await readSavedRun(path, 'bench kernels');
    const run = await measured(2, ['b', 'c']);
    const comparison: Comparison = compareSaved(run, saved);
    expect(comparison).toMatchObject({
      rows: [{ name: 'b', before: 1, now: 2, ratio: { ratio: 2, low: 2, high: 2 }, change: 'slower' }],
      ...{ alone: [1, 1], drifts: [1] },
    });
    const lines = comparisonLines(comparison);
    expect(lines[0]).toMatch(
      /^compared with 20.*: 1 of 1 rows changed \(0 of 1 rows are the same within 4 %, 0 not decided\)$/,
    );
    expect(lines.slice(-2)).toEqual([
      'rows of this run that the other lacks: 1',
      'rows of the other run that were not measured: 1',
    ]);
    expect(courseLine(run)).toMatch(/^20 rounds that interleave all rows, in 0 s.*; then all that --rounds allows$/);
  });

  test.each<[string, (run: { rows: Record<string, unknown>[]; [field: string]: unknown }) => void, string]>([
    ['a row without times', ({ rows }) => delete rows[2].times, '"rows[2].times": missing'],
    ['a time in words', ({ rows }) => (rows[0].times = ['long']), '"rows[0].times[0]": expected number, got "long"'],
    ['another command', (run) => (run.format = 'insula bench step 2'), '"format": expected "insula bench kernels 2"'],
  ])('%s is refused in one line', async (_, spoil, complaint) => {
    const run = JSON.parse(await readFile(results('kernels'), 'utf8'));
    spoil(run);
    const path = join(folder, 'spoilt.json');
    await writeFile(path, JSON.stringify(run));
    await expect(readSavedRun(path, 'bench kernels')).rejects.toThrow(
      `${path}: this is not a run that 'insula bench kernels --out' saved: ${complaint}`,
    );
  });

  test('a run of another adapter, timer or rows is refused before anything is measured', async () => {
    const run = JSON.parse(await readFile(results('kernels'), 'utf8'));
    const path = join(folder, 'other.json');
    const compared = async (changes: object) => {
      await writeFile(path, JSON.stringify({ ...run, ...changes }));
      return runCommand(benchKernels, { compare: path }, { names: ['add'] });
    };
    const adapter = { ...run.adapter, description: 'a card' };
    await expect(compared({ adapter })).rejects.toThrow(`--compare ${path}: that run is of "a card", but this adapter`);
    const own = { ...run.adapter, description: device.description };
    await expect(compared({ adapter: own, timer: 'gpu' })).rejects.toThrow('that run has gpu times, this one wall');
    const rows = [{ ...run.rows[0], name: 'x' }];
    await expect(compared({ adapter: own, rows })).rejects.toThrow('has none of these rows: it measured "x"');
  });
});

describe('another build', () => {
  test('this build beside itself, in new processes', { timeout: 120_000 }, async () => {
    const words = 'cli/setup/launch.mjs cli/main.ts bench kernels add --seconds 8 --compare .'.split(' ');
    const { stdout } = await promisify(execFile)(process.execPath, words);
    expect(stdout).toMatch(
      /^compared with \. in \d+ blocks, each of new processes of both builds whose rows take turns: /,
    );
    expect(stdout).toMatch(
      /\n {2}pi-eighth \| add, 160 x 256 \| forward( +[\d.]+){2} +\S+ +(too few values|[\d.]+ - [\d.]+) +\w+\n/,
    );
  });

  test('what is no build is one line', async () => {
    await expect(runCommand(benchKernels, { compare: 'no-such-commit' }, { names: ['add'] })).rejects.toThrow(
      '--compare no-such-commit: no file, no folder and no commit of that name',
    );
    await expect(runCommand(benchKernels, { compare: folder }, { names: ['add'] })).rejects.toThrow(
      `--compare ${folder}: this folder holds no checkout of insula`,
    );
  });
});
