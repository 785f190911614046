import { describe, expect, test } from 'vitest';
import { backward, parameter, type Tensor, tensor } from '../../engine/index.ts';
import { add, multiply, scale, subtract } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, runOnce, storageTolerance } from '../support/check-operation.ts';
import { describeOnAllDevices, testDevice } from '../support/devices.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';

const operations: Record<string, [(a: Tensor, b: Tensor) => Tensor, (a: number, b: number) => number]> = {
  add: [add, (a, b) => a + b],
  subtract: [subtract, (a, b) => a - b],
  multiply: [multiply, (a, b) => a * b],
};
const shapes = [
  { a: [5, 7], b: [5, 7] },
  { a: [3, 4, 8], b: [8] },
  { a: [3, 4, 8], b: [4, 8] },
  { a: [2, 3, 7], b: [3, 7] },
  { a: [3, 2, 6], b: [2, 6] },
  { a: [2, 5], b: [] },
  { a: [1, 9], b: [9] },
  { a: [150, 12], b: [12] },
];
const cases = Object.entries(operations).flatMap(([name, functions]) =>
  shapes.map((shape) => ({ name, functions, ...shape })),
);

describeOnAllDevices('elementwise', (device) => {
  test.each(cases)('$name of $a and $b agrees with float64, forward and backward', async ({ functions, a, b }) => {
    const [run, exact] = functions;
    await checkOperation(await device(), {
      inputs: [
        { shape: a, name: 'a' },
        { shape: b, name: 'b' },
      ],
      run: ([first, second]) => run(first, second),
      oracle: ([first, second]) => reference.pairwise(first, second, exact),
      tolerance: { forward: 1e-7, backward: 1e-6 },
    });
  });

  test('scale agrees with float64, forward and backward', async () => {
    await checkOperation(await device(), {
      inputs: [{ shape: [3, 7] }],
      run: ([x]) => scale(x, -1.75),
      oracle: ([x]) => x.map((value) => -1.75 * value),
      tolerance: { forward: 1e-7, backward: 1e-7 },
    });
  });

  test('the same tensor twice collects both gradients', async () => {
    await checkOperation(await device(), {
      inputs: [{ shape: [13] }],
      run: ([x]) => subtract(multiply(x, x), add(x, x)),
      oracle: ([x]) => x.map((value) => value * value - 2 * value),
      tolerance: { forward: 2e-7, backward: 2e-7 },
    });
  });

  test.each(['f16', 'bf16'] as const)('keeps %s storage, with gradients in f32', async (dtype) => {
    const opened = await device();
    const [x, bias] = [normals(6 * 8, 1), normals(8, 2)];
    const result = await runOnce(opened, () => {
      const y = add(tensor(opened, x, [6, 8], { dtype }), tensor(opened, bias, [8], { dtype }));
      expect(y.dtype).toBe(dtype);
      return multiply(y, y);
    });
    const expected = x.map((value, i) => (value + bias[i % 8]) ** 2);
    expectClose(result, expected, 2 * storageTolerance[dtype], dtype);
  });

  test('zero gradients in give zero gradients out', async () => {
    const opened = await device();
    const a = parameter(opened, normals(40 * 6, 1), [40, 6]);
    const b = parameter(opened, normals(6, 2), [6]);
    opened.step(() => {
      const y = subtract(multiply(a, b), b);
      backward(y, { gradient: tensor(opened, new Float32Array(y.size), y.shape) });
    });
    expectZero(await a.grad!.read(), 'dA');
    expectZero(await b.grad!.read(), 'dB');
    a.dispose();
    b.dispose();
  });
});

describe('elementwise operands', () => {
  test('a second operand that is no trailing part is named with both shapes', async () => {
    const device = await testDevice('normal');
    const make = (shape: number[], dtype?: 'f16' | 'u32') =>
      tensor(device, new Float32Array(shape.reduce((x, y) => x * y, 1)), shape, { dtype });
    const [a, leading, longer, half] = [make([3, 4]), make([3]), make([2, 3, 4]), make([3, 4], 'f16')];
    expect(() => device.step(() => add(a, leading))).toThrow(
      'add: b has shape [3]; expected the shape [3, 4] of a or a trailing part of it',
    );
    expect(() => device.step(() => multiply(a, longer))).toThrow('multiply: b has shape [2, 3, 4]; expected the shape');
    expect(() => device.step(() => subtract(a, half))).toThrow('subtract: b is f16 [3, 4]; expected f32');
    expect(() => device.step(() => scale(make([4], 'u32'), 2))).toThrow(
      'scale: x is u32 [4]; expected f32 or f16 or bf16',
    );
    expect(() => device.step(() => add(make([2, 3], 'f16'), make([3], 'f16')))).toThrow(
      'add: b is f16 [3]; rows of 3, no multiple of four, are taken in f32 only: cast it',
    );
  });
});
