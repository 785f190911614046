import { describe, expect, test } from 'vitest';
import { backward, parameter, type Tensor, tensor } from '../../engine/index.ts';
import { rotary, rotaryTable } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, runOnce, storageTolerance } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';
import { fixtureTolerance, readFixture } from '../support/fixtures.ts';
import { expectClose, expectZero, integers, normals } from '../support/numbers.ts';

/** x [tokens, heads, dimension], turned by the angles of the positions. */
function turned(
  x: ArrayLike<number>,
  positions: ArrayLike<number>,
  heads: number,
  dimension: number,
  layout?: 'halves' | 'pairs',
): Float64Array {
  const table = Array.from(positions, (position) =>
    Array.from({ length: dimension / 2 }, (_, i) => position / 10_000 ** ((2 * i) / dimension)),
  ).flatMap((angles) => angles.flatMap((angle) => [Math.cos(angle), Math.sin(angle)]));
  return reference.rotary(x, table, heads, dimension, layout);
}

describeOnDevices('rotary', (device) => {
  test.each([
    { batch: 2, length: 5, heads: 3, dimension: 16 },
    { batch: 1, length: 7, heads: 1, dimension: 80 },
    { batch: 3, length: 3, heads: 2, dimension: 12 },
    { batch: 1, length: 2, heads: 2, dimension: 6 },
  ])('agrees with float64 at $batch x $length x $heads x $dimension', async ({ batch, length, heads, dimension }) => {
    const opened = await device();
    const positions = integers(batch * length, 3000, 9);
    const table = tensor(opened, rotaryTable(positions, dimension), [batch, length, dimension / 2, 2]);
    await checkOperation(opened, {
      inputs: [{ shape: [batch, length, heads, dimension], name: 'x' }],
      run: ([x]) => rotary(x, table),
      oracle: ([x]) => turned(x, positions, heads, dimension),
      tolerance: { forward: 2e-7, backward: 2e-7 },
    });
    table.dispose();
  });

  test.each([16, 12, 6])('rotates neighbours in the layout of pairs, head dimension %i', async (dimension) => {
    const opened = await device();
    const positions = integers(10, 3000, 4);
    const table = tensor(opened, rotaryTable(positions, dimension), [2, 5, dimension / 2, 2]);
    await checkOperation(opened, {
      inputs: [{ shape: [2, 5, 3, dimension], name: 'x' }],
      run: ([x]) => rotary(x, table, { layout: 'pairs' }),
      oracle: ([x]) => turned(x, positions, 3, dimension, 'pairs'),
      tolerance: { forward: 2e-7, backward: 2e-7 },
    });
    table.dispose();
  });

  test.each([
    ['f16', 'halves'],
    ['bf16', 'halves'],
    ['bf16', 'pairs'],
  ] as const)('keeps %s storage in %s', async (dtype, layout) => {
    const opened = await device();
    const shape = [1, 4, 2, 32];
    const x = normals(256, 3);
    const positions = [0, 1, 2, 700];
    const y = await runOnce(opened, () => {
      const table = tensor(opened, rotaryTable(positions, 32), [1, 4, 16, 2]);
      const output = rotary(tensor(opened, x, shape, { dtype }), table, { layout });
      expect(output.dtype).toBe(dtype);
      return output;
    });
    expectClose(y, turned(x, positions, 2, 32, layout), storageTolerance[dtype], dtype);
  });

  test('zero gradients in give zero gradients out', async () => {
    const opened = await device();
    const x = parameter(opened, normals(32, 1), [1, 2, 1, 16]);
    opened.step(() => {
      const y = rotary(x, tensor(opened, rotaryTable([5, 6], 16), [1, 2, 8, 2]));
      backward(y, { gradient: tensor(opened, new Float32Array(32), y.shape) });
    });
    expectZero(await x.grad!.read(), 'dX');
    x.dispose();
  });
});

describe('rotary operands', () => {
  test('wrong operands are named', async () => {
    const device = await testDevice('normal');
    const zeros = (...shape: number[]): Tensor =>
      tensor(device, new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const inStep = (x: Tensor, table: Tensor) => () => device.step(() => rotary(x, table));
    expect(inStep(zeros(2, 3, 1, 8), zeros(2, 3, 8, 2))).toThrow(
      'rotary: table has shape [2, 3, 8, 2]; expected [2, 3, 4, 2]',
    );
    expect(inStep(zeros(3, 1, 8), zeros(3, 4, 2))).toThrow('rotary: x has shape [3, 1, 8]; expected [*, *, *, *]');
    expect(inStep(zeros(1, 2, 1, 7), zeros(1, 2, 3, 2))).toThrow('its last axis, the head dimension, must be even');
    const learned = parameter(device, new Float32Array(16), [1, 2, 4, 2]);
    expect(inStep(zeros(1, 2, 1, 8), learned)).toThrow('rotary: table wants a gradient, which does not pass here');
    learned.dispose();
    expect(() => rotaryTable([1], 5)).toThrow('rotaryTable: head dimension 5; expected an even number from 2');
  });
});

describe('rotary golden', () => {
  test.each(['operations-rotary-d16', 'operations-rotary-d80'])('%s', async (name) => {
    const device = await testDevice('normal');
    const fixture = readFixture(name);
    const { data, shape } = fixture.get('x');
    const [batch, length, , dimension] = shape;
    const x = parameter(device, data as Float32Array, shape, { name: 'x' });
    const output = device.step(() => {
      const numbers = rotaryTable(fixture.get('positions').data, dimension, { base: fixture.settings.base });
      const y = rotary(x, tensor(device, numbers, [batch, length, dimension / 2, 2]));
      backward(y, { gradient: tensor(device, fixture.get('dOutput').data as Float32Array, shape) });
      return y;
    });
    const expected = (key: string) => fixture.get(`expected/${key}`).data;
    expectClose(await output.read(), expected('output'), fixtureTolerance(fixture, 'output'), 'output');
    expectClose(await x.grad!.read(), expected('dX'), fixtureTolerance(fixture, 'dX'), 'dX');
    output.dispose();
    x.dispose();
  });
});
