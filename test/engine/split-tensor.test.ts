import { describe, expect, test } from 'vitest';
import { backward, ParameterSet, parameter, recompute, roundUp, tensor, zeroGradients } from '../../engine/index.ts';
import { add, embedding, linear, matmul, reshape } from '../../kernels/index.ts';
import { testDevice } from '../support/devices.ts';
import { normals } from '../support/numbers.ts';

const [ROWS, WIDTH] = [150, 8];
const ofPieces = { pieceBytes: 4 * 64 * WIDTH };
const table = { name: 'table', shape: [ROWS, WIDTH], group: 'all', splits: true };

describe('a parameter in pieces of rows', () => {
  test('lies in an arena for each, and in one where it fits', async () => {
    const device = await testDevice('floor');
    const others = {
      before: { ...table, name: 'before', shape: [4] },
      behind: { ...table, name: 'behind', shape: [4] },
    };
    using whole = new ParameterSet(device, [others.before, table, others.behind]);
    expect(whole.get('table').pieces).toEqual([whole.get('table')]);
    expect(whole.arenas).toHaveLength(1);
    using split = new ParameterSet(device, [others.before, table, others.behind], ofPieces);
    expect(split.arenas.map(({ tensors }) => tensors.map(({ name, shape }) => [name, shape]))).toEqual([
      [['before', [4]]],
      [['table', [64, WIDTH]]],
      [['table', [64, WIDTH]]],
      [['table', [22, WIDTH]]],
      [['behind', [4]]],
    ]);
    expect(Array.from(split, ({ name, shape }) => [name, shape])).toEqual([
      ['before', [4]],
      ['table', [ROWS, WIDTH]],
      ['behind', [4]],
    ]);
    // Frozen values in 16 bits take half of what gradients take.
    using frozen = new ParameterSet(device, [{ ...table, frozen: true, dtype: 'bf16' }], ofPieces);
    expect(frozen.get('table').pieces.map(({ shape }) => shape[0])).toEqual([128, 22]);
    expect(frozen.get('table').gradientStorage).toBeNull();
  });

  test('is written and read as one, and lets go with its set', async () => {
    const device = await testDevice('normal');
    const numbers = normals(ROWS * WIDTH, 1);
    const split = parameter(device, numbers, [ROWS, WIDTH], { name: 'table', ...ofPieces });
    expect(await split.read()).toEqual(numbers);
    expect(await split.pieces[1].read()).toEqual(numbers.subarray(64 * WIDTH, 128 * WIDTH));
    const plain = [...normals(ROWS * WIDTH, 2)];
    split.write(plain);
    expect([...(await split.read())]).toEqual(plain);
    expect(() => split.write([1])).toThrow('write: 1 numbers for shape [150, 8], which holds 1200');
    const { bytes } = device.memory;
    split.dispose();
    expect(bytes - device.memory.bytes).toBe(2 * ofPieces.pieceBytes + roundUp(4 * 22 * WIDTH, 256));
    expect(() => split.pieces[2].assertAlive('embedding')).toThrow('is gone');
    await expect(split.read()).rejects.toThrow('is gone');
  });

  test('has a gradient in pieces, which backward reaches by the whole, and zeroGradients clears', async () => {
    const device = await testDevice('normal');
    const split = parameter(device, normals(ROWS * WIDTH, 1), [ROWS, WIDTH], { name: 'table', ...ofPieces });
    const ids = tensor(device, [2, 149, 2], [3], { dtype: 'u32' });
    const dy = tensor(device, new Float32Array(3 * WIDTH).fill(1), [3, WIDTH]);
    const other = parameter(device, new Float32Array(WIDTH), [WIDTH]);
    const run = (parameters: Parameters<typeof backward>[1]) =>
      device.step(() => {
        zeroGradients([split, other]);
        const [y] = recompute(split.pieces[0], 'rows', () => [add(embedding(ids, split), other)]);
        backward(y, { gradient: dy, ...parameters });
      });
    const expected = new Float32Array(ROWS * WIDTH);
    expected.fill(2, 2 * WIDTH, 3 * WIDTH).fill(1, 149 * WIDTH);
    for (const parameters of [undefined, [split]]) {
      run({ parameters });
      expect(split.grad!.shape).toEqual([ROWS, WIDTH]);
      expect(await split.grad!.read()).toEqual(expected);
    }
    expect(device.step(() => ({ of: split.grad })).of).toBe(split.grad);
    run({ parameters: [other] });
    expect(await split.grad!.read()).toEqual(new Float32Array(ROWS * WIDTH));
    for (const made of [split, other, ids, dy]) made.dispose();
  });

  test('what does not walk pieces says so', async () => {
    const device = await testDevice('normal');
    const split = parameter(device, normals(ROWS * WIDTH, 1), [ROWS, WIDTH], { name: 'table', ...ofPieces });
    const x = tensor(device, normals(WIDTH, 2), [1, WIDTH]);
    const words =
      "parameter 'table' [150, 8] lies in 3 pieces of rows; only embedding, linearCrossEntropy and linear take it";
    device.step(() => {
      expect(() => matmul(x, split, { transposeB: true })).toThrow(`matmul: ${words}`);
      expect(() => reshape(split, [8, 150])).toThrow(`reshape: ${words}`);
      expect(() => split.buffer).toThrow(`a binding: ${words}`);
      const bias = tensor(device, normals(ROWS, 3), [ROWS]);
      expect(() => linear(x, split, bias)).toThrow(
        "linear: weight 'table' [150, 8] lies in pieces of rows; no bias or residual is added then",
      );
    });
    for (const made of [split, x]) made.dispose();
  });

  test('rows that cannot lie in pieces are refused', async () => {
    const device = await testDevice('normal');
    const bytes = device.memory.bytes;
    const made = (shape: number[]) => new ParameterSet(device, [{ ...table, shape }], ofPieces);
    expect(() => made([300, 7])).toThrow(
      /^parameter 'table' \[300, 7\] has 8448 bytes; on this device one binding holds at most \d+, and only rows of whole groups of four numbers lie in pieces$/,
    );
    expect(() => made([70, 12])).toThrow(
      /^parameter 'table' \[70, 12\] has \d+ bytes; on this device one parameter holds at most \d+$/,
    );
    expect(device.memory.bytes).toBe(bytes);
  });
});
