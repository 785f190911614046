import { describe, expect, test } from 'vitest';
import { backward, parameter, tensor } from '../../engine/index.ts';
import { add, gelu, relu, sigmoid, swish, tanh } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, runOnce, storageTolerance } from '../support/check-operation.ts';
import { describeOnAllDevices, testDevice } from '../support/devices.ts';
import { fixtureTolerance, readFixture } from '../support/fixtures.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';

const { activations } = reference;
const named = Object.entries({ gelu, swish, tanh, sigmoid, relu }).map(([name, run]) => ({
  ...{ name, run },
  exact: activations[name as keyof typeof activations],
}));

describeOnAllDevices('activation', (device) => {
  test.each(named)('$name agrees with float64, forward and backward', async ({ run, exact }) => {
    await checkOperation(await device(), {
      inputs: [{ shape: [9, 11], data: normals(99, 3, 3) }],
      run: ([x]) => run(x),
      oracle: ([x]) => x.map(exact),
      tolerance: { forward: 1e-6, backward: 1e-6 },
    });
  });

  test.each(named)('$name keeps its relative accuracy near zero', async ({ run, exact }) => {
    const opened = await device();
    const x = Float32Array.from([1e-6, -3e-5, 1e-3, -0.02, 0.2499, -0.2501, 0.26]);
    const y = await runOnce(opened, () => run(tensor(opened, x, [x.length])));
    x.forEach((value, i) => {
      expectClose([y[i]], [exact(value)], 1e-6, `at ${value}`);
    });
  });

  test.each(named)('$name and its gradient stay finite at huge arguments', async ({ run, exact }) => {
    const opened = await device();
    const x = parameter(opened, [-1e30, -1e10, -100, -44, 44, 100, 1e10, 1e30], [8]);
    const output = opened.step(() => {
      const y = run(x);
      backward(y, { gradient: tensor(opened, new Float32Array(8).fill(1), [8]) });
      return y;
    });
    const linear = exact(50) === 50;
    const bounds = [...(await x.read())].map((value) => (linear ? Math.max(value, 0) : value > 0 ? 1 : exact(value)));
    expectClose(await output.read(), bounds, 1e-6, 'output');
    expectClose(
      await x.grad!.read(),
      Array.from({ length: 8 }, (_, i) => (linear && i > 3 ? 1 : 0)),
      1e-6,
      'dX',
    );
    output.dispose();
    x.dispose();
  });

  test.each(['f16', 'bf16'] as const)('keeps %s storage', async (dtype) => {
    const opened = await device();
    const x = normals(30, 7);
    const y = await runOnce(opened, () => {
      const output = gelu(tensor(opened, x, [5, 6], { dtype }));
      expect(output.dtype).toBe(dtype);
      return output;
    });
    expectClose(y, x.map(activations.gelu), 2 * storageTolerance[dtype], dtype);
  });

  test('zero gradients in give zero gradients out', async () => {
    const opened = await device();
    const x = parameter(opened, normals(21, 4, 5), [21]);
    opened.step(() => {
      const y = named.map(({ run }) => run(x)).reduce(add);
      backward(y, { gradient: tensor(opened, new Float32Array(21), [21]) });
    });
    expectZero(await x.grad!.read(), 'dX');
    x.dispose();
  });
});

describe('activation operands', () => {
  test('integers are refused', async () => {
    const device = await testDevice('normal');
    const ids = tensor(device, [1, 2], [2], { dtype: 'u32' });
    expect(() => device.step(() => tanh(ids))).toThrow('tanh: x is u32 [2]; expected f32 or f16 or bf16');
  });
});

describe('activation golden', () => {
  test('operations-activations', async () => {
    const device = await testDevice('normal');
    const fixture = readFixture('operations-activations');
    const x = parameter(device, fixture.get('x').data as Float32Array, fixture.get('x').shape, { name: 'x' });
    const outputs = device.step(() =>
      Object.fromEntries(
        named.map(({ name, run }) => {
          const y = run(x);
          const dName = `d${name[0].toUpperCase()}${name.slice(1)}`;
          if (fixture.has(dName))
            backward(y, { gradient: tensor(device, fixture.get(dName).data as Float32Array, y.shape) });
          return [name, y];
        }),
      ),
    );
    for (const { name } of named) {
      const expected = fixture.get(`expected/${name}`).data;
      expectClose(await outputs[name].read(), expected, fixtureTolerance(fixture, name), name);
      outputs[name].dispose();
    }
    expectClose(await x.grad!.read(), fixture.get('expected/dX').data, fixtureTolerance(fixture, 'dX'), 'dX');
    x.dispose();
  });
});
