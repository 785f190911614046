import { afterEach, describe, expect, test } from 'vitest';
import type { Device } from '../../engine/index.ts';
import {
  attentionEntries,
  attentionExpression,
  attentionTable,
  attentionVariants,
  attentionWorkgroups,
  causal,
  edge,
  full,
  insulated,
  masks,
  sequence,
  useAttentionVariants,
} from '../../kernels/index.ts';
import {
  type AttentionCase,
  compareAttention,
  randomCase,
  runAttention,
  shortNumbers,
} from '../support/attention-cases.ts';
import { attentionOracle } from '../support/attention-oracle.ts';
import { fewerSizes, testDevice } from '../support/devices.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';

/** In a browser, whose software adapter takes many seconds to compile a kernel, the first of them only. */
const names = (all: string[]) => (fewerSizes ? all.slice(0, 3) : all);
const results = ['output', 'logSumExp', 'dQuery', 'dKey', 'dValue'] as const;

/** Every kernel of the case that has this variant takes it; false where the adapter cannot run it. */
function use(device: Device, variant: string, { headDimension, dtype = 'f32' }: AttentionCase): boolean {
  const choices = attentionEntries
    .map((entry) => ({ entry, dtype, headDimension, variant }))
    .filter((choice) => attentionVariants(device, choice).includes(variant));
  useAttentionVariants(device, choices);
  return choices.length > 0;
}

afterEach(async () => useAttentionVariants(await testDevice('normal'), []));

describe('variants of attention', () => {
  test.for(names(['software', 'base-4', 'base-2', 'base-1', 'subgroups-4', 'subgroups-2', 'subgroups-1']))(
    '%s: float64, and the base file',
    async (variant, { skip }) => {
      const device = await testDevice('normal');
      for (const [seed, group] of [
        [31, 3],
        [32, 1],
      ]) {
        const given = randomCase(seed, 40, group);
        use(device, 'base-4', given);
        const base = await runAttention(device, given);
        if (!use(device, variant, given)) skip('not on this adapter');
        const actual = await runAttention(device, given);
        compareAttention(actual, attentionOracle(given), 2e-6);
        for (const name of results) expectClose(actual[name], base[name], 1e-6, name);
      }
    },
  );

  test.for(names(['f16-4', 'f16-2', 'f16-1']))(
    '%s: arithmetic in f16, near the base file',
    async (variant, { skip }) => {
      const device = await testDevice('normal');
      const given: AttentionCase = { ...shortNumbers(randomCase(33, 40, 2)), dtype: 'f16' };
      use(device, 'base-4', given);
      const base = await runAttention(device, given);
      if (!use(device, variant, given)) skip('not on this adapter');
      const actual = await runAttention(device, given);
      for (const name of results) expectClose(actual[name], base[name], 2 ** -9, name);
    },
  );

  test.each(['f16', 'bf16'] as const)('%s storage: the numbers of f32, the output rounded', async (dtype) => {
    const device = await testDevice('normal');
    const rounding = { f16: 2 ** -12, bf16: 2 ** -9 }[dtype];
    const given: AttentionCase = { ...shortNumbers(randomCase(34, 40, 2)), dtype };
    for (const variant of ['software', 'base-4']) {
      if (!use(device, variant, given)) continue;
      const actual = await runAttention(device, given);
      compareAttention(actual, attentionOracle(given), 4 * rounding); // delta is made of the rounded output
      expectClose(actual.output, attentionOracle(given).output, rounding, 'output');
    }
  });

  test('an unknown variant is refused with the names that there are', async () => {
    const device = await testDevice('floor');
    const choice = { entry: 'forward', dtype: 'f32', headDimension: 64, variant: 'f16-4' } as const;
    expect(() => useAttentionVariants(device, [choice])).toThrow(
      "useAttentionVariants: forward of f32, head dimension 64: no variant 'f16-4' on this device; it has base-4, base-2, base-1",
    );
  });
});

/** 20 action tokens read a prefix of 300 behind a stop-gradient: so few query tiles that workgroups share their lists. */
function fewRows(cell = insulated): AttentionCase {
  const layout = sequence({ prefix: 300, action: 20 });
  const [batch, heads, kvHeads, headDimension] = [2, 4, 1, 32];
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
  test.each(['software', 'base-4'])('%s: float64, and the same bits every run', async (variant) => {
    const device = await testDevice('normal');
    for (const dtype of ['f32', 'bf16'] as const) {
      const given: AttentionCase = { ...shortNumbers(fewRows(full)), dtype };
      if (!use(device, variant, given)) continue;
      const { forward } = attentionWorkgroups(device, given);
      if (variant === 'base-4') expect(forward).toBeGreaterThan(2 * 4); // tiles of one for each sample and head
      const first = await runAttention(device, given);
      compareAttention(first, attentionOracle(given), dtype === 'f32' ? 2e-6 : 2 ** -7);
      expect(await runAttention(device, given)).toEqual(first);
    }
  });

  test('three heads on one, a mask and a score of the user, packed storage', async () => {
    const device = await testDevice('normal');
    const base = fewRows(full);
    const source = masks.allOf(masks.dilated(3), masks.alibi(3));
    const expression = await attentionExpression(device, base.table.layout, source);
    const slope = (head: number) => source.constants![head];
    for (const dtype of ['f32', 'f16'] as const)
      for (const variant of ['software', 'base-4']) {
        const size = 2 * 20 * 3 * 32;
        const given: AttentionCase = {
          ...shortNumbers({ ...base, heads: 3, query: base.query.slice(0, size) }),
          dOutput: base.dOutput.slice(0, size),
          ...{ expression, dtype },
        };
        if (!use(device, variant, given)) continue;
        const expected = attentionOracle({
          ...given,
          allowed: (q, k) => Math.abs(q - k) % 3 === 0,
          score: (score, q, k, head) => score - slope(head) * Math.abs(q - k),
          derivative: () => 1,
        });
        compareAttention(await runAttention(device, given), expected, dtype === 'f32' ? 3e-6 : 2 ** -9);
      }
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
        query: normals(320 * 32, 5),
        key: both.key.subarray(0, 320 * 32),
        value: both.value.subarray(0, 320 * 32),
        dOutput: normals(320 * 32, 6),
      };
      compareAttention(await runAttention(device, given), attentionOracle(given), 2e-6);
    }
  });

  test('a stop on K alone leaves dv, and one on V alone dk, the same to the last bit', async () => {
    const device = await testDevice('normal');
    for (const variant of ['software', 'base-4']) {
      if (!use(device, variant, fewRows())) continue;
      const open = await runAttention(device, fewRows(full));
      const stopped = { dKey: edge({ mask: 'full', stopKey: true }), dValue: edge({ mask: 'full', stopValue: true }) };
      for (const [guarded, other] of [
        ['dKey', 'dValue'],
        ['dValue', 'dKey'],
      ] as const) {
        const one = await runAttention(device, fewRows(stopped[guarded]));
        for (const name of ['output', 'dQuery', other] as const) expect(one[name]).toEqual(open[name]);
        expectZero(one[guarded].subarray(0, 300 * 32), `${guarded} of the prefix of the first sample`);
      }
    }
  });

  test('a stop-gradient leaves output, dq and what it does not guard the same to the last bit', async () => {
    for (const variant of ['software', 'base-4', 'base-1']) {
      const device = await testDevice('normal');
      if (!use(device, variant, fewRows())) continue;
      const open = await runAttention(device, fewRows(full));
      const stopped = await runAttention(device, fewRows(insulated));
      for (const name of ['output', 'logSumExp', 'dQuery'] as const) expect(stopped[name]).toEqual(open[name]);
      for (const name of ['dKey', 'dValue'] as const)
        for (const sample of [0, 1]) {
          const ofSample = (all: Float32Array) => all.subarray(sample * 320 * 32, (sample + 1) * 320 * 32);
          expectZero(ofSample(stopped[name]).subarray(0, 300 * 32), `${name} of the prefix`);
          expect(ofSample(stopped[name]).slice(300 * 32)).toEqual(ofSample(open[name]).slice(300 * 32));
        }
    }
  });
});
