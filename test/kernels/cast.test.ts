import { describe, expect, test } from 'vitest';
import { backward, parameter, tensor } from '../../engine/index.ts';
import { cast, linear } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { runOnce } from '../support/check-operation.ts';
import { describeOnAllDevices, testDevice } from '../support/devices.ts';
import { integers, normals } from '../support/numbers.ts';

/** Random finite bit patterns; numbers half way between two f16 or bf16 numbers; the smallest and the largest f16. */
function hardNumbers(): Float32Array {
  const patterns = new Float32Array(integers(4000, 2 ** 32, 3).buffer).filter((value) => Math.abs(value) > 1e-37);
  const halfway = Array.from({ length: 64 }, (_, i) => [
    1 + (i + 0.5) / 1024,
    1 + (i + 0.5) / 128,
    (i + 0.5) * 2 ** -24,
  ]);
  const edges = [0, 65504, 65519, 65520, 1e5, 3e38, 2 ** -14, 2 ** -14 - 2 ** -25, 2 ** -24, 2 ** -25, 2 ** -26, 1e-20];
  const numbers = [...patterns, ...normals(1001, 4), ...halfway.flat(), ...edges];
  return Float32Array.from([...numbers, ...numbers.map((value) => -value)]);
}

describeOnAllDevices('cast', (device) => {
  test.each(['f16', 'bf16'] as const)(
    '%s keeps what is no number, here and where an operation stores it',
    async (dtype) => {
      const opened = await device();
      // The quiet NaN of every bit, which adding half a place would wrap to -0; the usual one; and one of few bits.
      const bits = Uint32Array.of(
        0x7fffffff,
        0x7fc00000,
        0x7f800001,
        0xffffffff,
        0x3f800000,
        0xc0000000,
        0,
        0x42280000,
      );
      const x = new Float32Array(bits.buffer);
      const expected = [Number.NaN, Number.NaN, Number.NaN, Number.NaN, 1, -2, 0, 42];
      expect([...(await runOnce(opened, () => cast(tensor(opened, x, [8]), dtype)))]).toEqual(expected);
      // Matrix products pack by the declaration that most operations share.
      const identity = Float32Array.from({ length: 16 }, (_, i) => (i % 5 === 0 ? 1 : 0));
      const rows = Float32Array.of(...bits).fill(1);
      rows.set(x.subarray(0, 1), 2);
      const product = await runOnce(opened, () =>
        linear(tensor(opened, rows, [2, 4]), tensor(opened, identity, [4, 4]), null, { dtype }),
      );
      expect(product.subarray(0, 4).some(Number.isNaN)).toBe(true);
      expect([...product.subarray(4)]).toEqual([1, 1, 1, 1]);
    },
  );

  test.each(['f16', 'bf16'] as const)(
    'to %s rounds as the host does, bit for bit, and back is exact',
    async (dtype) => {
      const opened = await device();
      const x = hardNumbers().filter((value) => Math.abs(value) < 3.38e38);
      const result = await runOnce(opened, () => {
        const half = cast(tensor(opened, x, [x.length]), dtype);
        expect(half.dtype).toBe(dtype);
        return half;
      });
      expect(result).toEqual(reference.cast(x, dtype));
      const normal = result.filter((value) => Math.abs(value) >= 2 ** -14);
      const back = await runOnce(opened, () => cast(tensor(opened, normal, [normal.length], { dtype }), 'f32'));
      expect(back).toEqual(normal);
    },
  );

  test('between f16 and bf16', async () => {
    const opened = await device();
    const x = normals(37, 5);
    const result = await runOnce(opened, () => cast(cast(tensor(opened, x, [37]), 'f16'), 'bf16'));
    expect(result).toEqual(reference.cast(reference.cast(x, 'f16'), 'bf16'));
    const other = await runOnce(opened, () => cast(tensor(opened, x, [37], { dtype: 'bf16' }), 'f16'));
    expect(other).toEqual(reference.cast(reference.cast(x, 'bf16'), 'f16'));
  });

  test('gradients pass unrounded', async () => {
    const opened = await device();
    const x = parameter(opened, normals(7, 1), [7]);
    const gradient = normals(7, 2);
    opened.step(() => backward(cast(cast(x, 'bf16'), 'f16'), { gradient: tensor(opened, gradient, [7]) }));
    expect(await x.grad!.read()).toEqual(gradient);
    x.dispose();
  });
});

describe('cast operands', () => {
  test('integers are refused; the storage that is there already is the same tensor', async () => {
    const device = await testDevice('normal');
    const ids = tensor(device, [1, 2], [2], { dtype: 'u32' });
    expect(() => device.step(() => cast(ids, 'f32'))).toThrow('cast: x is u32 [2]; expected f32 or f16 or bf16');
    const x = tensor(device, [1, 2], [2]);
    expect(device.step(() => cast(x, 'f32'))).toBe(x);
  });
});
