import { afterEach, describe, expect, type TestContext, test } from 'vitest';
import type { Device } from '../../engine/index.ts';
import { rowsOf } from '../../kernels/attention-call.ts';
import { planForm } from '../../kernels/attention-plan.ts';
import { type AttentionEntry, attentionLaunch } from '../../kernels/attention-variants.ts';
import {
  type AttentionProblem,
  attentionEntries,
  attentionExpression,
  attentionTable,
  attentionVariants,
  causal,
  edge,
  full,
  insulated,
  masks,
  sequence,
  useAttentionVariants,
} from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import {
  type AttentionCase,
  compareAttention,
  randomCase,
  runAttention,
  shortNumbers,
} from '../support/attention-cases.ts';
import { fewerSizes, testDevice } from '../support/devices.ts';
import { longTest } from '../support/long.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';

/** Workgroups of each kernel, with the variants that the device has in use. */
function attentionWorkgroups(device: Device, problem: AttentionProblem): Record<AttentionEntry, number> {
  const { table, batch, heads, kvHeads, headDimension, dtype = 'f32' } = problem;
  const { queryRows } = rowsOf(problem);
  const form = planForm(table, batch, queryRows);
  const queryTokens = queryRows.reduce((sum, { rows }) => sum + rows, 0);
  const sizes = { batch, queryTokens, keyTokens: table.layout.keyTokens, heads, kvHeads, headDimension };
  const count = (entry: AttentionEntry) =>
    attentionLaunch(device, { entry, dtype, headDimension }, sizes, form).workgroups.reduce((a, b) => a * b);
  return Object.fromEntries(attentionEntries.map((entry) => [entry, count(entry)])) as Record<AttentionEntry, number>;
}

const results = ['output', 'logSumExp', 'dQuery', 'dKey', 'dValue'] as const;

/** Every kernel of the case that has this variant takes it, 'shipped' being the default; false where the adapter cannot run it. */
function use(device: Device, variant: string, { headDimension, dtype = 'f32' }: AttentionCase): boolean {
  if (variant === 'shipped') {
    useAttentionVariants(device, []);
    return true;
  }
  const choices = attentionEntries
    .map((entry) => ({ entry, dtype, headDimension, variant }))
    .filter((choice) => attentionVariants(device, choice).includes(variant));
  useAttentionVariants(device, choices);
  return choices.length > 0;
}

afterEach(async () => useAttentionVariants(await testDevice('normal'), []));

describe('variants of attention', () => {
  // A software adapter compiles each for seconds. Head dimensions of other tests, so that their pipelines serve again.
  const all = ['software', 'base-128', 'base-256'];
  test.for(fewerSizes ? all.slice(0, 2) : all)('%s: float64, heads of 40', (variant, context) =>
    checkNumbers(variant, 40, context),
  );
  longTest('base-256: float64, heads of 72', (context) => checkNumbers('base-256', 72, context));

  async function checkNumbers(variant: string, headDimension: number, { skip }: TestContext) {
    const device = await testDevice('normal');
    for (const [seed, group] of [
      [31, 3],
      [32, 1],
    ]) {
      const given = randomCase(seed, headDimension, group);
      if (!use(device, variant, given)) skip('not on this adapter');
      compareAttention(await runAttention(device, given), reference.attention(given), 2e-6);
    }
  }

  for (const dtype of ['f16', 'bf16'] as const) {
    const title = (kernels: string) => `${dtype} storage, ${kernels}: the numbers of f32, the output rounded`;
    test(title('shipped'), () => checkStorage(dtype, 'shipped'));
    // The two differ in a line that unpacks them and one that packs them.
    if (dtype === 'bf16' && !fewerSizes) test(title('base-128'), () => checkStorage(dtype, 'base-128'));
    else longTest(title('base-128'), () => checkStorage(dtype, 'base-128'));
  }

  async function checkStorage(dtype: 'f16' | 'bf16', variant: string) {
    const device = await testDevice('normal');
    const rounding = { f16: 2 ** -12, bf16: 2 ** -9 }[dtype];
    const given: AttentionCase = { ...shortNumbers(randomCase(34, 40, 2)), dtype };
    use(device, variant, given);
    const actual = await runAttention(device, given);
    const expected = reference.attention(given);
    compareAttention(actual, expected, 4 * rounding); // delta is made of the rounded output
    expectClose(actual.output, expected.output, rounding, 'output');
  }

  test('an unknown variant is refused with the names that there are', async () => {
    const device = await testDevice('floor');
    const choice = { entry: 'forward', dtype: 'f32', headDimension: 64, variant: 'base-256' } as const;
    expect(() => useAttentionVariants(device, [choice])).toThrow(
      "useAttentionVariants: forward of f32, head dimension 64: no variant 'base-256' on this device; it has base-128",
    );
  });

  test('software: one gradient alone has the bits that it has beside the others', async ({ skip }) => {
    const device = await testDevice('normal');
    const given = randomCase(35, 40, 3);
    if (!use(device, 'software', given)) skip('not on this adapter');
    const together = await runAttention(device, given);
    const base = { dtype: 'f32', headDimension: 40, variant: 'base-128' } as const;
    for (const [entry, others] of [
      ['backwardQuery', ['dKey', 'dValue']],
      ['backwardKeyValue', ['dQuery']],
    ] as const) {
      useAttentionVariants(device, [{ ...base, entry }]);
      const apart = await runAttention(device, given);
      for (const name of results) expectClose(apart[name], together[name], 1e-6, name);
      for (const name of others) expect(apart[name]).toEqual(together[name]);
    }
  });
});

/** The head dimension of tests above, so that their pipelines serve again. */
const D = 40;

/** 20 action tokens read a prefix of 300 behind a stop-gradient: so few query tiles that workgroups share their lists. */
function fewRows(cell = insulated): AttentionCase {
  const layout = sequence({ prefix: 300, action: 20 });
  const [batch, heads, kvHeads, headDimension] = [2, 4, 1, D];
  const validity = new Uint8Array(batch * 320).fill(1);
  validity.fill(0, 100, 250); // whole slices of the first sample are padding
  validity.fill(0, 310, 315);
  return {
    ...{ batch, heads, kvHeads, headDimension, validity, queries: ['action'] },
    table: attentionTable(layout, { action: { prefix: cell, action: causal } }),
    query: normals(batch * 20 * heads * headDimension, 1),
    key: normals(batch * 320 * headDimension, 2),
    value: normals(batch * 320 * headDimension, 3),
    dOutput: normals(batch * 20 * heads * headDimension, 4),
  };
}

describe('attention with lists that workgroups share', () => {
  test.each(['shipped', 'base-128'])('%s: float64, and the same bits every run', async (variant) => {
    const device = await testDevice('normal');
    for (const dtype of ['f32', 'bf16'] as const) {
      const given: AttentionCase = { ...shortNumbers(fewRows(full)), dtype };
      use(device, variant, given);
      const { forward } = attentionWorkgroups(device, given);
      if (variant === 'base-128') expect(forward).toBeGreaterThan(2 * 4); // tiles of one for each sample and head
      const first = await runAttention(device, given);
      compareAttention(first, reference.attention(given), dtype === 'f32' ? 2e-6 : 2 ** -7);
      expect(await runAttention(device, given)).toEqual(first);
    }
  });

  const threeHeads = (dtype: string) => `three heads on one, a mask and a score of the user, ${dtype} storage`;
  // Another expression is another set of pipelines, of seconds each on a software adapter.
  test(`${threeHeads('f32')}, shipped`, () => checkThreeHeads('f32', 'shipped'));
  longTest(`${threeHeads('f32')}, base-128`, () => checkThreeHeads('f32', 'base-128'));
  for (const variant of ['shipped', 'base-128'])
    longTest(`${threeHeads('f16')}, ${variant}`, () => checkThreeHeads('f16', variant));

  async function checkThreeHeads(dtype: 'f32' | 'f16', variant: string) {
    const device = await testDevice('normal');
    const base = fewRows(full);
    const source = masks.allOf(masks.dilated(3), masks.alibi(3));
    const expression = await attentionExpression(device, base.table.layout, source);
    const slope = (head: number) => source.constants![head];
    const size = 2 * 20 * 3 * D;
    const given: AttentionCase = {
      ...shortNumbers({ ...base, heads: 3, query: base.query.slice(0, size) }),
      dOutput: base.dOutput.slice(0, size),
      ...{ expression, dtype },
    };
    const expected = reference.attention({
      ...given,
      allowed: (q, k) => Math.abs(q - k) % 3 === 0,
      score: (score, q, k, head) => score - slope(head) * Math.abs(q - k),
      derivative: () => 1,
    });
    use(device, variant, given);
    compareAttention(await runAttention(device, given), expected, dtype === 'f32' ? 3e-6 : 2 ** -9);
  }

  test('dk and dv of a kv head that eight heads share have a slice for each of these, until a GPU is full', async () => {
    const device = await testDevice('floor');
    const table = attentionTable(sequence({ prefix: 999, action: 50 }), {
      prefix: { prefix: full },
      action: { prefix: full, action: full },
    });
    const workgroups = (batch: number, heads: number, kvHeads: number) =>
      attentionWorkgroups(device, { table, batch, heads, kvHeads, headDimension: D }).backwardKeyValue;
    expect(workgroups(1, 8, 1)).toBe(34 * 8);
    expect(workgroups(5, 8, 1)).toBe(5 * 34 * 4);
    expect(workgroups(16, 8, 1)).toBe(16 * 34);
    expect(workgroups(4, 2, 2)).toBe(4 * 34 * 2);
    const tokens = 330;
    const size = (heads: number) => 2 * tokens * heads * D;
    const given: AttentionCase = {
      ...{ batch: 2, heads: 8, kvHeads: 1, headDimension: D },
      table: attentionTable(sequence({ prefix: 300, action: 30 }), {
        prefix: { prefix: full },
        action: { prefix: edge({ mask: 'full', keyGradient: 0.3, valueGradient: 0.7 }), action: causal },
      }),
      validity: Uint8Array.from({ length: 2 * tokens }, (_, i) => (i >= 40 && i < 170 ? 0 : 1)),
      ...{
        query: normals(size(8), 1),
        key: normals(size(1), 2),
        value: normals(size(1), 3),
        dOutput: normals(size(8), 4),
      },
    };
    expect(attentionWorkgroups(device, given).backwardKeyValue).toBe(2 * 11 * 8);
    const first = await runAttention(device, given);
    compareAttention(first, reference.attention(given), 2e-6);
    expect(await runAttention(device, given)).toEqual(first);
  });

  test('one sample on one kv head: forward, dq, dk and dv in slices', async () => {
    for (const kind of ['normal', 'floor'] as const) {
      const device = await testDevice(kind);
      const both = fewRows(full);
      const given: AttentionCase = {
        ...both,
        batch: 1,
        heads: 1,
        table: attentionTable(sequence({ prefix: 300, action: 20 }), {
          prefix: { prefix: full },
          action: { prefix: full, action: causal },
        }),
        queries: undefined,
        validity: both.validity.subarray(0, 320),
        query: normals(320 * D, 5),
        key: both.key.subarray(0, 320 * D),
        value: both.value.subarray(0, 320 * D),
        dOutput: normals(320 * D, 6),
      };
      compareAttention(await runAttention(device, given), reference.attention(given), 2e-6);
    }
  });

  test('software: slices of dk and dv that do not fit one binding are fewer, or left to the base file', async ({
    skip,
  }) => {
    const device = await testDevice('normal');
    const given = fewRows(full);
    if (!use(device, 'software', given)) skip('not on this adapter');
    const count = (bytes: number) => {
      const limited = Object.create(device, { limits: { value: { maxStorageBufferBindingSize: bytes } } });
      return attentionWorkgroups(limited, given).backwardKeyValue;
    };
    const slice = 2 * 4 * given.key.length;
    expect([2 * slice, 2 * slice - 1, slice].map(count)).toEqual([4, 2, 2]);
    use(device, 'base-128', given);
    expect(count(slice - 1)).toBe(attentionWorkgroups(device, given).backwardKeyValue);
  });

  test('a stop on K alone leaves dv, and one on V alone dk, the same to the last bit', async () => {
    const device = await testDevice('normal');
    for (const variant of ['shipped', 'base-128']) {
      use(device, variant, fewRows());
      const open = await runAttention(device, fewRows(full));
      const stopped = { dKey: edge({ mask: 'full', stopKey: true }), dValue: edge({ mask: 'full', stopValue: true }) };
      for (const [guarded, other] of [
        ['dKey', 'dValue'],
        ['dValue', 'dKey'],
      ] as const) {
        const one = await runAttention(device, fewRows(stopped[guarded]));
        for (const name of ['output', 'dQuery', other] as const) expect(one[name]).toEqual(open[name]);
        expectZero(one[guarded].subarray(0, 300 * D), `${guarded} of the prefix of the first sample`);
      }
    }
  });

  test.each(['shipped', 'base-128'])(
    '%s: a scale multiplies dk and dv of its pairs, and leaves all else as it is',
    async (variant) => {
      const device = await testDevice('normal');
      use(device, variant, fewRows());
      const open = await runAttention(device, fewRows(full));
      const soft = await runAttention(device, fewRows(edge({ mask: 'full', keyGradient: 0.5, valueGradient: 0.25 })));
      for (const name of ['output', 'logSumExp', 'dQuery'] as const) expect(soft[name]).toEqual(open[name]);
      for (const [name, factor] of [
        ['dKey', 0.5],
        ['dValue', 0.25],
      ] as const)
        for (const sample of [0, 1]) {
          const ofSample = (all: Float32Array) => all.subarray(sample * 320 * D, (sample + 1) * 320 * D);
          // Powers of two are exact.
          const prefix = ofSample(open[name])
            .subarray(0, 300 * D)
            .map((value) => factor * value);
          expect(ofSample(soft[name]).slice(0, 300 * D)).toEqual(prefix);
          expect(ofSample(soft[name]).slice(300 * D)).toEqual(ofSample(open[name]).slice(300 * D));
        }
    },
  );

  const stopped = 'a stop-gradient leaves output, dq and what it does not guard the same to the last bit';
  test(stopped, () => checkStop(['shipped', 'base-128']));
  longTest(`${stopped}: base-256`, () => checkStop(['base-256']));

  async function checkStop(variants: string[]) {
    const device = await testDevice('normal');
    for (const variant of variants) {
      use(device, variant, fewRows());
      const open = await runAttention(device, fewRows(full));
      const stopped = await runAttention(device, fewRows(insulated));
      for (const name of ['output', 'logSumExp', 'dQuery'] as const) expect(stopped[name]).toEqual(open[name]);
      for (const name of ['dKey', 'dValue'] as const)
        for (const sample of [0, 1]) {
          const ofSample = (all: Float32Array) => all.subarray(sample * 320 * D, (sample + 1) * 320 * D);
          expectZero(ofSample(stopped[name]).subarray(0, 300 * D), `${name} of the prefix`);
          expect(ofSample(stopped[name]).slice(300 * D)).toEqual(ofSample(open[name]).slice(300 * D));
        }
    }
  }
});
