import { describe, expect, test } from 'vitest';
import { tensor } from '../../engine/index.ts';
import { softmax } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, runOnce } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';

describeOnDevices('softmax', (device) => {
  test.each([
    { rows: 3, width: 8 },
    { rows: 7, width: 67 },
    { rows: 19, width: 300 },
    { rows: 4, width: 1 },
    { rows: 2, width: 1031 },
  ])('agrees with float64 at $rows x $width, forward and backward', async ({ rows, width }) => {
    await checkOperation(await device(), {
      inputs: [{ shape: [rows, width] }],
      run: ([x]) => softmax(x),
      oracle: ([x]) => reference.softmax(x, width),
      tolerance: { forward: 1e-6, backward: 2e-6 },
    });
  });

  test.each([6, 8])('masked, huge and equal elements, rows of %i', async (width) => {
    const opened = await device();
    const rows = [
      [0, -1e30, 1, -1e30, -1e30, 2],
      [-1e30, -1e30, -1e30, -1e30, -1e30, -1e30],
      [1e30, -1e30, 3, 1e30, 0, 0],
      [-3e30, -3e30, -3e30, -1e30, -1e30, -3e30],
      [88, 89, 90, 91, 5000, 5001],
    ].map((row) => [...row, -1e30, -1e30].slice(0, width));
    const data = Float32Array.from(rows.flat());
    const actual = await runOnce(opened, () => softmax(tensor(opened, data, [rows.length, width])));
    const expected = reference.softmax(data, width);
    for (let i = 0; i < expected.length; i++)
      expect(Math.abs(actual[i] - expected[i]), `element ${i}`).toBeLessThan(1e-6);
  });
});

describe('softmax operands', () => {
  test('other storage and empty rows are named', async () => {
    const device = await testDevice('normal');
    const make = (shape: number[], dtype: 'f32' | 'bf16') =>
      tensor(device, new Float32Array(shape[0] * shape[1]), shape, { dtype });
    expect(() => softmax(make([2, 4], 'bf16'))).toThrow('softmax: x is bf16 [2, 4]; expected f32');
    expect(() => softmax(make([2, 0], 'f32'))).toThrow('softmax: x has shape [2, 0]; its last axis is empty');
  });
});
