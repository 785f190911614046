import { describe, expect, test } from 'vitest';
import { backward, parameter, tensor } from '../../engine/index.ts';
import { rmsNorm } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, storageTolerance } from '../support/check-operation.ts';
import { describeOnAllDevices, testDevice } from '../support/devices.ts';
import { fixtureTolerance, readFixture } from '../support/fixtures.ts';
import { expectClose, normals } from '../support/numbers.ts';

describeOnAllDevices('rmsNorm', (device) => {
  test.each([
    { rows: 3, width: 8 },
    { rows: 7, width: 67 },
    { rows: 19, width: 300 },
    { rows: 4, width: 2 },
    { rows: 150, width: 12 },
  ])('agrees with float64 at $rows x $width, forward and backward', async ({ rows, width }) => {
    await checkOperation(await device(), {
      inputs: [{ shape: [rows, width] }, { shape: [width] }],
      run: ([x, weight]) => rmsNorm(x, weight),
      oracle: ([x, weight]) => reference.rmsNorm(x, weight),
      tolerance: { forward: 1e-6, backward: 2e-6 },
    });
  });

  test.each([
    { rows: 7, width: 67 },
    { rows: 19, width: 300 },
    { rows: 3, width: 4100 },
  ])('agrees with float64 at $rows x $width with the plain gain', async ({ rows, width }) => {
    await checkOperation(await device(), {
      inputs: [{ shape: [rows, width] }, { shape: [width] }],
      run: ([x, weight]) => rmsNorm(x, weight, { gain: 'plain', epsilon: 0.5 }),
      oracle: ([x, weight]) => reference.rmsNorm(x, weight, { gain: 'plain', epsilon: 0.5 }),
      tolerance: { forward: 1e-6, backward: 2e-6 },
    });
  });

  test.each(['f16', 'bf16'] as const)('keeps %s storage', async (dtype) => {
    const opened = await device();
    const [rows, width] = [5, 24];
    const x = normals(rows * width, 5);
    const weight = normals(width, 6, 0.1);
    const output = opened.step(() =>
      rmsNorm(tensor(opened, x, [rows, width], { dtype }), tensor(opened, weight, [width], { dtype })),
    );
    expect(output.dtype).toBe(dtype);
    expectClose(await output.read(), reference.rmsNorm(x, weight), storageTolerance[dtype], dtype);
    output.dispose();
  });
});

describe('rmsNorm operands', () => {
  test('a weight of another width is named with both shapes', async () => {
    const device = await testDevice('normal');
    const x = tensor(device, new Float32Array(12), [3, 4]);
    const weight = tensor(device, new Float32Array(8), [8]);
    expect(() => device.step(() => rmsNorm(x, weight))).toThrow('rmsNorm: weight has shape [8]; expected [4]');
    expect(() => rmsNorm(x, x)).toThrow('rmsNorm: weight has shape [3, 4]; expected [4]');
  });
});

describe('rmsNorm golden', () => {
  test('operations-rms-norm', async () => {
    const device = await testDevice('normal');
    const fixture = readFixture('operations-rms-norm');
    const input = (name: string) =>
      parameter(device, fixture.get(name).data as Float32Array, fixture.get(name).shape, { name });
    const x = input('x');
    const weight = input('weight');
    const output = device.step(() => {
      const y = rmsNorm(x, weight);
      backward(y, { gradient: tensor(device, fixture.get('dOutput').data as Float32Array, y.shape) });
      return y;
    });
    const expected = (name: string) => fixture.get(`expected/${name}`).data;
    expectClose(await output.read(), expected('output'), fixtureTolerance(fixture, 'output'), 'output');
    expectClose(await x.grad!.read(), expected('dX'), fixtureTolerance(fixture, 'dX'), 'dX');
    expectClose(await weight.grad!.read(), expected('dWeight'), fixtureTolerance(fixture, 'dWeight'), 'dWeight');
  });
});
