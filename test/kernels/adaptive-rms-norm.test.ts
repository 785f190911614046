import { describe, expect, test } from 'vitest';
import { backward, parameter, type Tensor, tensor } from '../../engine/index.ts';
import { adaptiveRmsNorm, gatedResidual, linear } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, runOnce, storageTolerance } from '../support/check-operation.ts';
import { describeOnAllDevices, testDevice } from '../support/devices.ts';
import { type Fixture, fixtureTolerance, readFixture } from '../support/fixtures.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';

const shapes = [
  { shape: [2, 3, 8], modulation: [2, 24] },
  { shape: [3, 5, 7], modulation: [3, 21] },
  { shape: [1, 70, 4], modulation: [1, 12] },
  { shape: [2, 3, 4], modulation: [2, 3, 12] },
  { shape: [1, 2, 300], modulation: [1, 900] },
];

describeOnAllDevices('adaptiveRmsNorm', (device) => {
  test.each(shapes)(
    'agrees with float64 at $shape by $modulation, forward and backward',
    async ({ shape, modulation }) => {
      await checkOperation(await device(), {
        inputs: [
          { shape, name: 'x' },
          { shape: modulation, name: 'modulation' },
        ],
        run: ([x, m]) => adaptiveRmsNorm(x, m),
        oracle: ([x, m]) => reference.adaptiveRmsNorm(x, m, shape[2]),
        tolerance: { forward: 1e-6, backward: 2e-6 },
      });
    },
  );

  test.each(shapes)(
    'gatedResidual agrees at $shape by $modulation, forward and backward',
    async ({ shape, modulation }) => {
      await checkOperation(await device(), {
        inputs: [
          { shape, name: 'x' },
          { shape, name: 'branch' },
          { shape: modulation, name: 'modulation' },
        ],
        run: ([x, branch, m]) => gatedResidual(x, branch, m),
        oracle: ([x, branch, m]) => reference.gatedResidual(x, branch, m, shape[2]),
        tolerance: { forward: 1e-6, backward: 1e-6 },
      });
    },
  );

  test('each op leaves the thirds of the modulation that it does not read without gradient', async () => {
    const opened = await device();
    const thirds = async (run: (x: Tensor, modulation: Tensor) => Tensor) => {
      const x = parameter(opened, normals(24, 1), [1, 3, 8]);
      const modulation = parameter(opened, normals(24, 2), [1, 24]);
      opened.step(() => {
        const y = run(x, modulation);
        backward(y, { gradient: tensor(opened, normals(24, 3), y.shape) });
      });
      const gradient = await modulation.grad!.read();
      x.dispose();
      modulation.dispose();
      return [0, 8, 16].map((start) => gradient.slice(start, start + 8).every((value) => value === 0));
    };
    expect(await thirds((x, m) => adaptiveRmsNorm(x, m))).toEqual([false, false, true]);
    expect(await thirds((x, m) => gatedResidual(x, x, m))).toEqual([true, true, false]);
  });

  test.each(['f16', 'bf16'] as const)('keeps %s storage', async (dtype) => {
    const opened = await device();
    const inputs = [normals(48, 5), normals(48, 6), normals(48, 7)];
    const onDevice = (i: number, shape: number[]) => tensor(opened, inputs[i], shape, { dtype });
    const y = await runOnce(opened, () => adaptiveRmsNorm(onDevice(0, [2, 3, 8]), onDevice(2, [2, 24])));
    expectClose(y, reference.adaptiveRmsNorm(inputs[0], inputs[2], 8), 2 * storageTolerance[dtype], dtype);
    const out = await runOnce(opened, () => {
      const result = gatedResidual(onDevice(0, [2, 3, 8]), onDevice(1, [2, 3, 8]), onDevice(2, [2, 24]));
      expect(result.dtype).toBe(dtype);
      return result;
    });
    expectClose(out, reference.gatedResidual(inputs[0], inputs[1], inputs[2], 8), 2 * storageTolerance[dtype], dtype);
  });

  test('zero gradients in give zero gradients out', async () => {
    const opened = await device();
    const leaves = [
      parameter(opened, normals(60, 1), [2, 6, 5]),
      parameter(opened, normals(60, 2), [2, 6, 5]),
      parameter(opened, normals(30, 3), [2, 15]),
    ];
    opened.step(() => {
      const [x, branch, modulation] = leaves;
      const y = gatedResidual(adaptiveRmsNorm(x, modulation), branch, modulation);
      backward(y, { gradient: tensor(opened, new Float32Array(60), y.shape) });
    });
    for (const leaf of leaves) {
      expectZero(await leaf.grad!.read(), `gradient of [${leaf.shape}]`);
      leaf.dispose();
    }
  });
});

describe('adaptiveRmsNorm operands', () => {
  test('wrong operands are named', async () => {
    const device = await testDevice('normal');
    const zeros = (...shape: number[]) => tensor(device, new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const x = zeros(2, 3, 4);
    expect(() => device.step(() => adaptiveRmsNorm(x, zeros(2, 8)))).toThrow(
      'adaptiveRmsNorm: modulation has shape [2, 8]; expected [2, 12] or [2, 3, 12] for x [2, 3, 4]',
    );
    expect(() => device.step(() => gatedResidual(x, zeros(2, 2, 4), zeros(2, 12)))).toThrow(
      'gatedResidual: branch has shape [2, 2, 4]; expected [2, 3, 4]',
    );
  });
});

describe('adaptiveRmsNorm golden', () => {
  /** Runs norm and residual of the case from `leaves`, both with their dOutput, and compares everything expected. */
  async function check(fixture: Fixture, names: string[], modulate: (leaves: Record<string, Tensor>) => Tensor) {
    const device = await testDevice('normal');
    const { epsilon } = fixture.settings;
    const leaves = Object.fromEntries(
      names.map((name) => {
        const { data, shape } = fixture.get(name);
        return [name, parameter(device, data as Float32Array, shape, { name })];
      }),
    );
    const outputs: Record<string, Tensor> = device.step(() => {
      const modulation = modulate(leaves);
      const output = adaptiveRmsNorm(leaves.x, modulation, { epsilon });
      const residual = gatedResidual(leaves.x, leaves.branch, modulation);
      const gradient = (name: string) => tensor(device, fixture.get(name).data as Float32Array, output.shape);
      backward(output, { gradient: gradient('dOutput') });
      backward(residual, { gradient: gradient('dResidual') });
      return { output, residual, ...(fixture.has('expected/modulation') && { modulation }) };
    });
    for (const name of names) outputs[`d${name[0].toUpperCase()}${name.slice(1)}`] = leaves[name].grad!;
    for (const [name, actual] of Object.entries(outputs))
      expectClose(await actual.read(), fixture.get(`expected/${name}`).data, fixtureTolerance(fixture, name), name);
    for (const made of Object.values({ ...outputs, ...leaves })) made.dispose();
  }

  test('operations-adaptive-modulation', async () => {
    const fixture = readFixture('operations-adaptive-modulation');
    await check(fixture, ['x', 'branch', 'modulation'], ({ modulation }) => modulation);
  });

  test('operations-adaptive-rms-norm', async () => {
    const fixture = readFixture('operations-adaptive-rms-norm');
    await check(fixture, ['x', 'branch', 'condition', 'weight', 'bias'], ({ condition, weight, bias }) =>
      linear(condition, weight, bias),
    );
  });
});
