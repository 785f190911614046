import { describe, expect, test } from 'vitest';
import { type Device, tensor } from '../../engine/index.ts';
import { type AllowedIds, allowedBits, chooseTokens, NO_TOKEN } from '../../kernels/index.ts';
import { chooseToken } from '../../kernels/reference/index.ts';
import { describeOnAllDevices } from '../support/devices.ts';
import { integers, normals } from '../support/numbers.ts';

interface Drawing {
  readonly draws: Float32Array;
  readonly temperature: number;
}

async function chosen(device: Device, logits: Float32Array, rows: readonly AllowedIds[], drawing?: Drawing) {
  const vocabulary = logits.length / rows.length;
  const bits = allowedBits(rows, vocabulary);
  using choice = device.step(() =>
    chooseTokens(
      tensor(device, logits, [rows.length, vocabulary]),
      tensor(device, bits, [rows.length, Math.ceil(vocabulary / 32)], { dtype: 'u32' }),
      drawing && { ...drawing, draws: tensor(device, drawing.draws, [rows.length]) },
    ),
  );
  return [...(await choice.read('u32'))];
}

describeOnAllDevices('the choice of tokens', (device) => {
  test.each([7, 50, 1031, 257_152])(
    'is the likeliest allowed id, of several the lowest: vocabulary %i',
    async (size) => {
      // Rounded, so that many logits are alike.
      const logits = normals(3 * size, size).map((own) => Math.round(3 * own));
      const few = [...new Set(integers(20, size, 5))].sort((a, b) => a - b);
      const sets = [[...Array(size).keys()], few, [size - 1]];
      const expected = sets.map((ids, row) => chooseToken(logits.subarray(row * size, (row + 1) * size), ids));
      expect(await chosen(await device(), logits, ['all', few, [size - 1]])).toEqual(expected);
    },
  );

  test.each([7, 1031, 257_152])('is drawn by the softmax over the allowed ids: vocabulary %i', async (size) => {
    const logits = normals(size, size, 2);
    const ids = [...Array(size).keys()].filter((id) => id % 3 !== 1);
    const draws = Float32Array.from({ length: 8 }, (_, i) => (i + 0.4) / 8);
    const rows = Array.from(draws, () => ids);
    const repeated = Float32Array.from({ length: 8 * size }, (_, i) => logits[i % size]);
    const drawing = { draws, temperature: 0.7 };
    const own = await chosen(await device(), repeated, rows, drawing);
    // The sums are of f32: an id between the draws of u a little below and a little above.
    const at = (u: number) => chooseToken(logits, ids, { u, temperature: 0.7 });
    for (const [i, u] of draws.entries()) {
      expect(ids).toContain(own[i]);
      expect(own[i]).toBeGreaterThanOrEqual(at(u - 1e-5));
      expect(own[i]).toBeLessThanOrEqual(at(u + 1e-5));
    }
    expect(await chosen(await device(), repeated, rows, drawing)).toEqual(own);
  });

  test('is none where nothing is allowed, or nothing above -1e30', async () => {
    const logits = Float32Array.from({ length: 20 }, (_, i) => (i < 10 ? 1 : -2e30));
    expect(await chosen(await device(), logits, [null, 'all'])).toEqual([NO_TOKEN, NO_TOKEN]);
    const drawing = { draws: Float32Array.of(0.5, 0.5), temperature: 1 };
    expect(await chosen(await device(), logits, [[], 'all'], drawing)).toEqual([NO_TOKEN, NO_TOKEN]);
  });

  test('a very low temperature draws the likeliest, and a number of almost 1 the last', async () => {
    const logits = Float32Array.of(1, 3, 2, 3, 0, 0, 1, 2);
    const twice = Float32Array.of(...logits, ...logits);
    const draws = Float32Array.of(0.2, 1 - 2 ** -24);
    expect(await chosen(await device(), twice, ['all', [1, 2, 5]], { draws, temperature: 1e-3 })).toEqual([1, 1]);
    expect(await chosen(await device(), twice, [[4], [1, 2, 5]], { draws, temperature: 1e6 })).toEqual([4, 5]);
  });
});

describe('bits of allowed ids', () => {
  test('an id beyond the vocabulary is named', () => {
    expect(() => allowedBits([[3, 40]], 40)).toThrow('allowedBits: id 40; the vocabulary has 40');
  });
});
