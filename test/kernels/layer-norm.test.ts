import { describe, expect, test } from 'vitest';
import { backward, parameter, tensor } from '../../engine/index.ts';
import { layerNorm } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, runOnce, storageTolerance } from '../support/check-operation.ts';
import { describeOnAllDevices, testDevice } from '../support/devices.ts';
import { fixtureTolerance, readFixture } from '../support/fixtures.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';

describeOnAllDevices('layerNorm', (device) => {
  test.each([
    { rows: 3, width: 8 },
    { rows: 7, width: 67 },
    { rows: 5, width: 300 },
    { rows: 71, width: 6 },
    { rows: 4, width: 2 },
  ])('agrees with float64 at $rows x $width, forward and backward', async ({ rows, width }) => {
    await checkOperation(await device(), {
      inputs: [
        { shape: [rows, width], name: 'x' },
        { shape: [width], name: 'weight' },
        { shape: [width], name: 'bias' },
      ],
      run: ([x, weight, bias]) => layerNorm(x, weight, bias, { epsilon: 1e-3 }),
      oracle: ([x, weight, bias]) => reference.layerNorm(x, weight, bias, 1e-3),
      tolerance: { forward: 1e-6, backward: 3e-6 },
    });
  });

  test('stays accurate when the mean is ten thousand deviations', async () => {
    const [rows, width] = [6, 97];
    const x = normals(rows * width, 5).map((value) => value + 10_000);
    await checkOperation(await device(), {
      inputs: [
        { shape: [rows, width], data: x, name: 'x' },
        { shape: [width], name: 'weight' },
        { shape: [width], name: 'bias' },
      ],
      run: ([first, weight, bias]) => layerNorm(first, weight, bias),
      oracle: ([x, weight, bias]) => reference.layerNorm(x, weight, bias),
      tolerance: { forward: 1e-6, backward: 3e-6 },
    });
  });

  test.each(['f16', 'bf16'] as const)('keeps %s storage', async (dtype) => {
    const opened = await device();
    const inputs = [normals(5 * 24, 5), normals(24, 6), normals(24, 7)];
    const y = await runOnce(opened, () => {
      const [x, weight, bias] = inputs.map((data, i) => tensor(opened, data, i === 0 ? [5, 24] : [24], { dtype }));
      const output = layerNorm(x, weight, bias);
      expect(output.dtype).toBe(dtype);
      return output;
    });
    expectClose(y, reference.layerNorm(inputs[0], inputs[1], inputs[2]), 2 * storageTolerance[dtype], dtype);
  });

  test('zero gradients in give zero gradients out, constant rows included', async () => {
    const opened = await device();
    const leaves = [
      parameter(opened, new Float32Array(40 * 12).fill(3), [40, 12]),
      parameter(opened, normals(12, 2), [12]),
      parameter(opened, normals(12, 3), [12]),
    ];
    const output = opened.step(() => {
      const y = layerNorm(leaves[0], leaves[1], leaves[2]);
      backward(y, { gradient: tensor(opened, new Float32Array(y.size), y.shape) });
      return y;
    });
    const bias = await leaves[2].read();
    expect(await output.read()).toEqual(Float32Array.from({ length: 480 }, (_, i) => bias[i % 12]));
    for (const leaf of leaves) {
      expectZero(await leaf.grad!.read(), leaf.name);
      leaf.dispose();
    }
    output.dispose();
  });
});

describe('layerNorm operands', () => {
  test('a bias of another width is named with both shapes', async () => {
    const device = await testDevice('normal');
    const zeros = (...shape: number[]) => tensor(device, new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    expect(() => device.step(() => layerNorm(zeros(3, 4), zeros(4), zeros(8)))).toThrow(
      'layerNorm: bias has shape [8]; expected [4]',
    );
    const half = tensor(device, new Float32Array(6), [2, 3], { dtype: 'f16' });
    expect(() => device.step(() => layerNorm(zeros(2, 3), half, zeros(3)))).toThrow(
      'layerNorm: weight is f16 [2, 3]; expected f32',
    );
  });
});

describe('layerNorm golden', () => {
  test('operations-layer-norm', async () => {
    const device = await testDevice('normal');
    const fixture = readFixture('operations-layer-norm');
    const [x, weight, bias] = ['x', 'weight', 'bias'].map((name) =>
      parameter(device, fixture.get(name).data as Float32Array, fixture.get(name).shape, { name }),
    );
    const output = device.step(() => {
      const y = layerNorm(x, weight, bias, { epsilon: fixture.settings.epsilon });
      backward(y, { gradient: tensor(device, fixture.get('dOutput').data as Float32Array, y.shape) });
      return y;
    });
    const results = { output, dX: x.grad!, dWeight: weight.grad!, dBias: bias.grad! };
    for (const [name, actual] of Object.entries(results))
      expectClose(await actual.read(), fixture.get(`expected/${name}`).data, fixtureTolerance(fixture, name), name);
    for (const leaf of [output, x, weight, bias]) leaf.dispose();
  });
});
