import { describe, expect, test } from 'vitest';
import { tensor } from '../../engine/index.ts';
import {
  attentionExpression,
  attentionTable,
  attentionWithLogSumExp,
  causal,
  type Edge,
  edge,
  full,
  insulated,
  sequence,
} from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { compareAttention, randomCase, runAttention } from '../support/attention-cases.ts';
import { describeOnDevices, fewerSizes, testDevice } from '../support/devices.ts';
import { describeFixture, fixtureTolerance, readFixture } from '../support/fixtures.ts';
import { longTest } from '../support/long.ts';
import { expectClose, expectZero, integers, normals } from '../support/numbers.ts';

/** The base file compiles for seconds on a software adapter, once for every 32 elements of the head: the floor device takes fewer sizes. */
const headDimensions = [16, 32, 64, 72, 80, 128, 256];
const fewHeadDimensions = [16, 32, 232, 256];

describeOnDevices('attention', (device, kind) => {
  test.each(kind === 'floor' || fewerSizes ? fewHeadDimensions : headDimensions)(
    'random tables against float64, head dimension %i',
    async (headDimension) => {
      for (const [index, group] of [1, 3, 8].entries()) {
        const given = randomCase(headDimension * 10 + index, headDimension, group);
        compareAttention(await runAttention(await device(), given), reference.attention(given), 2e-6);
      }
    },
  );

  // Another expression is another set of pipelines, and the base file compiles for seconds on a software adapter.
  const expressionTest = kind === 'normal' ? test : longTest;

  expressionTest(
    'random tables, some with blocks without keys, beside an expression with data and constants',
    async () => {
      for (let seed = 0; seed < 12; seed++) {
        const given = randomCase(500 + seed, 16, 1 + (seed % 3), seed % 2 === 0 ? [] : [seed]);
        const { layout } = given.table;
        const data = integers(given.batch * layout.length, 4, seed);
        const dataOf = (token: number, sample: number) => data[sample * layout.length + token];
        const slopes = normals(given.heads, seed, 0.1);
        const factor = (q: number, sample: number) => 0.5 + 0.25 * dataOf(q, sample);
        const expression = await attentionExpression(await device(), layout, {
          mask: 'queryData <= keyData + 1u && k % 7 != 3',
          score: 'score * (0.5 + 0.25 * f32(queryData)) - constant(head) * f32(abs(q - k))',
          derivative: '0.5 + 0.25 * f32(queryData)',
          tokenData: data,
          constants: slopes,
        });
        const expected = reference.attention({
          ...given,
          allowed: (q, k, sample) => dataOf(q, sample) <= dataOf(k, sample) + 1 && k % 7 !== 3,
          score: (score, q, k, head, sample) => score * factor(q, sample) - slopes[head] * Math.abs(q - k),
          derivative: (_score, q, _k, _head, sample) => factor(q, sample),
        });
        const actual = await runAttention(await device(), { ...given, expression });
        compareAttention(actual, expected, 2e-6);
        for (const name of ['output', 'dQuery', 'dKey', 'dValue'] as const) {
          const zeros = Array.from(actual[name]).filter((_, i) => expected[name][i] === 0);
          expectZero(zeros, `${name} of table ${seed}, where it is exactly zero`);
        }
      }
    },
  );

  test('scores in the hundreds', async () => {
    const given = { ...randomCase(91, 32, 2), scale: 8 };
    const expected = reference.attention(given);
    expect(Math.max(...expected.logSumExp)).toBeGreaterThan(100);
    compareAttention(await runAttention(await device(), given), expected, 5e-5);
  });

  test('rows of some blocks only, and a loss on some of them', async () => {
    const layout = sequence({ prefix: 37, suffix: 20, tail: 9 });
    const table = attentionTable(layout, {
      prefix: { prefix: full },
      suffix: { prefix: full, suffix: causal },
      tail: { prefix: insulated, suffix: full, tail: full },
    });
    const base = { table, batch: 2, heads: 2, kvHeads: 1, headDimension: 16, validity: new Uint8Array(132).fill(1) };
    const numbers = {
      query: normals(2 * 29 * 32, 1),
      key: normals(66 * 32, 2),
      value: normals(66 * 32, 3),
      dOutput: normals(2 * 29 * 32, 4),
    };
    const given = { ...base, ...numbers, queries: ['suffix', 'tail'], lossBlocks: ['tail'] };
    const expected = reference.attention(given);
    const actual = await runAttention(await device(), given);
    compareAttention(actual, expected, 2e-6);
    expectZero(actual.dKey.subarray(0, 37 * 16), 'dKey of the prefix, read by the tail behind a stop-gradient only');
  });
});

describe('attention on any kernel file', () => {
  test('the file that suits the device gives what the base file gives', async () => {
    const cases = [
      [16, 16, 4],
      [7, 232, 2],
    ];
    for (const [seed, headDimension, group] of fewerSizes ? cases.slice(0, 1) : cases) {
      const given = randomCase(seed, headDimension, group);
      const suited = await runAttention(await testDevice('normal'), given);
      const base = await runAttention(await testDevice('floor'), given);
      for (const name of ['output', 'logSumExp', 'dQuery', 'dKey', 'dValue'] as const)
        expectClose(suited[name], base[name], 1e-6, name);
    }
  });
});

describe('attention and stop-gradient', () => {
  test('a stop changes only the gradients of the keys and values that it guards, bit by bit', async () => {
    const device = await testDevice('normal');
    const layout = sequence({ image: 40, language: 11, fast: 13, action: 35 });
    const rows = (cell: Edge) =>
      attentionTable(layout, {
        image: { image: full, language: full },
        language: { image: full, language: full },
        fast: { image: full, language: full, fast: causal },
        action: { image: cell, action: full },
      });
    const given = {
      ...randomCase(5, 32, 2),
      validity: new Uint8Array(198).fill(1),
      heads: 2,
      kvHeads: 1,
      table: rows(full),
    };
    const size = 2 * 99 * 32;
    Object.assign(given, {
      query: normals(2 * size, 1),
      key: normals(size, 2),
      value: normals(size, 3),
      dOutput: normals(2 * size, 4),
    });
    const open = await runAttention(device, given);
    const stopped = await runAttention(device, { ...given, table: rows(insulated) });
    expect(stopped.output).toEqual(open.output);
    expect(stopped.dQuery).toEqual(open.dQuery);
    const afterImage = (numbers: Float32Array) => [numbers.slice(40 * 32, 99 * 32), numbers.slice((99 + 40) * 32)];
    expect(afterImage(stopped.dKey)).toEqual(afterImage(open.dKey));
    expect(afterImage(stopped.dValue)).toEqual(afterImage(open.dValue));
    expect(stopped.dKey.slice(0, 40 * 32)).not.toEqual(open.dKey.slice(0, 40 * 32));
  });

  test('operands that do not fit are named with both shapes', async () => {
    const device = await testDevice('normal');
    const table = attentionTable(sequence({ a: 4 }), { a: { a: full } });
    const make = (shape: number[]) => tensor(device, new Float32Array(shape.reduce((x, y) => x * y, 1)), shape);
    const [q, k] = [make([1, 4, 2, 16]), make([1, 5, 1, 16])];
    expect(() => attentionWithLogSumExp(q, k, k, { table })).toThrow(
      'attention: key has shape [1, 5, 1, 16]; expected [1, 4, *, 16]',
    );
    const wide = make([1, 4, 2, 18]);
    expect(() => attentionWithLogSumExp(wide, wide, wide, { table })).toThrow('head dimension 18');
    expect(() => attentionTable(sequence({ a: 4, b: 2 }), { a: { b: causal } })).toThrow(
      "'a' reads 'b' by a causal edge",
    );
    expect(() => attentionTable(sequence({ a: 4 }), { a: { c: full } })).toThrow("no block 'c'");
  });
});

const cases = [
  'causal-d64',
  'prefix-d16',
  'ki-d64',
  'ki-d256',
  'interleaved-d80',
  'parallel-d16',
  'dead-rows-d64',
  'window-d64',
  'hybrid-d80',
  'soft-d64',
  'soft-sides-d72',
];

describe('attention golden', () => {
  for (const name of cases) describeFixture(`attention-${name}`, () => testCase(name));
});

function testCase(name: string): void {
  test('output, logSumExp and gradients', async () => {
    const fixture = readFixture(`attention-${name}`);
    const { settings } = fixture;
    const layout = sequence(
      settings.blocks.map((block: { name: string; length: number }) => [block.name, block.length]),
    );
    const rows: Record<string, Record<string, Edge>> = {};
    for (const { query, key, mask, stopGradient, keyGradient, valueGradient } of settings.edges) {
      const window = mask === 'causal' ? (settings.window ?? undefined) : undefined;
      rows[query] ??= {};
      rows[query][key] = edge({
        ...{ mask, window, stopKey: stopGradient, stopValue: stopGradient },
        ...{ keyGradient, valueGradient },
      });
    }
    const data = (key: string) => fixture.get(key).data;
    const actual = await runAttention(await testDevice('normal'), {
      table: attentionTable(layout, rows),
      batch: settings.batch,
      heads: settings.heads,
      kvHeads: settings.kvHeads,
      headDimension: settings.headDim,
      scale: settings.scale,
      validity: data('validity') as Uint8Array,
      query: data('query') as Float32Array,
      key: data('key') as Float32Array,
      value: data('value') as Float32Array,
      dOutput: data('dOutput') as Float32Array,
    });
    for (const result of ['output', 'dQuery', 'dKey', 'dValue'] as const) {
      expectClose(actual[result], data(result), fixtureTolerance(fixture, result), result);
      const exactZeros = Array.from(actual[result]).filter((_, i) => data(result)[i] === 0);
      expectZero(exactZeros, `${result} where it is exactly zero`);
    }
    const live = data('live');
    const seen = (numbers: ArrayLike<number>) =>
      Array.from(numbers).filter((_, i) => {
        const sample = Math.floor(i / (settings.heads * settings.tokens));
        return live[sample * settings.tokens + (i % settings.tokens)];
      });
    expectClose(seen(actual.logSumExp), seen(data('logSumExp')), fixtureTolerance(fixture, 'logSumExp'), 'logSumExp');
  });
}
