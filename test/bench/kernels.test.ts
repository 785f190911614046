import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { KernelsRun } from '../../bench/kernels/run.ts';
import { limited } from '../../bench/measure/roofline.ts';
import { benchKernels } from '../../cli/bench-kernels.ts';
import { readOptions } from '../../cli/options.ts';
import { runCommand } from '../support/run-command.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-kernels-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('insula bench kernels', () => {
  test('the limiting resource is the one that takes the roof longest', () => {
    const roof = { gigaflops: 100, gigabytesPerSecond: 10, dispatchMicroseconds: 20 };
    const of = (flops: number, bytes: number, dispatches: number) => limited({ flops, bytes, dispatches }, 1, roof);
    const half = { gigaflops: 50, gigabytesPerSecond: 1, leastMilliseconds: 0.5, percentOfRoof: 50 };
    expect(of(5e7, 1e6, 2)).toEqual({ ...half, bound: 'arithmetic' });
    expect(of(1e6, 8e6, 2)).toMatchObject({ bound: 'memory', percentOfRoof: 80 });
    expect(of(1e6, 1e6, 10)).toMatchObject({ bound: 'launch', percentOfRoof: 20 });
  });

  test('rows of two ops, their costs, files, comparison', async () => {
    const [out, csv] = ['run.json', 'rows.csv'].map((name) => join(folder, name));
    const short = { rounds: 3 };
    const result = await runCommand(benchKernels, { ...short, out, csv }, { names: ['linear', 'add'] });
    const json = result.json as KernelsRun;
    const rows = json.rows.map(({ op, direction }) => `${op} ${direction}`);
    // The gradient of an addition takes no kernel.
    expect(rows).toEqual([
      'linear, 160 x 256 to 256 forward',
      'linear, 160 x 256 to 256 backward',
      'linear, 1 x 128 to 384, bias forward',
      'linear, 1 x 128 to 384, bias backward',
      'add, 160 x 256 forward',
    ]);
    expect(json.rows[0]).toMatchObject({ flops: 2 * 160 * 256 * 256, bytes: 4 * (2 * 160 * 256 + 256 * 256) });
    expect(json.rows[1].flops).toBe(2 * json.rows[0].flops);
    for (const row of json.rows) {
      expect(row.gigaflops).toBeCloseTo(row.flops / row.time.median / 1e6);
      expect(row.percentOfRoof).toBeGreaterThan(0);
    }
    expect(JSON.parse(await readFile(out, 'utf8'))).toEqual(json);
    expect((await readFile(csv, 'utf8')).trim().split('\n')).toHaveLength(6);
    const { lines } = await runCommand(benchKernels, { ...short, compare: out }, { names: ['add'] });
    const at = lines.findIndex((line) => line.startsWith('compared with 20'));
    expect(lines[at + 2]).toContain('pi-eighth | add, 160 x 256 | forward');
    expect(lines).toContain('rows of the other run that were not measured: 4');
  });

  test('what is not there is one clear line', async () => {
    await expect(runCommand(benchKernels, {}, { names: ['warp'] })).rejects.toThrow(
      'no op of that name; there are linear, ',
    );
    await expect(runCommand(benchKernels, {}, { names: ['ad'] })).rejects.toThrow('did you mean add?');
    await expect(runCommand(benchKernels, { compare: '/nowhere/before.json' })).rejects.toThrow('no file, no folder');
    expect(() => readOptions('bench kernels', benchKernels, ['--shapes', 'huge'])).toThrow(
      '--shapes huge: there is no "huge"; there are pi, smol, pi-eighth',
    );
  });
});
