import { expect, test } from 'vitest';
import { backward, ParameterSet, parameter, tensor, withoutTape } from '../../engine/index.ts';
import { cast, lowRank } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, runOnce } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';
import { eighths, normals } from '../support/numbers.ts';

const [X, WEIGHT, DOWN, UP] = ['x', 'weight', 'down', 'up'];

describeOnDevices('lowRank', (device) => {
  test.each([
    { leading: [2, 9], inputs: 35, outputs: 66, rank: 3, scale: 0.5, activation: undefined },
    { leading: [70], inputs: 6, outputs: 4, rank: 1, scale: 2, activation: 'swish' },
    { leading: [5], inputs: 8, outputs: 8, rank: 8, scale: 1, activation: 'gelu' },
  ] as const)(
    'agrees with float64: $leading x $inputs -> $outputs, rank $rank, scale $scale, activation $activation',
    async ({ leading, inputs, outputs, rank, scale, activation }) => {
      const opened = await device();
      for (const added of [true, false])
        await checkOperation(opened, {
          inputs: [
            { shape: [...leading, inputs], name: X },
            { shape: [outputs, inputs], name: WEIGHT },
            { shape: [rank, inputs], name: DOWN },
            { shape: [outputs, rank], name: UP },
            ...(added ? [{ shape: [outputs] }, { shape: [...leading, outputs] }] : []),
          ],
          run: ([x, weight, down, up, bias, residual]) =>
            lowRank(x, weight, { down, up, scale }, bias, { activation, residual }),
          oracle: ([x, weight, down, up, bias, residual]) =>
            reference.lowRank([x, weight, down, up], inputs, scale, { bias, residual, activation }),
          tolerance: { forward: 1e-6, backward: 2e-6 },
        });
    },
  );

  test.each([
    { ofX: 'f32', tolerance: { forward: 1e-6, backward: 2e-6 } },
    { ofX: 'bf16', tolerance: { forward: 6e-3, backward: 1.2e-2 } },
  ] as const)('a base in bf16 under thin matrices in f32, x in $ofX', async ({ ofX, tolerance }) => {
    await checkOperation(await device(), {
      inputs: [
        [7, 8],
        [12, 8],
        [4, 8],
        [12, 4],
        [7, 12],
      ].map(([rows, width], i) => ({
        shape: [rows, width],
        data: eighths(rows * width, i),
      })),
      run: ([x, weight, down, up, residual]) => {
        const added = { residual: cast(residual, ofX) };
        const output = lowRank(cast(x, ofX), cast(weight, 'bf16'), { down, up, scale: 0.5 }, null, added);
        expect(output.dtype).toBe(ofX);
        return output;
      },
      oracle: ([x, weight, down, up, residual]) => reference.lowRank([x, weight, down, up], 8, 0.5, { residual }),
      tolerance,
    });
  });
});

test.each([
  { activation: undefined, contribution: 4e-4 },
  { activation: undefined, contribution: 4e-3 },
  { activation: 'swish', contribution: 4e-3 },
] as const)('in bf16 a small product reaches the output: $contribution, activation $activation', async (given) => {
  const { activation, contribution } = given;
  const device = await testDevice('normal');
  const [rows, width, rank] = [512, 256, 4];
  const of = (seed: number, shape: readonly number[], scale: number) =>
    tensor(device, normals(shape[0] * shape[1], seed, scale), shape);
  const outputOf = (scale: number, dtype: 'f32' | 'bf16') =>
    runOnce(device, () => {
      const down = of(3, [rank, width], 1 / Math.sqrt(width));
      const up = of(4, [width, rank], 1 / Math.sqrt(rank));
      const x = cast(of(1, [rows, width], 1), 'bf16');
      const weight = cast(of(2, [width, width], 4 / Math.sqrt(width)), 'bf16');
      const residual = activation || dtype === 'f32' ? undefined : cast(of(5, [rows, width], 4), dtype);
      return cast(lowRank(x, weight, { down, up, scale }, null, { activation, residual, dtype }), 'f32');
    });
  const differences = async (dtype: 'f32' | 'bf16') => {
    const [own, without] = [await outputOf(contribution, dtype), await outputOf(0, dtype)];
    return own.map((value, i) => value - without[i]);
  };
  const [found, expected] = [await differences('bf16'), await differences('f32')];
  let [product, square] = [0, 0];
  for (const [i, own] of expected.entries()) {
    product += found[i] * own;
    square += own * own;
  }
  expect(Math.abs(product / square - 1)).toBeLessThan(0.1);
});

test('without a tape it gives the same numbers, and back what lies between', async () => {
  const device = await testDevice('normal');
  const leaves = [
    [9, 8],
    [12, 8],
    [4, 8],
    [12, 4],
  ].map((shape, i) => parameter(device, normals(shape[0] * shape[1], i), shape));
  const run = (activation?: 'gelu') => {
    const [x, weight, down, up] = leaves;
    return lowRank(x, weight, { down, up, scale: 0.5 }, null, { activation });
  };
  for (const activation of [undefined, 'gelu'] as const)
    expect(await runOnce(device, () => withoutTape(device, () => run(activation)))).toEqual(
      await runOnce(device, () => run(activation)),
    );
  for (const leaf of leaves) leaf.dispose();
});

test('a frozen matrix gets no gradient, and no product is made for one', async () => {
  const device = await testDevice('normal');
  const shapes = { [X]: [6, 8], [WEIGHT]: [12, 8], [DOWN]: [4, 8], [UP]: [12, 4] };
  const productsOf = (...frozen: string[]) => {
    using parameters = new ParameterSet(
      device,
      Object.entries(shapes).map(([name, shape]) => ({ name, shape, group: 'all', frozen: frozen.includes(name) })),
    );
    for (const own of parameters) own.write(normals(own.size, 1));
    const before = device.dispatches;
    device.step(() => {
      const [x, weight, down, up] = Object.keys(shapes).map((name) => parameters.get(name));
      const y = lowRank(x, weight, { down, up });
      backward(y, { gradient: tensor(device, normals(72, 2), y.shape) });
    });
    const { grad } = parameters.get(WEIGHT);
    return { products: device.dispatches - before, grad };
  };
  const [trained, frozen] = [productsOf(), productsOf(WEIGHT)];
  expect(trained.grad).not.toBeNull();
  expect(frozen.grad).toBeNull();
  expect(frozen.products).toBe(trained.products - 1);
  // Without a gradient for x, neither of its two products is made.
  expect(productsOf(X, WEIGHT).products).toBe(trained.products - 3);
});
