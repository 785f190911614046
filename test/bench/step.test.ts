import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { runStepBench } from '../../bench/step/run.ts';
import { benchStep, stepLines } from '../../cli/bench-step.ts';
import { inspect } from '../../cli/inspect.ts';
import type { inspectStep } from '../../cli/inspect-step.ts';
import { readOptions } from '../../cli/options.ts';
import { chromeTrace } from '../../model/inspect/chrome-trace.ts';
import { testDevice } from '../support/devices.ts';
import { runCommand } from '../support/run-command.ts';

const sizes = { preset: 'nano', batch: 2, prompt: 20, target: 5, horizon: 4 };

describe('insula bench step', () => {
  test('figures that agree with each other', async () => {
    const device = await testDevice('normal');
    const options = { systems: ['knowledge-insulation', 'pi0'], ...sizes };
    const result = await runStepBench(device, options, { rounds: 3, seconds: 60 });
    const [insulated, pi0] = result.rows;
    expect([insulated.tokens, pi0.tokens]).toEqual([2 * (20 + 5 + 4), 2 * (20 + 1 + 4)]);
    expect(insulated.tokensPerSecond / insulated.samplesPerSecond).toBeCloseTo(29, 6);
    expect(insulated.gigaflops).toBeCloseTo((1000 * insulated.gigaflop) / insulated.time.median, 6);
    expect(insulated.arenaBytes).toBeGreaterThanOrEqual(insulated.lowerBoundBytes);
    expect(insulated.arenaBytes).toBeLessThanOrEqual(1.25 * insulated.lowerBoundBytes);
    expect(insulated.pipelines).toBeLessThanOrEqual(80);
    expect(insulated.submits).toBe(1);
    const timed = device.features.has('timestamp-query');
    expect(insulated.kernels.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(timed ? 1 : 0, 6);
    expect(insulated.attention !== null).toBe(timed);
    expect(stepLines(result).join('\n')).toContain('knowledge-insulation');
    expect(insulated.name).toBe('knowledge-insulation | batch 2, horizon 4, preset nano, prompt 20, target 5');
  });

  test('a system, a preset and a run that are not there are refused', async () => {
    const read = (...words: string[]) => readOptions('bench step', benchStep, words);
    expect(() => read('--system', 'pi0,pi9')).toThrow('--system pi0,pi9: there is no "pi9"; did you mean pi0?');
    expect(() => read('--preset', 'huge')).toThrow('--preset huge: there is no "huge"; there are nano, tiny, small');
    const useless = { adapter: 'null', system: ['pi0-fast'], horizon: 5 };
    await expect(runCommand(benchStep, useless)).rejects.toThrow(
      'bench step: --horizon 5: pi0-fast says a chunk in tokens, and their number here is that of --target; leave it out',
    );
    await expect(runCommand(inspect, { ...useless, system: 'pi0-fast', step: true })).rejects.toThrow(
      'inspect: --horizon 5: pi0-fast says a chunk in tokens, and their number here is that of --target; leave it out',
    );
    await expect(runCommand(benchStep, { ...useless, system: ['pi0', 'pi05'], target: 5 })).rejects.toThrow(
      'bench step: --target 5: pi0 and pi05 have no tokens to predict; leave it out',
    );
    await expect(runCommand(benchStep, { adapter: 'null', compare: 'package.json' })).rejects.toThrow(
      `package.json: this is not a run that 'insula bench step --out' saved: "format": missing`,
    );
  });
});

describe('insula inspect', () => {
  test('--step lists every operation, and saves it', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'insula-step-'));
    onTestFinished(() => rm(folder, { recursive: true }));
    const out = join(folder, 'step.json');
    const result = await runCommand(inspect, { step: true, adapter: 'null', ...sizes, out });
    const { json, lines } = result as Awaited<ReturnType<typeof inspectStep>>;
    expect(JSON.parse(await readFile(out, 'utf8'))).toEqual(JSON.parse(JSON.stringify(json)));
    expect(lines.slice(-json.operations.length)[0]).toMatch(/^ +1 +forward +clear/);
    expect(lines.find((line) => /^ +matmul product/.test(line))).toMatch(/^ +matmul product +\d+ +[\d.]+ +[\d.]+$/);
    const dispatches = json.operations.filter(({ grid }) => grid);
    expect(dispatches.length).toBe(json.statistics.dispatches);
    for (const { operation, bytes, bindings } of dispatches) {
      expect(bytes, operation).toBeGreaterThan(0);
      expect(
        bindings.some(({ access }) => access === 'read_write'),
        operation,
      ).toBe(true);
    }
    const products = dispatches.filter(({ operation }) => operation.startsWith('matmul'));
    expect(Math.min(...products.map(({ flops }) => flops!))).toBeGreaterThan(0);
    await expect(runCommand(inspect, {})).rejects.toThrow('inspect: give one of --step, --gradients, --interference');
  });

  test('a trace has an event for each dispatch, in microseconds', () => {
    const work = { label: 'matmul product', workgroups: 4, flops: 3000, bytes: 1500 };
    const { traceEvents } = chromeTrace([{ ...work, begin: 2000, nanoseconds: 1500 }], 'an adapter');
    expect(traceEvents.at(-1)).toMatchObject({
      ...{ name: 'matmul product', ph: 'X', ts: 2, dur: 1.5 },
      args: { flops: 3000, 'GFLOP/s': 2, 'GB/s': 1 },
    });
  });
});
