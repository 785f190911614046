import { describe, expect, test } from 'vitest';
import { backward, parameter, type Tensor, tensor, withoutTape } from '../../engine/index.ts';
import { gatedActivation, gatedMlp } from '../../kernels/index.ts';
import { checkOperation, runOnce, storageTolerance } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';
import { fixturesMissing, fixtureTolerance, haveFixtures, readFixture } from '../support/fixtures.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';

const gelu = (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** x [rows, inputs] times the transpose of weight [outputs, inputs]. */
function project(x: Float64Array, weight: Float64Array, inputs: number): Float64Array {
  const outputs = weight.length / inputs;
  return Float64Array.from({ length: (x.length / inputs) * outputs }, (_, at) => {
    const [row, column] = [Math.floor(at / outputs), at % outputs];
    let sum = 0;
    for (let i = 0; i < inputs; i++) sum += x[row * inputs + i] * weight[column * inputs + i];
    return sum;
  });
}

function mlp([x, gate, up, down]: Float64Array[], width: number): Float64Array {
  const lifted = project(x, up, width);
  const activated = project(x, gate, width).map((g, i) => gelu(g) * lifted[i]);
  return project(activated, down, down.length / width);
}

describeOnDevices('gatedMlp', (device) => {
  test.each([{ shape: [5, 8] }, { shape: [3, 7] }, { shape: [2, 3, 1] }])(
    'gatedActivation of $shape agrees with float64, forward and backward',
    async ({ shape }) => {
      const count = shape.reduce((a, b) => a * b, 1);
      await checkOperation(await device(), {
        inputs: [
          { shape, data: normals(count, 1, 2), name: 'gate' },
          { shape, name: 'up' },
        ],
        run: ([gate, up]) => gatedActivation(gate, up),
        oracle: ([gate, up]) => gate.map((g, i) => gelu(g) * up[i]),
        tolerance: { forward: 1e-6, backward: 1e-6 },
      });
    },
  );

  test.each([
    { shape: [3, 8], hidden: 12 },
    { shape: [2, 3, 7], hidden: 5 },
  ])('gatedMlp of $shape with $hidden hidden agrees with float64, forward and backward', async ({ shape, hidden }) => {
    const width = shape[shape.length - 1];
    await checkOperation(await device(), {
      inputs: [
        { shape, name: 'x' },
        { shape: [hidden, width], name: 'gate' },
        { shape: [hidden, width], name: 'up' },
        { shape: [width, hidden], name: 'down' },
      ],
      run: ([x, gate, up, down]) => gatedMlp(x, gate, up, down),
      oracle: (inputs) => mlp(inputs, width),
      tolerance: { forward: 1e-6, backward: 2e-6 },
    });
  });

  test('the same numbers without a tape, where what lies between is given back at once', async () => {
    const opened = await device();
    const leaves = [
      [3, 8],
      [12, 8],
      [12, 8],
      [8, 12],
    ].map((shape, i) => parameter(opened, normals(shape[0] * shape[1], i), shape)) as [Tensor, Tensor, Tensor, Tensor];
    const taped = await runOnce(opened, () => gatedMlp(...leaves));
    expect(await runOnce(opened, () => withoutTape(opened, () => gatedMlp(...leaves)))).toEqual(taped);
    for (const leaf of leaves) leaf.dispose();
  });

  test('huge arguments give finite gradients', async () => {
    const opened = await device();
    const gate = parameter(opened, [-1e20, -50, 50, 1e20], [4]);
    const up = parameter(opened, [1, 1, 1, 1], [4]);
    opened.step(() => backward(gatedActivation(gate, up), { gradient: tensor(opened, [1, 1, 1, 1], [4]) }));
    expectClose(await gate.grad!.read(), [0, 0, 1, 1], 1e-6, 'dGate');
    expectClose(await up.grad!.read(), [0, 0, 50, 1e20], 1e-6, 'dUp');
    gate.dispose();
    up.dispose();
  });

  test.each(['f16', 'bf16'] as const)('gatedActivation keeps %s storage', async (dtype) => {
    const opened = await device();
    const [g, u] = [normals(30, 7), normals(30, 8)];
    const y = await runOnce(opened, () => {
      const output = gatedActivation(tensor(opened, g, [5, 6], { dtype }), tensor(opened, u, [5, 6], { dtype }));
      expect(output.dtype).toBe(dtype);
      return output;
    });
    expectClose(
      y,
      g.map((value, i) => gelu(value) * u[i]),
      2 * storageTolerance[dtype],
      dtype,
    );
  });

  test('zero gradients in give zero gradients out', async () => {
    const opened = await device();
    const gate = parameter(opened, normals(9, 1), [9]);
    const up = parameter(opened, normals(9, 2), [9]);
    opened.step(() => backward(gatedActivation(gate, up), { gradient: tensor(opened, new Float32Array(9), [9]) }));
    expectZero(await gate.grad!.read(), 'dGate');
    expectZero(await up.grad!.read(), 'dUp');
    gate.dispose();
    up.dispose();
  });
});

describe('gatedMlp operands', () => {
  test('wrong operands are named', async () => {
    const device = await testDevice('normal');
    const zeros = (...shape: number[]) => tensor(device, new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const [x, gate] = [zeros(3, 8), zeros(12, 8)];
    expect(() => device.step(() => gatedMlp(x, zeros(12, 4), gate, gate))).toThrow(
      'gatedMlp: gate has shape [12, 4]; expected [*, 8]',
    );
    expect(() => device.step(() => gatedMlp(x, gate, gate, gate))).toThrow(
      'gatedMlp: down has shape [12, 8]; expected [8, 12]',
    );
    expect(() => device.step(() => gatedActivation(x, gate))).toThrow(
      'gatedActivation: up has shape [12, 8]; expected [3, 8]',
    );
  });
});

describe.skipIf(!haveFixtures)(`gatedMlp golden${fixturesMissing}`, () => {
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
