import { describe, expect, test } from 'vitest';
import { backward, ParameterSet, parameter, type Tensor, tensor, withoutTape, zeroTensor } from '../../engine/index.ts';
import { cast, gatedMlp } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, runOnce } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';
import { fixtureTolerance, readFixture } from '../support/fixtures.ts';
import { longTest } from '../support/long.ts';
import { eighths, expectClose, expectZero, normals } from '../support/numbers.ts';

describeOnDevices('gatedMlp', (device, kind) => {
  const inputsOf = (shape: number[], hidden: number) => {
    const width = shape[shape.length - 1];
    return [
      { shape, name: 'x' },
      { shape: [hidden, width], name: 'gate' },
      { shape: [hidden, width], name: 'up' },
      { shape: [width, hidden], name: 'down' },
    ];
  };

  test.each([
    { shape: [3, 8], hidden: 12 },
    { shape: [2, 3, 7], hidden: 5 },
    { shape: [2, 3, 1], hidden: 6 },
    { shape: [70, 8], hidden: 68 },
  ])('of $shape with $hidden hidden agrees with float64, forward and backward', async ({ shape, hidden }) => {
    const width = shape[shape.length - 1];
    await checkOperation(await device(), {
      inputs: inputsOf(shape, hidden),
      run: ([x, gate, up, down]) => gatedMlp(x, gate, up, down),
      oracle: (inputs) => reference.gatedMlp(inputs, width),
      tolerance: { forward: 1e-6, backward: 2e-6 },
    });
  });

  test.each([8, 5])('with swish and a residual, width %i', async (width) => {
    await checkOperation(await device(), {
      inputs: [...inputsOf([6, width], 12), { shape: [6, width], name: 'residual' }],
      run: ([x, gate, up, down, residual]) => gatedMlp(x, gate, up, down, { activation: 'swish', residual }),
      oracle: (inputs) => reference.gatedMlp(inputs, width, { activation: 'swish', residual: inputs[4] }),
      tolerance: { forward: 1e-6, backward: 2e-6 },
    });
  });

  const storages = [
    { ofX: 'f32', ofWeights: 'bf16', tolerance: { forward: 1e-6, backward: 2e-6 } },
    { ofX: 'f16', ofWeights: 'f16', tolerance: { forward: 2e-3, backward: 2e-3 } },
    { ofX: 'bf16', ofWeights: 'f32', tolerance: { forward: 1.2e-2, backward: 1.2e-2 } },
  ] as const;
  for (const storage of storages) {
    const title = `x in ${storage.ofX}, weights in ${storage.ofWeights}`;
    (kind === 'normal' || storage === storages[0] ? test : longTest)(title, () => checkStorage(storage));
  }

  async function checkStorage({ ofX, ofWeights, tolerance }: (typeof storages)[number]): Promise<void> {
    for (const [width, hidden] of [
      [8, 12],
      [6, 7],
    ])
      await checkOperation(await device(), {
        inputs: inputsOf([5, width], hidden).map((input, i) => ({
          ...input,
          data: eighths(
            input.shape.reduce((a, b) => a * b),
            i,
          ),
        })),
        run: ([x, ...weights]) => {
          const [gate, up, down] = weights.map((weight) => cast(weight, ofWeights));
          const output = gatedMlp(cast(x, ofX), gate, up, down);
          expect(output.dtype).toBe(ofX);
          return output;
        },
        oracle: (inputs) => reference.gatedMlp(inputs, width),
        tolerance,
      });
  }

  test('the same numbers without a tape, where nothing is kept', async () => {
    const opened = await device();
    const leaves = inputsOf([3, 8], 12).map(({ shape }, i) =>
      parameter(opened, normals(shape[0] * shape[1], i), shape),
    ) as [Tensor, Tensor, Tensor, Tensor];
    const taped = await runOnce(opened, () => gatedMlp(...leaves));
    expect(await runOnce(opened, () => withoutTape(opened, () => gatedMlp(...leaves)))).toEqual(taped);
    for (const leaf of leaves) leaf.dispose();
  });

  test.each(['gelu', 'swish'] as const)('huge arguments of %s give finite gradients', async (activation) => {
    const opened = await device();
    const eye = Float32Array.from({ length: 16 }, (_, i) => (i % 5 === 0 ? 1 : 0));
    const x = parameter(opened, [-1e10, -50, 50, 1e10], [1, 4]);
    const [gate, down] = [eye, eye].map((data) => tensor(opened, data, [4, 4]));
    const up = parameter(opened, new Float32Array(16), [4, 4]);
    opened.step(() =>
      backward(gatedMlp(x, gate, up, down, { activation }), { gradient: tensor(opened, [1, 1, 1, 1], [1, 4]) }),
    );
    expectZero(await x.grad!.read(), 'dX');
    // dUp[n, k] = activation(x[n]) x[k]
    const dUp = await up.grad!.read();
    expectClose(dUp.subarray(0, 8), new Float32Array(8), 1e-6, 'dUp of negative arguments');
    expectClose(dUp.subarray(8, 12), [-50e10, -2500, 2500, 50e10], 1e-6, 'dUp');
    for (const made of [x, gate, up, down]) made.dispose();
  });

  test('zero gradients in give zero gradients out', async () => {
    const opened = await device();
    const leaves = inputsOf([3, 8], 12).map(({ shape }, i) =>
      parameter(opened, normals(shape[0] * shape[1], i), shape),
    ) as [Tensor, Tensor, Tensor, Tensor];
    opened.step(() => backward(gatedMlp(...leaves), { gradient: zeroTensor(opened, [3, 8], 'f32', 'test') }));
    for (const leaf of leaves) {
      expectZero(await leaf.grad!.read(), 'gradient');
      leaf.dispose();
    }
  });

  test('weights that want no gradient get none, and the others the same as ever', async () => {
    const opened = await device();
    const shapes = inputsOf([5, 8], 12).map(({ shape }) => shape);
    const gradients = async (wanting: number[]) => {
      const leaves = shapes.map((shape, i) => {
        const data = normals(shape[0] * shape[1], i);
        return wanting.includes(i) ? parameter(opened, data, shape) : tensor(opened, data, shape);
      }) as [Tensor, Tensor, Tensor, Tensor];
      opened.step(() => backward(gatedMlp(...leaves), { gradient: tensor(opened, normals(40, 9), [5, 8]) }));
      const read = await Promise.all(leaves.map(({ grad }) => grad?.read() ?? null));
      for (const leaf of leaves) leaf.dispose();
      return read;
    };
    const all = await gradients([0, 1, 2, 3]);
    for (const wanting of [[0], [3], [1, 2]])
      expect(await gradients(wanting)).toEqual(all.map((gradient, i) => (wanting.includes(i) ? gradient : null)));
  });

  test('a gate and an up that follow each other have their gradients from one product, to the same numbers', async () => {
    const opened = await device();
    const x = normals(40, 3);
    const run = async (names: readonly string[]) => {
      using set = new ParameterSet(
        opened,
        names.map((name) => ({ name, shape: [16, 8], group: 'all' })),
      );
      const [gate, up] = [set.get('gate'), set.get('up')];
      gate.write(normals(128, 1));
      up.write(normals(128, 2));
      const { dispatches } = opened;
      opened.step(() => {
        const y = gatedMlp(tensor(opened, x, [5, 8]), gate, up, tensor(opened, normals(128, 4), [8, 16]));
        for (const seed of [5, 6]) backward(y, { gradient: tensor(opened, normals(40, seed), [5, 8]) });
      });
      const own = opened.dispatches - dispatches;
      return { read: await Promise.all([gate, up].map(({ grad }) => grad!.read())), dispatches: own };
    };
    const [adjacent, apart] = [await run(['gate', 'up']), await run(['gate', 'between', 'up'])];
    expect(adjacent.read).toEqual(apart.read);
    expect(apart.dispatches - adjacent.dispatches).toBe(2);
    // Both sides have 16 rows of 16 numbers, of which this limit leaves one number out.
    const { maxComputeWorkgroupsPerDimension } = opened.limits;
    const limits = { maxComputeWorkgroupsPerDimension, maxStorageBufferBindingSize: 2 * 16 * 16 * 4 - 4 };
    const descriptor = Object.getOwnPropertyDescriptor(opened, 'limits')!;
    Object.defineProperty(opened, 'limits', { value: limits, configurable: true });
    const limited = await run(['gate', 'up']).finally(() => Object.defineProperty(opened, 'limits', descriptor));
    expect(limited).toEqual(apart);
  });
});

describe('gatedMlp operands', () => {
  test('wrong operands are named', async () => {
    const device = await testDevice('normal');
    const zeros = (...shape: number[]) => tensor(device, new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const [x, gate, down] = [zeros(3, 8), zeros(12, 8), zeros(8, 12)];
    expect(() => device.step(() => gatedMlp(x, zeros(12, 4), gate, gate))).toThrow(
      'gatedMlp: gate has shape [12, 4]; expected [*, 8]',
    );
    expect(() => device.step(() => gatedMlp(x, gate, gate, gate))).toThrow(
      'gatedMlp: down has shape [12, 8]; expected [8, 12]',
    );
    const half = tensor(device, new Float32Array(96), [12, 8], { dtype: 'f16' });
    expect(() => device.step(() => gatedMlp(x, gate, half, down))).toThrow('gatedMlp: up is f16 [12, 8]; expected f32');
    expect(() => device.step(() => gatedMlp(x, gate, gate, down, { residual: gate }))).toThrow(
      'gatedMlp: residual has shape [12, 8]; expected [3, 8]',
    );
  });
});

describe('gatedMlp golden', () => {
  test('operations-gated-mlp', async () => {
    const device = await testDevice('normal');
    const fixture = readFixture('operations-gated-mlp');
    const names = ['x', 'gate', 'up', 'down'];
    const leaves = names.map((name) =>
      parameter(device, fixture.get(name).data as Float32Array, fixture.get(name).shape, { name }),
    ) as [Tensor, Tensor, Tensor, Tensor];
    const output = device.step(() => {
      const y = gatedMlp(...leaves);
      backward(y, { gradient: tensor(device, fixture.get('dOutput').data as Float32Array, y.shape) });
      return y;
    });
    const check = async (name: string, actual: Tensor) =>
      expectClose(await actual.read(), fixture.get(`expected/${name}`).data, fixtureTolerance(fixture, name), name);
    await check('output', output);
    for (const leaf of leaves) await check(`d${leaf.name[0].toUpperCase()}${leaf.name.slice(1)}`, leaf.grad!);
    output.dispose();
    for (const leaf of leaves) leaf.dispose();
  });
});
