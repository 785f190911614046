import { describe, expect, test } from 'vitest';
import { tensor } from '../../engine/index.ts';
import { mean, sum, sumRows } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, runOnce } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';
import { expectClose, normals } from '../support/numbers.ts';

const { total } = reference;

describeOnDevices('reduce', (device) => {
  test.each([{ shape: [] }, { shape: [3] }, { shape: [2, 37] }, { shape: [3, 5, 4] }, { shape: [4, 2501] }])(
    'sum and mean of $shape agree with float64, forward and backward',
    async ({ shape }) => {
      const inputs = [{ shape, name: 'x' }];
      const tolerance = { forward: 1e-6, backward: 1e-7 };
      await checkOperation(await device(), {
        inputs,
        run: ([x]) => sum(x),
        oracle: ([x]) => Float64Array.of(total(x)),
        tolerance,
      });
      await checkOperation(await device(), {
        inputs,
        run: ([x]) => mean(x),
        oracle: ([x]) => Float64Array.of(total(x) / x.length),
        tolerance,
      });
    },
  );

  test.each([{ shape: [3, 8] }, { shape: [33, 5] }, { shape: [2, 300, 4] }, { shape: [7] }])(
    'sumRows of $shape agrees with float64, forward and backward',
    async ({ shape }) => {
      const width = shape[shape.length - 1];
      await checkOperation(await device(), {
        inputs: [{ shape, name: 'x' }],
        run: ([x]) => sumRows(x),
        oracle: ([x]) => reference.sumRows(x, width),
        tolerance: { forward: 1e-6, backward: 1e-7 },
      });
    },
  );

  test('a sum of several hundred thousand numbers is exact to 1e-6 and the same every time', async () => {
    const opened = await device();
    const x = normals(600_001, 5).map((value) => value + 1);
    const run = () => runOnce(opened, () => sum(tensor(opened, x, [x.length])));
    const first = await run();
    expectClose(first, [total(x)], 1e-6, 'sum');
    expect(await run()).toEqual(first);
  });

  test('what lies in the memory behind the last element does not enter the sum', async () => {
    const opened = await device();
    const result = await opened.step(async () => {
      const stale = tensor(opened, new Float32Array(64).fill(1e30), [64]);
      const { buffer } = stale;
      opened.currentStep('test').release(buffer);
      const x = tensor(opened, new Float32Array(37).fill(2), [37]);
      expect(x.buffer).toBe(buffer);
      return [sum(x), mean(x)].map((y) => y.read());
    });
    expect(await result[0]).toEqual(Float32Array.of(74));
    expect((await result[1])[0]).toBeCloseTo(2, 6);
  });

  test.each(['f16', 'bf16'] as const)('sums %s in f32', async (dtype) => {
    const opened = await device();
    const x = Float32Array.from({ length: 3001 }, (_, i) => (i % 7) - 3.5);
    const result = await runOnce(opened, () => sum(tensor(opened, x, [x.length], { dtype })));
    expect(result).toEqual(Float32Array.of(total(x)));
  });
});

describe('reduce operands', () => {
  test('wrong operands are named', async () => {
    const device = await testDevice('normal');
    const ids = tensor(device, [1, 2], [2], { dtype: 'u32' });
    const scalar = tensor(device, [1], []);
    const empty = tensor(device, [], [0, 3]);
    expect(() => device.step(() => sum(ids))).toThrow('sum: x is u32 [2]; expected f32 or f16 or bf16');
    expect(() => device.step(() => mean(empty))).toThrow('mean: x has shape [0, 3]; it has no elements');
    expect(() => device.step(() => sumRows(scalar))).toThrow('sumRows: x is a scalar');
    expect(await runOnce(device, () => sum(empty))).toEqual(Float32Array.of(0));
  });
});
