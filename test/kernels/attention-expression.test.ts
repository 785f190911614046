import { describe, expect, test } from 'vitest';
import { backward, type Device, parameter, tensor } from '../../engine/index.ts';
import { TILE, tilesOf } from '../../kernels/attention-tiles.ts';
import {
  attention,
  attentionExpression,
  attentionTable,
  attentionWithLogSumExp,
  causal,
  type ExpressionSource,
  edge,
  full,
  insulated,
  masks,
  type Sequence,
  sequence,
} from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { describeOnDevices, fewerSizes, testDevice } from '../support/devices.ts';
import { longTest } from '../support/long.ts';
import { expectClose, integers, normals } from '../support/numbers.ts';

const layout = sequence({ image: 37, one: 1, language: 20, action: 70 });
const tokens = layout.length;

interface Callbacks {
  source: ExpressionSource;
  /** The same in float64, written by hand. */
  allowed?: (q: number, k: number, sample: number) => boolean;
  score?: (score: number, q: number, k: number, head: number) => number;
  derivative?: (score: number, q: number, k: number, head: number) => number;
}

const ids = integers(2 * tokens, 5, 1);
const bias = normals(4 * 5, 2);
const biasOf = (q: number, k: number, head: number) => bias[head * 5 + Math.min(Math.max(k - q, -2), 2) + 2];
const slopes = [1 / 4, 1 / 16, 1 / 64, 1 / 256];
const capped = (cap: number) => (score: number) => cap * Math.tanh(score / cap);
const cappedSlope = (cap: number) => (score: number) => 1 / Math.cosh(score / cap) ** 2;

const cases: Record<string, Callbacks> = {
  causal: { source: masks.causal(), allowed: (q, k) => k <= q },
  'sliding window': { source: masks.slidingWindow(9), allowed: (q, k) => q - k >= 0 && q - k <= 8 },
  'prefix-LM': { source: masks.prefixLm(40), allowed: (q, k) => k < 40 || q >= k },
  documents: {
    source: masks.documents(ids.subarray(0, tokens)), // the same in both samples
    allowed: (q, k) => ids[q] === ids[k],
  },
  'block-diagonal': { source: masks.blockDiagonal(12), allowed: (q, k) => Math.floor(q / 12) === Math.floor(k / 12) },
  dilated: { source: masks.dilated(3), allowed: (q, k) => Math.abs(q - k) % 3 === 0 },
  'global tokens': { source: masks.globalTokens(2), allowed: (q, k) => Math.min(q, k) <= 1 },
  ALiBi: {
    source: masks.alibi(4),
    score: (score, q, k, head) => score - slopes[head] * Math.abs(q - k),
    derivative: () => 1,
  },
  'soft-cap': { source: masks.softCap(2), score: capped(2), derivative: cappedSlope(2) },
  'relative bias': {
    source: masks.relativeBias(bias, 2),
    score: (score, q, k, head) => score + biasOf(q, k, head),
    derivative: () => 1,
  },
  'global tokens and a window in documents': {
    source: masks.allOf(masks.anyOf(masks.globalTokens(3), masks.slidingWindow(20)), masks.documents(ids)),
    allowed: (q, k, sample) =>
      (Math.min(q, k) < 3 || (q >= k && q < k + 20)) && ids[sample * tokens + q] === ids[sample * tokens + k],
  },
  'capped, sloped, biased and capped again, causal': {
    source: masks.allOf(
      masks.softCap(3),
      masks.alibi(4),
      masks.causal(),
      masks.relativeBias(bias, 2),
      masks.softCap(5),
    ),
    allowed: (q, k) => k <= q,
    score: (score, q, k, head) => capped(5)(capped(3)(score) - slopes[head] * Math.abs(q - k) + biasOf(q, k, head)),
    derivative: (score, q, k, head) =>
      cappedSlope(5)(capped(3)(score) - slopes[head] * Math.abs(q - k) + biasOf(q, k, head)) * cappedSlope(3)(score),
  },
  'an own one, on several lines, not finite where its mask is false': {
    source: {
      mask: '// by parity\r\nk <= q && ((q + k) % 2 == 0 ||\n  keyData > 2u) // or by id',
      score: 'score * constant(0) * inverseSqrt(f32(q - k) + 1.0) // by distance,\n + score * score * constant(1)',
      derivative: 'constant(0) * inverseSqrt(f32(q - k) + 1.0)\n + 2.0 * score * constant(1) // and so on',
      tokenData: ids,
      constants: [2, 0.125],
    },
    allowed: (q, k, sample) => k <= q && ((q + k) % 2 === 0 || ids[sample * tokens + k] > 2),
    score: (score, q, k) => (2 * score) / Math.sqrt(q - k + 1) + score * score * 0.125,
    derivative: (score, q, k) => 2 / Math.sqrt(q - k + 1) + score * 0.25,
  },
};

function countPairs({ blocks }: Sequence, samples: number, allowed: NonNullable<Callbacks['allowed']>): number[] {
  const tiles = tilesOf(blocks).map(({ firstToken, rows }) => Array.from({ length: rows }, (_, i) => firstToken + i));
  return Array.from({ length: samples }, (_, sample) =>
    tiles.flatMap((queries) =>
      tiles.map((keys) => queries.reduce((sum, q) => sum + keys.filter((k) => allowed(q, k, sample)).length, 0)),
    ),
  ).flat();
}

describeOnDevices('attentionExpression', (device) => {
  test.each(Object.entries(cases))(
    '%s: pairs that each tile pair allows, and the derivative',
    async (_, { source, allowed }) => {
      const expression = await attentionExpression(await device(), layout, source);
      const samples = (source.tokenData?.length ?? tokens) / tokens;
      expect(expression.samples).toBe(samples);
      expect(expression.allowedPairs && [...expression.allowedPairs]).toEqual(
        allowed ? countPairs(layout, samples, allowed) : null,
      );
    },
  );
});

const [batch, heads, kvHeads, D] = [2, 4, 2, 16];
const problem = {
  table: attentionTable(layout, {
    image: { image: full, one: full, language: full },
    one: { image: edge({ mask: 'full', stopValue: true }) },
    language: { image: full, one: full, language: causal },
    action: { image: insulated, one: edge({ mask: 'full', stopKey: true }), language: full, action: full },
  }),
  ...{ batch, heads, kvHeads, headDimension: D },
  validity: integers(batch * tokens, 9, 3).map((number) => Math.min(number, 1)),
  query: normals(batch * tokens * heads * D, 4, 2),
  key: normals(batch * tokens * kvHeads * D, 5),
  value: normals(batch * tokens * kvHeads * D, 6),
  dOutput: normals(batch * tokens * heads * D, 7),
};

async function attend(device: Device, source: ExpressionSource) {
  const expression = await attentionExpression(device, layout, source);
  const operand = (name: 'query' | 'key' | 'value', count: number) =>
    parameter(device, problem[name], [batch, tokens, count, D], { name });
  const [query, key, value] = [operand('query', heads), operand('key', kvHeads), operand('value', kvHeads)];
  const { table, validity } = problem;
  const { output, logSumExp } = device.step(() => {
    const result = attentionWithLogSumExp(query, key, value, { table, validity, expression });
    backward(result.output, { gradient: tensor(device, problem.dOutput, result.output.shape) });
    return result;
  });
  const read = Object.entries({ output, logSumExp, dQuery: query.grad!, dKey: key.grad!, dValue: value.grad! });
  const results = Object.fromEntries(await Promise.all(read.map(async ([name, from]) => [name, await from.read()])));
  for (const owned of [output, logSumExp, query, key, value]) owned.dispose();
  return results as Record<'output' | 'logSumExp' | 'dQuery' | 'dKey' | 'dValue', Float32Array>;
}

/**
 * Every expression is other pipelines, which compile for seconds on a software adapter. The first is a mask of masks alone, the last has
 * data for each sample, constants and both callbacks; the floor device takes the last.
 */
const comparedCases = [
  'global tokens and a window in documents',
  'an own one, on several lines, not finite where its mask is false',
];

describeOnDevices('attention with an expression', (device, kind) => {
  for (const name of Object.keys(cases)) {
    const run = comparedCases.slice(kind === 'normal' && !fewerSizes ? 0 : -1).includes(name) ? test : longTest;
    run(`${name}: output and gradients against float64`, () => compare(name));
  }

  async function compare(name: string): Promise<void> {
    const { source, ...callbacks } = cases[name];
    const actual = await attend(await device(), source);
    const expected = reference.attention({ ...problem, ...callbacks });
    for (const result of ['output', 'dQuery', 'dKey', 'dValue'] as const)
      expectClose(actual[result], expected[result], 3e-6, result);
    const live = (numbers: ArrayLike<number>) => Array.from(numbers).filter((_, i) => expected.live[i]);
    expectClose(live(actual.logSumExp), live(expected.logSumExp), 3e-6, 'logSumExp');
  }
});

describe('attentionExpression', () => {
  test('only what differs is a parameter', async () => {
    const device = await testDevice('normal');
    const { parameters } = await attentionExpression(device, layout, masks.documents(ids));
    expect(Object.keys(parameters)).toEqual(['allowed', 'tokenData']);
    const scored = await attentionExpression(device, layout, masks.alibi(2));
    expect(Object.keys(scored.parameters)).toEqual(['score', 'scoreDerivative']);
  });

  test('a layout of 4,096 tokens', async () => {
    const long = sequence({ text: 4096 });
    const { allowedPairs } = await attentionExpression(await testDevice('normal'), long, masks.slidingWindow(256));
    const most = TILE * TILE;
    expect(allowedPairs!.reduce((sum, count) => sum + count, 0)).toBe((256 * 257) / 2 + (4096 - 256) * 256);
    expect(allowedPairs!.filter((count) => count === most).length).toBe(127 + 126 + 125 + 124 + 123 + 122 + 121);
  });
});

const wrong: [string, ExpressionSource, string][] = [
  ['an unknown name', { mask: 'k <= q &&\n // w\n w < 3' }, "mask, line 3: unresolved value 'w'"],
  [
    'a result of another type',
    { mask: 'q - k' },
    "mask, line 1: return statement type must match its function return type, returned 'i32', expected 'bool'",
  ],
  [
    'operands of other types',
    { mask: 'k <= q &&\nq < 1.5' },
    "mask, line 2: no matching overload for 'operator < (i32, abstract-float)'",
  ],
  [
    'an error in the score',
    { score: 'score +\n\nslope', derivative: '1.0' },
    "score, line 3: unresolved value 'slope'",
  ],
  ['an error in the derivative', { score: 'score', derivative: 'one' }, "derivative, line 1: unresolved value 'one'"],
  [
    'a call of itself',
    { mask: 'allowed(q, k, 0u, 0u)' },
    "mask, line 1: cyclic dependency found: 'allowed' -> 'allowed'",
  ],
  ['a bracket too few', { mask: '(k <= q\n&& true' }, "mask, line 2: '(' is not closed"],
  ['a bracket too many', { mask: 'true\n); } fn other() { return (' }, "mask, line 2: ')' closes nothing"],
  ['brackets that do not match', { score: 'max(score], 0.0)', derivative: '1.0' }, "score, line 1: ']' closes nothing"],
  ['statements', { mask: 'let a = k;\na <= q' }, "mask, line 1: ';': it is one expression of WGSL, without statements"],
  ['a line end hidden in a comment', { mask: 'true // \r; }' }, "mask, line 2: ';'"],
  ['a block comment', { mask: 'true /* always */' }, 'mask, line 1: a block comment; write // comments'],
  ['no text', { mask: ' // nothing\n' }, 'mask is empty'],
  ['nothing', { tokenData: ids }, 'neither a mask nor a score'],
  ['no derivative', { score: 'score' }, 'a score without its derivative'],
  ['no score', { mask: 'true', derivative: '1.0' }, 'a derivative without a score'],
  [
    'token data of a wrong length',
    { mask: 'true', tokenData: [1, 2] },
    `tokenData has 2 numbers; expected one a token, [${tokens}] or [batch, ${tokens}]`,
  ],
  [
    'token data that are not u32',
    { mask: 'true', tokenData: new Float32Array(tokens).fill(0.5) },
    'tokenData[0] is 0.5; expected a u32',
  ],
  [
    'constants that are not finite',
    { mask: 'true', constants: [1, 1e39] },
    'constants[1] is 1e+39; expected a finite f32',
  ],
  ['a wrong derivative', { score: 'score * score', derivative: 'score' }, 'derivative: '],
  [
    'a derivative that forgets a factor',
    { score: '3.0 * tanh(score / 3.0)', derivative: '1.0 - tanh(score / 3.0)' },
    'derivative: ',
  ],
  [
    'a derivative that is slightly wrong',
    { score: 'score - 0.5 * f32(q)', derivative: '1.05' },
    'derivative: 1.0499999523162842 at score ',
  ],
  [
    'a score full of jumps',
    { score: 'floor(score * 32.0) % 2.0', derivative: '0.0' },
    'score: its derivative can be compared at 0 of 256 points',
  ],
];

describe('attentionExpression on bad input', () => {
  const attempt = (device: Device, source: ExpressionSource) => attentionExpression(device, layout, source);

  test.each(wrong)('%s', async (_, source, message) => {
    const error = await attempt(await testDevice('normal'), source).then(
      () => null,
      (reason) => reason,
    );
    expect(error?.name).toBe('InputError');
    expect(error.message).toContain(`attentionExpression: ${message}`);
    expect(error.message).not.toContain('\n');
  });

  test('the device is as good as before, and a kink is no error', async () => {
    const device = await testDevice('normal');
    await expect(attempt(device, { mask: 'nothing' })).rejects.toThrow('unresolved');
    await attempt(device, { score: 'max(score, 0.0)', derivative: 'select(0.0, 1.0, score > 0.0)' });
    // At the lowest scores the terms cancel, and the derivative is near their rounding.
    await attempt(device, { score: '3.0 * tanh(score / 3.0) + 3.0', derivative: '1.0 / pow(cosh(score / 3.0), 2.0)' });
    await device.finish();
  });

  test('a layout without tokens', async () => {
    await expect(attentionExpression(await testDevice('normal'), sequence({}), masks.causal())).rejects.toThrow(
      'no tokens',
    );
  });

  test('masks that cannot be', () => {
    expect(() => masks.slidingWindow(0)).toThrow('slidingWindow: 0; expected an integer from 1');
    expect(() => masks.dilated(1.5)).toThrow('dilated: 1.5');
    expect(() => masks.softCap(0)).toThrow('softCap: cap is 0; expected a number above 0');
    expect(() => masks.relativeBias([1, 2], 1)).toThrow('relativeBias: 2 values; expected [heads, 3]');
    expect(() => masks.anyOf(masks.causal(), masks.alibi(2))).toThrow('anyOf: source 1 has no mask');
    expect(() => masks.allOf(masks.documents([1, 2]), masks.documents([1, 3]))).toThrow('different tokenData');
  });

  test('slopes of ALiBi, as in the paper', () => {
    expect(masks.alibi(8).constants).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((i) => 2 ** -i));
    expect(masks.alibi(6).constants).toEqual([2 ** -2, 2 ** -4, 2 ** -6, 2 ** -8, 2 ** -1, 2 ** -3]);
  });
});

describe('expressions and their numbers', () => {
  const layout = sequence({ text: 40 });
  const table = attentionTable(layout, { text: { text: full } });
  const operand = (device: Device, heads: number) =>
    parameter(device, normals(40 * heads * 16, heads), [1, 40, heads, 16], { name: `${heads} heads` });

  test('constants for fewer heads than the query has are refused', async () => {
    const device = await testDevice('normal');
    const expression = await attentionExpression(device, layout, masks.alibi(4));
    const [query, key] = [operand(device, 8), operand(device, 2)];
    expect(() => device.step(() => attention(query, key, key, { table, expression }))).toThrow(
      'attention: expression has constants for 4 heads; query has 8',
    );
    for (const leaf of [query, key]) leaf.dispose();
  });

  test('numbers are those of the registration', async () => {
    const device = await testDevice('normal');
    const ids = Uint32Array.from({ length: 40 }, (_, token) => Math.floor(token / 10));
    const expression = await attentionExpression(device, layout, masks.documents(ids));
    const [query, key] = [operand(device, 2), operand(device, 1)];
    const run = async (validity?: Uint8Array) => {
      using output = device.step(() => attention(query, key, key, { table, expression, validity }));
      return output.read();
    };
    const before = await run();
    ids.fill(0);
    expect(await run(new Uint8Array(40).fill(1))).toEqual(before);
    for (const leaf of [query, key]) leaf.dispose();
  });
});
