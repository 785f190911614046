import { describe, expect, test } from 'vitest';
import { backward, parameter, tensor } from '../../engine/index.ts';
import { linear } from '../../kernels/index.ts';
import { checkOperation } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';
import { fixturesMissing, fixtureTolerance, haveFixtures, readFixture } from '../support/fixtures.ts';
import { expectClose } from '../support/numbers.ts';

function oracle([x, weight, bias]: Float64Array[], inputs: number): Float64Array {
  const outputs = weight.length / inputs;
  const rows = x.length / inputs;
  const y = new Float64Array(rows * outputs);
  for (let row = 0; row < rows; row++)
    for (let n = 0; n < outputs; n++) {
      let sum = bias ? bias[n] : 0;
      for (let k = 0; k < inputs; k++) sum += x[row * inputs + k] * weight[n * inputs + k];
      y[row * outputs + n] = sum;
    }
  return y;
}

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
        oracle: (data) => oracle(data, inputs),
        tolerance: { forward: 5e-7, backward: 5e-7 },
      });
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
  });
});

describe.skipIf(!haveFixtures)(`linear golden${fixturesMissing}`, () => {
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
