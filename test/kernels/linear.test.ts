import { describe, expect, test } from 'vitest';
import { backward, parameter, tensor, withoutTape } from '../../engine/index.ts';
import { cast, gelu, linear, swish } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, runOnce } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';
import { fixtureTolerance, readFixture } from '../support/fixtures.ts';
import { eighths, expectClose, normals } from '../support/numbers.ts';

describeOnDevices('linear', (device) => {
  test.each([
    { leading: [7], inputs: 8, outputs: 12 },
    { leading: [2, 9], inputs: 35, outputs: 66 },
    { leading: [], inputs: 5, outputs: 3 },
    { leading: [300], inputs: 6, outputs: 4 },
  ])('agrees with float64: $leading x $inputs -> $outputs', async ({ leading, inputs, outputs }) => {
    const opened = await device();
    for (const bias of [[{ shape: [outputs] }], []])
      await checkOperation(opened, {
        inputs: [{ shape: [...leading, inputs] }, { shape: [outputs, inputs] }, ...bias],
        run: ([x, weight, bias]) => linear(x, weight, bias),
        oracle: ([x, weight, bias]) => reference.linear(x, weight, inputs, { bias }),
        tolerance: { forward: 5e-7, backward: 5e-7 },
      });
  });
});

describeOnDevices('linear with a weight in pieces of rows', (device) => {
  test.each([
    { leading: [3], outputs: 150, activation: undefined },
    { leading: [2, 2], outputs: 131, activation: 'gelu' },
  ] as const)(
    'agrees with float64: $leading x 8 -> $outputs, $activation',
    async ({ leading, outputs, activation }) => {
      await checkOperation(await device(), {
        inputs: [{ shape: [...leading, 8] }, { shape: [outputs, 8], pieceRows: 64 }],
        run: ([x, weight]) => {
          expect(weight.pieces).toHaveLength(3);
          return linear(x, weight, null, { activation });
        },
        oracle: ([x, weight]) => reference.linear(x, weight, 8, { activation }),
        tolerance: { forward: 1e-6, backward: 2e-6 },
      });
    },
  );
});

describeOnDevices('linear with an activation and a residual', (device) => {
  const sizes = [
    { rows: 7, inputs: 8, outputs: 12, activation: 'gelu', residual: true },
    { rows: 20, inputs: 6, outputs: 5, activation: 'gelu', residual: true },
    { rows: 3, inputs: 1024, outputs: 4, activation: 'swish', residual: true },
    { rows: 5, inputs: 8, outputs: 8, activation: 'swish', residual: false },
    { rows: 5, inputs: 8, outputs: 8, activation: undefined, residual: true },
  ] as const;

  test.each(sizes)(
    'agrees with float64: $rows x $inputs -> $outputs, $activation, residual $residual',
    async ({ rows, inputs, outputs, activation, residual }) => {
      await checkOperation(await device(), {
        inputs: [
          { shape: [rows, inputs] },
          { shape: [outputs, inputs], data: normals(outputs * inputs, 5, 1 / Math.sqrt(inputs)) },
          { shape: [outputs] },
          ...(residual ? [{ shape: [rows, outputs] }] : []),
        ],
        run: ([x, weight, bias, added]) => linear(x, weight, bias, { activation, residual: added }),
        oracle: ([x, weight, bias, added]) =>
          reference.linear(x, weight, inputs, { bias, activation, residual: added }),
        tolerance: { forward: 1e-6, backward: 2e-6 },
      });
    },
  );

  test('weights in bf16 with activations in f32: only the storage differs', async () => {
    await checkOperation(await device(), {
      inputs: [{ shape: [7, 8] }, { shape: [12, 8], data: eighths(96, 1) }, { shape: [12], data: eighths(12, 2) }],
      run: ([x, weight, bias]) => {
        const output = linear(x, cast(weight, 'bf16'), cast(bias, 'bf16'), { activation: 'gelu' });
        expect(output.dtype).toBe('f32');
        return output;
      },
      oracle: ([x, weight, bias]) => reference.linear(x, weight, 8, { bias, activation: 'gelu' }),
      tolerance: { forward: 1e-6, backward: 2e-6 },
    });
  });

  test.each(['f16', 'bf16'] as const)('in %s throughout', async (dtype) => {
    await checkOperation(await device(), {
      inputs: [[7, 8], [12, 8], [12], [7, 12]].map((shape, i) => ({
        shape,
        data: eighths(
          shape.reduce((a, b) => a * b),
          i,
        ),
      })),
      run: (inputs) => {
        const [x, weight, bias, residual] = inputs.map((input) => cast(input, dtype));
        return linear(x, weight, bias, { activation: 'swish', residual });
      },
      oracle: ([x, weight, bias, residual]) => reference.linear(x, weight, 8, { bias, activation: 'swish', residual }),
      tolerance: { forward: dtype === 'f16' ? 1e-3 : 6e-3, backward: dtype === 'f16' ? 2e-3 : 1.2e-2 },
    });
  });

  test('is the activation of linear, to the last bit, with a tape and without', async () => {
    const opened = await device();
    const [x, weight, bias] = [[9, 8], [12, 8], [12]].map((shape, i) =>
      parameter(
        opened,
        normals(
          shape.reduce((a, b) => a * b),
          i,
        ),
        shape,
      ),
    );
    for (const [name, apart] of Object.entries({ gelu, swish })) {
      const activation = name as 'gelu' | 'swish';
      const fused = await runOnce(opened, () => linear(x, weight, bias, { activation }));
      expect(fused).toEqual(await runOnce(opened, () => apart(linear(x, weight, bias))));
      expect(fused).toEqual(
        await runOnce(opened, () => withoutTape(opened, () => linear(x, weight, bias, { activation }))),
      );
    }
    for (const leaf of [x, weight, bias]) leaf.dispose();
  });
});

describe('linear operands', () => {
  test('a weight or bias of another size is named', async () => {
    const device = await testDevice('normal');
    const zeros = (...shape: number[]) => tensor(device, new Float32Array(shape.reduce((a, b) => a * b)), shape);
    const [x, weight] = [zeros(3, 4), zeros(8, 4)];
    expect(() => device.step(() => linear(x, zeros(4, 8)))).toThrow('linear: weight has shape [4, 8]; expected [*, 4]');
    expect(() => device.step(() => linear(x, weight, zeros(4)))).toThrow('linear: bias has shape [4]; expected [8]');
    expect(() => device.step(() => linear(tensor(device, [1], []), weight))).toThrow('linear: x is a scalar');
    expect(() => device.step(() => linear(x, weight, null, { residual: x }))).toThrow(
      'linear: residual has shape [3, 4]; expected [3, 8]',
    );
    expect(() => device.step(() => linear(x, weight, null, { residual: x, dtype: 'bf16' }))).toThrow(
      'linear: residual is f32 [3, 4]; expected bf16',
    );
  });
});

describe('linear golden', () => {
  test('operations-linear', async () => {
    const device = await testDevice('normal');
    const fixture = readFixture('operations-linear');
    const numbers = (name: string) => fixture.get(name).data as Float32Array;
    const leaves = ['x', 'weight', 'bias'].map((name) =>
      parameter(device, numbers(name), fixture.get(name).shape, { name }),
    );
    const output = device.step(() => {
      const y = linear(leaves[0], leaves[1], leaves[2]);
      backward(y, { gradient: tensor(device, numbers('dOutput'), y.shape) });
      return y;
    });
    const compare = (actual: Float32Array, name: string) =>
      expectClose(actual, numbers(`expected/${name}`), fixtureTolerance(fixture, name), name);
    compare(await output.read(), 'output');
    compare(await leaves[0].grad!.read(), 'dX');
    compare(await leaves[1].grad!.read(), 'dWeight');
    compare(await leaves[2].grad!.read(), 'dBias');
  });
});
