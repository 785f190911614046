import { describe, expect, test } from 'vitest';
import { backward, parameter, tensor } from '../../engine/index.ts';
import { concatenateTokens, sliceTokens } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, runOnce } from '../support/check-operation.ts';
import { describeOnAllDevices, testDevice } from '../support/devices.ts';
import { expectZero, normals } from '../support/numbers.ts';

describeOnAllDevices('tokens', (device) => {
  test.each([
    { batch: 2, tokens: [3, 1, 4], width: 8 },
    { batch: 3, tokens: [2, 5], width: 7 },
    { batch: 1, tokens: [6], width: 4 },
  ])('concatenateTokens of $tokens x $width is exact, forward and backward', async ({ batch, tokens, width }) => {
    await checkOperation(await device(), {
      inputs: tokens.map((count) => ({ shape: [batch, count, width] })),
      run: (parts) => concatenateTokens(parts),
      oracle: (parts) => reference.concatenateTokens(parts, batch),
      tolerance: { forward: 0, backward: 1e-9 },
    });
  });

  test.each([
    { shape: [2, 5, 8], start: 1, length: 3 },
    { shape: [3, 4, 5], start: 0, length: 2 },
    { shape: [2, 3, 2, 3], start: 2, length: 1 },
    { shape: [2, 3, 4], start: 0, length: 3 },
  ])('sliceTokens of $shape from $start is exact, forward and backward', async ({ shape, start, length }) => {
    await checkOperation(await device(), {
      inputs: [{ shape, name: 'x' }],
      run: ([x]) => sliceTokens(x, start, length),
      oracle: ([x]) => reference.sliceTokens(x, shape, start, length),
      tolerance: { forward: 0, backward: 1e-9 },
    });
  });

  test('a part without tokens adds none', async () => {
    const opened = await device();
    const x = normals(6, 3);
    const joined = await runOnce(opened, () =>
      concatenateTokens([tensor(opened, [], [1, 0, 3]), tensor(opened, x, [1, 2, 3])]),
    );
    expect(joined).toEqual(x);
  });

  test('a slice of stale memory has a gradient of zeros around it', async () => {
    const opened = await device();
    const x = parameter(opened, normals(24, 1), [2, 3, 4]);
    opened.step(() => {
      const stale = tensor(opened, new Float32Array(24).fill(1e30), [24]);
      opened.currentStep('test').release(stale.buffer);
      backward(sliceTokens(x, 1, 1), { gradient: tensor(opened, new Float32Array(8).fill(2), [2, 1, 4]) });
    });
    const rows = [0, 2, 0, 0, 2, 0];
    expect(await x.grad!.read()).toEqual(Float32Array.from({ length: 24 }, (_, i) => rows[Math.floor(i / 4)]));
    x.dispose();
  });

  test('a part that is not wanted gets no gradient, zeros stay zeros', async () => {
    const opened = await device();
    const x = parameter(opened, normals(12, 1), [1, 3, 4]);
    opened.step(() => {
      const y = concatenateTokens([tensor(opened, normals(4, 2), [1, 1, 4]), x]);
      backward(y, { gradient: tensor(opened, new Float32Array(16), y.shape) });
    });
    expectZero(await x.grad!.read(), 'dX');
    x.dispose();
  });

  test('ids, masks and packed halves move bit for bit', async () => {
    const opened = await device();
    const ids = opened.step(() => {
      const parts = [
        tensor(opened, [1, 2, 3, 4], [2, 2], { dtype: 'u32' }),
        tensor(opened, [5, 6], [2, 1], { dtype: 'u32' }),
      ];
      return sliceTokens(concatenateTokens(parts), 1, 2);
    });
    expect(await ids.read('u32')).toEqual(Uint32Array.of(2, 5, 4, 6));
    ids.dispose();
    for (const dtype of ['f16', 'bf16'] as const) {
      const half = await runOnce(opened, () =>
        sliceTokens(
          tensor(
            opened,
            Float32Array.from({ length: 12 }, (_, i) => i),
            [2, 3, 2],
            { dtype },
          ),
          1,
          2,
        ),
      );
      expect(half).toEqual(Float32Array.of(2, 3, 4, 5, 8, 9, 10, 11));
    }
  });
});

describe('tokens operands', () => {
  test('wrong operands are named', async () => {
    const device = await testDevice('normal');
    const zeros = (shape: number[], dtype: 'f32' | 'bf16' = 'f32') =>
      tensor(device, new Float32Array(shape.reduce((a, b) => a * b, 1)), shape, { dtype });
    const x = zeros([2, 3, 4]);
    const concatenate =
      (...parts: ReturnType<typeof zeros>[]) =>
      () =>
        device.step(() => concatenateTokens(parts));
    expect(concatenate()).toThrow('concatenateTokens: no parts; expected at least one');
    expect(concatenate(x, zeros([2, 3, 8]))).toThrow(
      'concatenateTokens: parts[1] has shape [2, 3, 8]; expected [2, *, 4]',
    );
    expect(concatenate(x, zeros([2, 3, 4], 'bf16'))).toThrow(
      'concatenateTokens: parts[1] is bf16 [2, 3, 4]; expected f32',
    );
    expect(concatenate(zeros([4]))).toThrow('concatenateTokens: parts[0] has shape [4]; expected [batch, tokens, ...]');
    expect(() => device.step(() => sliceTokens(x, 2, 2))).toThrow(
      'sliceTokens: start 2 and length 2 for x [2, 3, 4]; expected integers within its 3 tokens',
    );
    expect(() => device.step(() => sliceTokens(zeros([1, 2, 3], 'bf16'), 0, 1))).toThrow(
      'sliceTokens: x is bf16 [1, 2, 3]; tokens of an odd number of elements are taken in f32 only: cast it',
    );
  });
});
