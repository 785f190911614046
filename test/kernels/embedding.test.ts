import { describe, expect, test } from 'vitest';
import { backward, parameter, tensor, zeroGradients } from '../../engine/index.ts';
import { embedding } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, runOnce, storageTolerance } from '../support/check-operation.ts';
import { describeOnAllDevices, testDevice } from '../support/devices.ts';
import { fixtureTolerance, readFixture } from '../support/fixtures.ts';
import { expectClose, expectZero, integers, normals } from '../support/numbers.ts';

describeOnAllDevices('embedding', (device) => {
  test.each([
    { tokens: [3, 5], vocabulary: 4, width: 8, scale: 1 },
    { tokens: [2, 2, 35], vocabulary: 9, width: 10, scale: 2.5 },
    { tokens: [7], vocabulary: 50, width: 3, scale: 0.25 },
    { tokens: [2, 90], vocabulary: 150, width: 8, scale: 2.5, pieceRows: 64 },
  ])('agrees with float64: ids $tokens, table $vocabulary x $width', async (sizes) => {
    const { tokens, vocabulary, width, scale, pieceRows } = sizes;
    const opened = await device();
    const count = tokens.reduce((a, b) => a * b, 1);
    // Two ids beyond the table: their rows are zero and take no gradient.
    const ids = integers(count, vocabulary, 3);
    ids[1] = vocabulary;
    ids[count - 1] = 0xffffffff;
    await checkOperation(opened, {
      inputs: [{ shape: [vocabulary, width], name: 'table', pieceRows }],
      run: ([table]) => {
        expect(table.pieces).toHaveLength(pieceRows ? Math.ceil(vocabulary / pieceRows) : 1);
        const y = embedding(tensor(opened, ids, tokens, { dtype: 'u32' }), table, { scale });
        expect(y.shape).toEqual([...tokens, width]);
        return y;
      },
      oracle: ([table]) => reference.embedding(ids, table, width, scale),
      tolerance: { forward: 1e-7, backward: 5e-7 },
    });
  });

  test('a large table: rows that no id names have gradient zero, repeated ids give the same bits again', async () => {
    const opened = await device();
    const [vocabulary, width, count] = [4099, 64, 700];
    const ids = integers(count, 40, 5).map((id) => (id < 20 ? 7 : id * 100));
    const table = parameter(opened, normals(vocabulary * width, 6), [vocabulary, width]);
    const gradient = normals(count * width, 7);
    const run = async () => {
      opened.step(() => {
        zeroGradients([table]);
        const y = embedding(tensor(opened, ids, [count], { dtype: 'u32' }), table);
        backward(y, { gradient: tensor(opened, gradient, y.shape) });
      });
      return table.grad!.read();
    };
    const found = await run();
    const expected = new Float64Array(vocabulary * width);
    gradient.forEach((value, at) => {
      expected[ids[Math.floor(at / width)] * width + (at % width)] += value;
    });
    expectClose(found, expected, 1e-6, 'dTable');
    const named = new Set(ids);
    expectZero(
      found.filter((_, at) => !named.has(Math.floor(at / width))),
      'rows without an id',
    );
    expect(await run()).toEqual(found);
    table.dispose();
  });

  test.each(['f16', 'bf16'] as const)('keeps %s storage', async (dtype) => {
    const opened = await device();
    const ids = integers(11, 6, 2);
    const table = normals(6 * 12, 5);
    const y = await runOnce(opened, () =>
      embedding(tensor(opened, ids, [11], { dtype: 'u32' }), tensor(opened, table, [6, 12], { dtype })),
    );
    expectClose(y, reference.embedding(ids, table, 12), storageTolerance[dtype], dtype);
  });
});

describe('embedding operands', () => {
  test('wrong types and shapes are named', async () => {
    const device = await testDevice('normal');
    const table = tensor(device, new Float32Array(12), [3, 4]);
    const ids = tensor(device, [0, 1], [2], { dtype: 'u32' });
    expect(() => embedding(table, table)).toThrow('embedding: ids is f32 [3, 4]; expected u32');
    expect(() => embedding(ids, ids)).toThrow('embedding: table is u32 [2]; expected f32 or f16 or bf16');
    const flat = tensor(device, new Float32Array(12), [12]);
    expect(() => embedding(ids, flat)).toThrow('embedding: table has shape [12]; expected [*, *]');
    for (const made of [table, ids, flat]) made.dispose();
  });
});

describe('embedding golden', () => {
  test('operations-embedding', async () => {
    const device = await testDevice('normal');
    const fixture = readFixture('operations-embedding');
    const given = fixture.get('table');
    const ids = fixture.get('ids');
    const table = parameter(device, given.data as Float32Array, given.shape);
    const output = device.step(() => {
      const y = embedding(tensor(device, Uint32Array.from(ids.data), ids.shape, { dtype: 'u32' }), table, {
        scale: Math.sqrt(given.shape[1]),
      });
      backward(y, { gradient: tensor(device, fixture.get('dOutput').data as Float32Array, y.shape) });
      return y;
    });
    const expected = (name: string) => fixture.get(`expected/${name}`).data;
    expectClose(await output.read(), expected('output'), fixtureTolerance(fixture, 'output'), 'output');
    expectClose(await table.grad!.read(), expected('dTable'), fixtureTolerance(fixture, 'dTable'), 'dTable');
    output.dispose();
    table.dispose();
  });
});
