import { afterEach, describe, expect, type TestContext, test } from 'vitest';
import { backward, captureStep, emptyTensor, openDevice, parameter, tensor } from '../../engine/index.ts';
import {
  attention,
  attentionEntries,
  attentionTable,
  attentionVariants,
  causal,
  type Edge,
  edge,
  full,
  planForm,
  sequence,
  useAttentionVariants,
} from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { type AttentionCase, compareAttention, runAttention, shortNumbers } from '../support/attention-cases.ts';
import { describeOnAllDevices, describeOnDevices, fewerSizes, testDevice } from '../support/devices.ts';
import { longTest } from '../support/long.ts';
import { expectClose, normals } from '../support/numbers.ts';

describe('factors of the gradient of an edge', () => {
  test('a stop is a factor of 0, and what is open one of 1', () => {
    expect(edge({ mask: 'full', stopKey: true })).toEqual(edge({ mask: 'full', keyGradient: 0 }));
    expect(edge({ mask: 'full', keyGradient: 1, valueGradient: 1 })).toEqual(full);
  });

  test.each([
    [{ keyGradient: 1.5 }, 'edge: keyGradient is 1.5; expected a number from 0 to 1'],
    [{ valueGradient: -0.1 }, 'edge: valueGradient is -0.1; expected a number from 0 to 1'],
    [{ valueGradient: Number.NaN }, 'edge: valueGradient is NaN; expected a number from 0 to 1'],
    [
      { stopKey: true, keyGradient: 0.5 },
      'edge: stopKey and keyGradient 0.5 together; a stop is a keyGradient of 0: give one of them',
    ],
    [
      { stopValue: true, valueGradient: 1 },
      'edge: stopValue and valueGradient 1 together; a stop is a valueGradient of 0: give one of them',
    ],
  ])('%o is refused', (options, message) => {
    expect(() => edge({ mask: 'full', ...options })).toThrow(message);
  });

  test('a table refuses an edge that was not made by edge, and a plan more factors than it has places for', () => {
    const layout = sequence({ a: 4 });
    expect(() => attentionTable(layout, { a: { a: { ...full, keyGradient: 2 } } })).toThrow(
      "attentionTable: 'a' reads 'a' with a keyGradient of 2; expected a number from 0 to 1",
    );
    const names = Array.from({ length: 46 }, (_, i) => `block ${i}`);
    const row = (q: number): Record<string, Edge> =>
      Object.fromEntries(
        names.map((name, k) => [name, edge({ mask: 'full', keyGradient: (1 + 46 * q + k) / 46 ** 2 })]),
      );
    const table = attentionTable(
      sequence(names.map((name) => [name, 1])),
      Object.fromEntries(names.map((name, q) => [name, row(q)])),
    );
    expect(() => planForm(table, 1)).toThrow(
      'attention: the table scales gradients by more than 2047 pairs of factors',
    );
  });
});

describeOnAllDevices('scaled gradients in a captured step', (open) => {
  test('another padding on every run gives the bits of an eager step', async () => {
    const device = await open();
    const table = attentionTable(sequence({ prefix: 70, action: 20 }), {
      prefix: { prefix: full },
      action: { prefix: edge({ mask: 'full', keyGradient: 0.1, valueGradient: 0.3 }), action: causal },
    });
    const make = (name: string, seed: number) => parameter(device, normals(90 * 16, seed), [1, 90, 1, 16], { name });
    const operands = [make('query', 1), make('key', 2), make('value', 3)] as const;
    const dOutput = normals(90 * 16, 4);
    const run = ({ validity, gradient }: Record<string, ReturnType<typeof tensor>>) => {
      for (const { grad } of operands) if (grad) device.clear(grad);
      const output = attention(...operands, { table, validity });
      backward(output, { gradient });
      return { output };
    };
    const gradients = () => Promise.all(operands.map(({ grad }) => grad!.read()));
    device.step(() =>
      run({
        validity: tensor(device, new Uint32Array(90).fill(1), [1, 90], { dtype: 'u32' }),
        gradient: tensor(device, dOutput, [1, 90, 1, 16]),
      }),
    );
    using step = captureStep(
      device,
      { validity: { shape: [1, 90], dtype: 'u32' }, gradient: { shape: [1, 90, 1, 16] } },
      run,
      { name: 'soft' },
    );
    for (const padded of [0, 33, 64]) {
      const validity = Uint32Array.from({ length: 90 }, (_, i) => (i >= 70 - padded && i < 70 ? 0 : 1));
      await step.run({ validity, gradient: dOutput });
      const replayed = await gradients();
      const given = {
        validity: tensor(device, validity, [1, 90], { dtype: 'u32' }),
        gradient: tensor(device, dOutput, [1, 90, 1, 16]),
      };
      device.step(() => run(given));
      expect(replayed, `${padded} rows of padding`).toEqual(await gradients());
      for (const each of Object.values(given)) each.dispose();
    }
    for (const leaf of operands) leaf.dispose();
  });
});

describe('scores of any size', () => {
  afterEach(async () => useAttentionVariants(await testDevice('normal'), []));

  /** Every row sees itself alone, so that its weight is 1: the output is v, and dv is the gradient of the output, to the last bit. */
  function ownRowOnly(size: number, headDimension: number, dtype: 'f32' | 'f16' | 'bf16'): AttentionCase {
    const tokens = 70;
    const count = tokens * headDimension;
    return shortNumbers({
      table: attentionTable(sequence({ all: tokens }), { all: { all: edge({ mask: 'causal', window: 1 }) } }),
      ...{ batch: 1, heads: 1, kvHeads: 1, headDimension, dtype },
      validity: new Uint8Array(tokens).fill(1),
      query: normals(count, 1, Math.sqrt(Math.abs(size))).map((value) => (size < 0 ? -Math.abs(value) : value)),
      key: normals(count, 2, Math.sqrt(Math.abs(size))).map((value) => (size < 0 ? Math.abs(value) : value)),
      value: normals(count, 3),
      dOutput: normals(count, 4),
    });
  }

  const all = ['software', 'base-128', 'base-256'];
  for (const dtype of ['f32', 'f16', 'bf16'] as const)
    for (const variant of fewerSizes ? all.slice(0, 1) : all) {
      const name = `${variant}, ${dtype} storage: backward makes the scores of forward again, bit by bit`;
      // Head dimensions of other tests, so that their pipelines serve again; the others differ in how words are unpacked.
      if (dtype === 'f32' || variant === 'software') test(name, (context) => checkScores(variant, dtype, context));
      else longTest(name, (context) => checkScores(variant, dtype, context));
    }

  async function checkScores(variant: string, dtype: 'f32' | 'f16' | 'bf16', { skip }: TestContext) {
    const device = await testDevice('normal');
    const headDimension = 40;
    const choices = attentionEntries
      .map((entry) => ({ entry, dtype, headDimension, variant }))
      .filter((choice) => attentionVariants(device, choice).includes(variant));
    if (choices.length === 0) skip('not on this adapter');
    useAttentionVariants(device, choices);
    for (const size of [1, 100, 1e4, -4e4]) {
      const given = ownRowOnly(size, headDimension, dtype);
      const actual = await runAttention(device, given);
      if (size === 1e4) expect(Math.max(...actual.logSumExp.map(Math.abs))).toBeGreaterThan(1e4);
      if (size < 0) expect(Math.max(...actual.logSumExp)).toBeLessThan(-5e4);
      expect(actual.output, `output at ${size}`).toEqual(given.value);
      expect(actual.dValue, `dv at ${size}`).toEqual(given.dOutput);
      expectClose(actual.logSumExp, reference.attention(given).logSumExp, 1e-6, 'logSumExp');
    }
  }
});

describeOnDevices('scores far below zero', (open) => {
  test('a row of scores below -5e4 has the softmax of the same row around zero, beside keys that it does not see', async () => {
    const [batch, heads, headDimension] = [2, 2, 16];
    const table = attentionTable(sequence({ a: 37, b: 9 }), {
      a: { a: full },
      b: { a: edge({ mask: 'full' }), b: causal },
    });
    // Eighths, whose products f32 still holds at 1e5: every score is exact.
    const eighths = (count: number, seed: number) => normals(count, seed).map((value) => Math.round(8 * value) / 8);
    const at = (shift: number): AttentionCase => ({
      ...{ table, batch, heads, kvHeads: 1, headDimension, scale: 1 },
      validity: Uint8Array.from({ length: batch * 46 }, (_, i) => (i % 5 === 0 ? 0 : 1)),
      query: eighths(batch * 46 * heads * headDimension, 1).map((value, i) => (i % headDimension === 0 ? 256 : value)),
      key: eighths(batch * 46 * headDimension, 2).map((value, i) => (i % headDimension === 0 ? shift / 256 : value)),
      value: normals(batch * 46 * headDimension, 3),
      dOutput: normals(batch * 46 * heads * headDimension, 4),
    });
    const low = await runAttention(await open(), at(-102_400));
    const expected = reference.attention(at(-102_400));
    expectClose(low.output, expected.output, 2e-6, 'output');
    expectClose(
      low.output,
      (await runAttention(await open(), at(0))).output,
      2e-6,
      'output of the same row around zero',
    );
    // Backward makes weights from L, which f32 rounds to a multiple of 1/128 here.
    compareAttention(low, expected, 1 / 256);
    expect(Math.max(...low.logSumExp.filter((value) => value < 1e30))).toBeLessThan(-1e5);
  });
});

describe('calls that no device can run', () => {
  const call = (device: Awaited<ReturnType<typeof openDevice>>, heads: number, scale?: number) => {
    const [query, key] = [heads, 1].map((own) => emptyTensor(device, [1, 2, own, 256], 'f32', 'operand'));
    return attention(query, key, key, { table: attentionTable(sequence({ a: 2 }), { a: { a: full } }), scale });
  };

  test('more heads than a binding holds, and a scale that is no number, are refused in one line', async () => {
    const device = await openDevice({ adapter: 'null', floor: true });
    expect(() => device.step(() => call(device, 70_000))).toThrow(
      /^attention forward: 'query' takes 143360000 bytes, above this device's limit of 134217728 .*$/,
    );
    expect(() => device.step(() => call(device, 1, Number.NaN))).toThrow(
      /^attention: scale is NaN; expected a finite number of f32$/,
    );
    device.close();
  });
});

describeOnDevices('attention on more samples than a grid has rows', (open) => {
  test('66,000 samples of two tokens: float64', async () => {
    const [batch, headDimension] = [66_000, 4];
    const size = batch * 2 * headDimension;
    const given = {
      table: attentionTable(sequence({ a: 2 }), { a: { a: causal } }),
      ...{ batch, heads: 1, kvHeads: 1, headDimension },
      validity: Uint8Array.from({ length: 2 * batch }, (_, i) => (i % 7 === 0 ? 0 : 1)),
      query: normals(size, 1),
      key: normals(size, 2),
      value: normals(size, 3),
      dOutput: normals(size, 4),
    };
    compareAttention(await runAttention(await open(), given), reference.attention(given), 2e-6);
  });
});
