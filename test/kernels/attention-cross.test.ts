/** Cross-attention: blocks that have queries and no keys. */
import { afterEach, describe, expect, test } from 'vitest';
import { type Tensor, tensor } from '../../engine/index.ts';
import {
  add,
  attention,
  attentionCost,
  attentionEntries,
  attentionExpression,
  attentionTable,
  attentionVariants,
  causal,
  edge,
  full,
  insulated,
  linear,
  masks,
  multiply,
  reshape,
  rmsNorm,
  sequence,
  tanh,
  useAttentionVariants,
} from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { type AttentionCase, compareAttention, randomCase, runAttention } from '../support/attention-cases.ts';
import { checkOperation } from '../support/check-operation.ts';
import { describeOnDevices, fewerSizes, testDevice } from '../support/devices.ts';
import { longTest } from '../support/long.ts';
import { expectClose, expectZero, integers, normals } from '../support/numbers.ts';

describeOnDevices('attention over blocks without keys', (open, kind) => {
  // The base file compiles for seconds on a software adapter.
  const normalTest = kind === 'normal' ? test : longTest;

  test.each([[[0]], [[1]], [[0, 1]], [[0, 2]]])(
    'random tables against float64, without keys of blocks %j',
    async (withoutKeys) => {
      for (const [index, group] of [1, 3].entries()) {
        const given = randomCase(40 + index, 16, group, withoutKeys);
        expect(given.key.length).toBeLessThan(given.query.length / group);
        compareAttention(await runAttention(await open(), given), reference.attention(given), 2e-6);
      }
    },
  );

  test('a layout in which no block has keys: nothing is seen', async () => {
    const given = randomCase(3, 16, 2, [0, 1, 2, 3]);
    expect(given.key.length).toBe(0);
    compareAttention(await runAttention(await open(), given), reference.attention(given), 0);
  });

  // Short runs compare expressions beside blocks without keys in attention.test.ts.
  longTest('an expression with data for each token and sample', async () => {
    const layout = sequence({ text: 45, media: 40, tail: 9 }, { withoutKeys: ['text', 'tail'] });
    const table = attentionTable(layout, {
      text: { media: full },
      media: { media: causal },
      tail: { media: insulated },
    });
    const [batch, heads, kvHeads, headDimension] = [2, 2, 1, 16];
    const ids = integers(batch * layout.length, 3, 8);
    const size = (tokens: number, count: number) => batch * tokens * count * headDimension;
    const given = {
      ...{ table, batch, heads, kvHeads, headDimension },
      validity: integers(batch * layout.length, 9, 3).map((number) => Math.min(number, 1)) as unknown as Uint8Array,
      query: normals(size(layout.length, heads), 1),
      key: normals(size(layout.keyTokens, kvHeads), 2),
      value: normals(size(layout.keyTokens, kvHeads), 3),
      dOutput: normals(size(layout.length, heads), 4),
    };
    const device = await open();
    const expression = await attentionExpression(device, layout, {
      mask: 'queryData != keyData',
      score: 'score * (1.0 + 0.25 * f32(keyData))',
      derivative: '1.0 + 0.25 * f32(keyData)',
      tokenData: ids,
    });
    const at = (sample: number, token: number) => ids[sample * layout.length + token];
    const expected = reference.attention({
      ...given,
      allowed: (q, k, sample) => at(sample, q) !== at(sample, k),
      score: (score, _, k, __, sample) => score * (1 + 0.25 * at(sample, k)),
      derivative: (_, __, k, ___, sample) => 1 + 0.25 * at(sample, k),
    });
    compareAttention(await runAttention(device, { ...given, expression }), expected, 3e-6);
  });

  normalTest('gated cross-attention agrees with float64, forward and backward', async () => {
    // x + tanh(gate) W_o attention(W_q norm(x), W_k media, W_v media): Flamingo (Alayrac et al. 2022, arXiv
    // 2204.14198), where a text token sees the image before it, and none before the first.
    const [batch, text, images, rowsOfImage, width, mediaWidth, heads, D] = [2, 9, 2, 20, 12, 8, 2, 8];
    const media = images * rowsOfImage;
    const layout = sequence({ text, media }, { withoutKeys: ['text'] });
    const table = attentionTable(layout, { text: { media: full } });
    const imageBefore = [0, 0, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2];
    const ids = Array.from({ length: batch }, (_, sample) => [
      ...imageBefore.slice(sample * text, (sample + 1) * text),
      ...Array.from({ length: media }, (_, row) => 1 + Math.floor(row / rowsOfImage)),
    ]);
    const device = await open();
    const expression = await attentionExpression(device, layout, masks.documents(ids.flat()));
    const inner = heads * D;
    await checkOperation(device, {
      inputs: [
        { shape: [batch, text, width], name: 'x' },
        { shape: [batch, media, mediaWidth], name: 'media' },
        { shape: [width], name: 'gain' },
        { shape: [inner, width], name: 'query weight' },
        { shape: [inner, mediaWidth], name: 'key weight' },
        { shape: [inner, mediaWidth], name: 'value weight' },
        { shape: [width, inner], name: 'output weight' },
        { shape: [], name: 'gate' },
      ],
      run: ([x, seen, gain, wQuery, wKey, wValue, wOutput, gate]) => {
        const inHeads = (of: Tensor) => reshape(of, [...of.shape.slice(0, 2), heads, D]);
        const query = inHeads(linear(rmsNorm(x, gain, { gain: 'plain', epsilon: 1e-6 }), wQuery));
        const [key, value] = [wKey, wValue].map((weight) => inHeads(linear(seen, weight)));
        const attended = attention(query, key, value, { table, queries: ['text'], expression });
        const branch = linear(reshape(attended, [batch, text, inner]), wOutput);
        return add(x, multiply(branch, tanh(gate)));
      },
      oracle: ([x, seen, gain, wQuery, wKey, wValue, wOutput, gate]) => {
        const normed = reference.rmsNorm(x, gain, { gain: 'plain' });
        const { output } = reference.attention({
          ...{ table, batch, heads, kvHeads: heads, headDimension: D, queries: ['text'] },
          validity: new Uint8Array(batch * layout.length).fill(1),
          query: reference.linear(normed, wQuery, width),
          key: reference.linear(seen, wKey, mediaWidth),
          value: reference.linear(seen, wValue, mediaWidth),
          allowed: (q, k, sample) => ids[sample][q] === ids[sample][k],
        });
        const branch = reference.linear(output, wOutput, inner);
        return x.map((value, i) => value + Math.tanh(gate[0]) * branch[i]);
      },
      tolerance: { forward: 1e-6, backward: 5e-6 },
    });
  });
});

describe('cross-attention beside keys that nobody reads', () => {
  afterEach(async () => useAttentionVariants(await testDevice('normal'), []));

  const [batch, heads, kvHeads, headDimension] = [2, 4, 2, 16];
  const lengths = { media: 70, text: 45 };
  const rows = { media: { media: full }, text: { media: edge({ mask: 'full', keyGradient: 0.5 }) } };
  const crossed = attentionTable(sequence(lengths, { withoutKeys: ['text'] }), rows);
  const dummy = attentionTable(sequence(lengths), rows);
  const size = (tokens: number, count: number) => batch * tokens * count * headDimension;
  const validity = Uint8Array.from({ length: batch * 115 }, (_, i) => (i % 115 > 50 && i % 115 < 80 ? 0 : 1));
  const given = (table: typeof crossed): AttentionCase => {
    const { keyTokens } = table.layout;
    const key = normals(size(70, kvHeads), 2);
    const padded = (numbers: Float32Array) => {
      const own = new Float32Array(size(keyTokens, kvHeads)).fill(7);
      for (let sample = 0; sample < batch; sample++)
        own.set(
          numbers.subarray((sample * numbers.length) / batch, ((sample + 1) * numbers.length) / batch),
          (sample * own.length) / batch,
        );
      return own;
    };
    return {
      ...{ table, batch, heads, kvHeads, headDimension, validity },
      query: normals(size(115, heads), 1),
      key: padded(key),
      value: padded(normals(size(70, kvHeads), 3)),
      dOutput: normals(size(115, heads), 4),
    };
  };
  const ofMedia = (numbers: Float32Array) =>
    [0, 1].flatMap((sample) =>
      Array.from(numbers.subarray((sample * numbers.length) / 2)).slice(0, size(70, kvHeads) / 2),
    );

  const variants = ['software', 'base-128', 'base-256'];
  test.each(fewerSizes ? variants.slice(0, 1) : variants)('%s gives the same', async (variant) => {
    const device = await testDevice('normal');
    const choices = attentionEntries.map((entry) => ({ entry, dtype: 'f32', headDimension, variant }) as const);
    if (!choices.every((choice) => attentionVariants(device, choice).includes(variant))) return;
    useAttentionVariants(device, choices);
    const [actual, expected] = [await runAttention(device, given(crossed)), await runAttention(device, given(dummy))];
    for (const name of ['output', 'logSumExp', 'dQuery'] as const)
      expectClose(actual[name], expected[name], 1e-6, name);
    for (const name of ['dKey', 'dValue'] as const) {
      expect(actual[name].length).toBe(size(70, kvHeads));
      expectClose(actual[name], ofMedia(expected[name]), 1e-6, name);
    }
  });

  test('has the same live work, and does not read or write their rows', () => {
    const common = { batch, heads, kvHeads, headDimension, validity };
    const [actual, expected] = [crossed, dummy].map((table) => attentionCost({ ...common, table }));
    expect(actual.work).toEqual(expected.work);
    expect(actual.forward).toEqual(expected.forward);
    // dk and dv of the rows that are not there, in f32.
    expect(expected.backward.bytes - actual.backward.bytes).toBe(batch * 45 * kvHeads * headDimension * 8);
  });
});

describe('blocks without keys', () => {
  const layout = sequence({ text: 4, media: 6 }, { withoutKeys: ['text'] });

  test('are refused as keys, each in one line', async () => {
    expect(() => sequence({ text: 4 }, { withoutKeys: ['media'] })).toThrow(
      "sequence: withoutKeys names 'media'; the blocks are text",
    );
    for (const [query, cell] of [['media', full] as const, ['text', causal] as const])
      expect(() => attentionTable(layout, { [query]: { text: cell } })).toThrow(
        `attentionTable: '${query}' reads 'text', which has no keys`,
      );
    const device = await testDevice('normal');
    const make = (rows: number) => tensor(device, new Float32Array(rows * 16), [1, rows, 1, 16]);
    const table = attentionTable(layout, { text: { media: full } });
    expect(() => attention(make(10), make(10), make(10), { table })).toThrow(
      'attention: key has shape [1, 10, 1, 16]; expected [1, 6, *, 16]',
    );
  });

  test('validity covers their tokens too: queries of padding see nothing', async () => {
    const table = attentionTable(layout, { text: { media: full } });
    const numbers = { query: normals(160, 1), key: normals(96, 2), value: normals(96, 3), dOutput: normals(160, 4) };
    const given = { table, batch: 1, heads: 1, kvHeads: 1, headDimension: 16, ...numbers };
    const validity = Uint8Array.from([1, 0, 1, 1, 1, 1, 1, 1, 1, 0]);
    const actual = await runAttention(await testDevice('normal'), { ...given, validity });
    compareAttention(actual, reference.attention({ ...given, validity }), 2e-6);
    expectZero(actual.output.subarray(16, 32), 'a query of padding');
    expectZero(actual.dKey.subarray(80, 96), 'a key of padding');
  });
});
