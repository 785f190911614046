import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runCheck } from '../../bench/verify/check.ts';
import { compareTensors, ulpBins } from '../../bench/verify/compare.ts';
import { verify } from '../../bench/verify/run.ts';
import { checksOf } from '../../bench/verify/variants.ts';
import { verifyCommand, verifyLines } from '../../cli/verify.ts';
import { type Device, type Dispatch, openDevice } from '../../engine/index.ts';
import { attentionEntries, attentionVariants, matmulVariants } from '../../kernels/index.ts';
import { testDevice } from '../support/devices.ts';
import { runCommand } from '../support/run-command.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-verify-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** A device with some dispatches changed on their way. */
async function withDispatches<T>(
  change: (given: Dispatch) => Dispatch,
  use: (device: Device) => Promise<T>,
): Promise<T> {
  const device = await openDevice();
  const dispatch = device.dispatch.bind(device);
  device.dispatch = (given) => dispatch(change(given));
  try {
    return await use(device);
  } finally {
    device.close();
  }
}

const subject = { op: 'op', name: 'op', variant: 'shipped', storage: 'f32', tensor: 'output' };

describe('comparison with float64', () => {
  test('units in the last place, of f32 and of packed storage', () => {
    const last = 2 ** -23;
    const { histogram, worstUlp, passed } = compareTensors(
      subject,
      [1, 1 + last, 2 + 4 * last, -4 - 24 * last],
      [1 + last / 2, 1, 2, -4],
      1e-3,
    );
    expect(passed).toBe(true);
    expect(worstUlp).toBe(6);
    const ends = histogram.flatMap((count, i) => Array<number>(count).fill(ulpBins[i]));
    expect(ends).toEqual([0.5, 1, 2, 8]);
    expect(compareTensors(subject, [1 + 2 ** -10], [1], 1, 'f16').worstUlp).toBe(1);
    expect(compareTensors(subject, [1 + 2 ** -7], [1], 1, 'bf16').worstUlp).toBe(1);
  });

  test('the first element that departs; what is no number departs; a tolerance of 0 asks for equal numbers', () => {
    const expected = [3, 4, 0, 5];
    const wrong = compareTensors(subject, [3, 4 + 1e-6, 1, 6], expected, 1e-5);
    expect(wrong).toMatchObject({ passed: false, departs: { index: 2, expected: 0, actual: 1 } });
    expect(wrong.error).toBeCloseTo(Math.sqrt(2 / 50));
    expect(compareTensors(subject, [3, Number.NaN, 0, 5], expected, 1).departs).toMatchObject({ index: 1 });
    expect(compareTensors(subject, expected, expected, 0).passed).toBe(true);
    expect(compareTensors(subject, [3, 4, 1e-30, 5], expected, 0).departs).toMatchObject({ index: 2 });
    expect(() => compareTensors(subject, [1], [1, 2], 0)).toThrow('op: output has 1 elements; float64 has 2');
  });
});

describe('insula verify', () => {
  test('norms, the optimizer and a training step agree here; the report as JSON and as lines', async () => {
    const out = join(folder, 'report.json');
    const only = ['*Norm', 'AdamW', 'training'];
    const { json, lines, status } = await runCommand(verifyCommand, { only, out });
    expect(status).toBe(0);
    expect(json).toMatchObject({ format: 'insula verify 1', passed: true, failures: [], floor: false });
    expect(json.limits.maxStorageBuffersPerShaderStage).toBeGreaterThanOrEqual(8);
    expect(new Set(json.results.map(({ op }) => op))).toEqual(
      new Set(['rmsNorm', 'adaptiveRmsNorm', 'layerNorm', 'AdamW', 'training']),
    );
    for (const { histogram, elements, error, tolerance } of json.results) {
      expect(histogram.reduce((sum, count) => sum + count)).toBe(elements);
      expect(error).toBeLessThanOrEqual(tolerance);
    }
    const titles = json.results.filter(({ op }) => op === 'training').map(({ tensor }) => tensor);
    for (const title of ['token loss', 'gradients of backbone along random directions', 'state beside an eager step'])
      expect(titles).toContain(title);
    expect(JSON.parse(await readFile(out, 'utf8'))).toEqual(json);
    expect(lines.at(-1)).toMatch(/^all \d+ results agree with float64; \d+ seconds$/);
  });

  test('a wrong kernel departs, and the report names op, variant, tensor and element', async () => {
    const wrong = (given: Dispatch) =>
      given.kernel.name.startsWith('rms-norm') && given.entry === 'forward'
        ? { ...given, uniform: { ...given.uniform, epsilon: 0.25 } }
        : given;
    const result = await withDispatches(wrong, (device) =>
      verify(device, { only: ['rmsNorm', 'layerNorm'], every: false }),
    );
    expect(result.passed).toBe(false);
    const departing = result.results.filter(({ passed }) => !passed);
    expect(new Set(departing.map(({ op }) => op))).toEqual(new Set(['rmsNorm']));
    expect(departing[0]).toMatchObject({ variant: 'shipped', storage: 'f32', tensor: 'output', departs: { index: 0 } });
    const lines = verifyLines(result);
    expect(
      lines.findIndex(
        (line, i) =>
          line === '  rmsNorm, shipped, f32: rmsNorm, 24 x 12: output' &&
          lines[i + 1].startsWith('    element 0 of 576: expected'),
      ),
    ).toBeGreaterThan(0);
    expect(lines.slice(1).filter((line) => line.length > 120)).toEqual([]);
    expect(lines.at(-1)).toMatch(/^\d+ of \d+ results depart;/);
  });

  test('a kernel that is wrong in one variant departs in that one alone', async () => {
    const wrong = (given: Dispatch) =>
      given.kernel.name === 'matmul' ? { ...given, uniform: { ...given.uniform, rows: 0 } } : given;
    const { results } = await withDispatches(wrong, (device) => verify(device, { only: ['matmul'], every: false }));
    const departing = new Set(results.filter(({ passed }) => !passed).map(({ variant }) => variant));
    const device = await testDevice('normal');
    const key = { a: 'f32', b: 'f32', transposeA: true, transposeB: true, sides: 1, size: 'small' } as const;
    const [taken] = matmulVariants(device, key);
    expect(departing).toEqual(
      new Set(taken === 'software' ? ['base-64x64-8x4'] : ['shipped', ...matmulVariants(device, key)]),
    );
  });

  test('an op that throws is in the report, and the others run', async () => {
    const broken = (given: Dispatch) => {
      if (given.kernel.name.startsWith('softmax')) throw new Error('no such kernel');
      return given;
    };
    const result = await withDispatches(broken, (device) =>
      verify(device, { only: ['softmax', 'relu'], every: false }),
    );
    expect(result).toMatchObject({ passed: false });
    expect(new Set(result.failures.map(({ reason }) => reason))).toEqual(new Set(['no such kernel']));
    expect(result.results.length).toBeGreaterThan(0);
    expect(
      verifyLines(result).find((line) => line.includes('softmax') && line.includes('no such kernel')),
    ).toBeDefined();
  });

  test('every variant of every entry, storage and size is among the checks', async () => {
    const device = await testDevice('normal');
    const { checks, omitted } = checksOf(device, true);
    expect(omitted).toHaveLength(0);
    const variants = (op: string, storage: string) =>
      new Set(
        checks
          .filter(({ problem, chosen, ...own }) => problem.name.startsWith(op) && chosen && own.storage === storage)
          .map(({ variant }) => variant.split(' ')[0]),
      );
    for (const dtype of ['f32', 'f16', 'bf16'] as const)
      for (const headDimension of [16, 72, 256])
        for (const entry of attentionEntries)
          for (const name of attentionVariants(device, { entry, dtype, headDimension }))
            expect(variants('attention', dtype)).toContain(name);
    for (const sides of [1, 2] as const)
      for (const name of matmulVariants(device, {
        ...{ a: 'f32', b: 'f32', sides, size: 'large' },
        transposeA: false,
        transposeB: true,
      }))
        expect(variants(sides === 1 ? 'linear' : 'gatedMlp', 'f32')).toContain(name);
    if (device.software) expect(checksOf(device, false).omitted.length).toBeGreaterThan(0);
  });

  test('numbers of one check', async () => {
    const device = await testDevice('floor');
    const check = checksOf(device, false).checks.find(({ problem }) => problem.name.startsWith('add'))!;
    const [output, ...gradients] = await runCheck(device, check);
    expect(output).toMatchObject({ op: 'add', tensor: 'output', worstUlp: 0.5, passed: true });
    expect(gradients.map(({ tensor }) => tensor.split(',')[0])).toEqual(['gradient of a', 'gradient of b']);
  });

  test('an unknown op is refused in one line', async () => {
    await expect(runCommand(verifyCommand, { only: ['rmsNrom'] })).rejects.toThrow(
      '--only "rmsNrom": no op of that name; did you mean rmsNorm?',
    );
    await expect(runCommand(verifyCommand, { only: ['warp*'] })).rejects.toThrow(
      'no op of that name; there are linear, ',
    );
  });
});
