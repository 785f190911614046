import { expect, test } from 'vitest';
import {
  type DataType,
  openDevice,
  persistentTensor,
  Tensor,
  tensor,
  viewTensor,
  zeroTensor,
} from '../../engine/index.ts';
import {
  add,
  attention,
  attentionTable,
  embedding,
  full,
  linear,
  matmul,
  rmsNorm,
  sequence,
} from '../../kernels/index.ts';
import { describeOnDevices } from '../support/devices.ts';

describeOnDevices('tensors', (open) => {
  test.each<[DataType, number[], number[]]>([
    ['f32', [1.1, -2, 3e38, 0, 7], [Math.fround(1.1), -2, Math.fround(3e38), 0, 7]],
    ['f16', [1.1, -2, 65504, 2 ** -24, 7], [1.099609375, -2, 65504, 2 ** -24, 7]],
    ['bf16', [1.1, -2, 256, 2 ** -24, 7], [1.1015625, -2, 256, 2 ** -24, 7]],
  ])('%s is written and read', async (dtype, numbers, expected) => {
    const device = await open();
    using x = tensor(device, numbers, [5], { dtype });
    expect([...(await x.read())]).toEqual(expected);
    await expect(x.read('u32')).rejects.toThrow(
      `read: 'tensor' is ${dtype}; u32 tensors are read with read('u32'), others with read()`,
    );
    x.write([0, 0, 0, 0, 5]);
    expect([...(await x.read())]).toEqual([0, 0, 0, 0, 5]);
  });

  test('u32 is written and read', async () => {
    const device = await open();
    using ids = tensor(device, Uint32Array.of(0, 1, 2 ** 32 - 1), [3], { dtype: 'u32' });
    expect([...(await ids.read('u32'))]).toEqual([0, 1, 2 ** 32 - 1]);
    await expect(ids.read()).rejects.toThrow("read: 'tensor' is u32; u32 tensors are read with read('u32')");
  });

  test('several reads at once, each of its moment', async () => {
    const device = await open();
    using x = tensor(device, [1, 2], [2]);
    const first = x.read();
    x.write([3, 4]);
    const second = x.read();
    expect([[...(await second)], [...(await first)]]).toEqual([
      [3, 4],
      [1, 2],
    ]);
  });

  test('views and zeros', async () => {
    const device = await open();
    using x = tensor(
      device,
      Float32Array.from({ length: 128 }, (_, i) => i),
      [2, 64],
    );
    const second = viewTensor(x, [64], 256, 'row');
    expect((await second.read())[0]).toBe(64);
    expect(() => viewTensor(x, [63], 4, 'row')).toThrow('row: a view at byte 4; offsets are multiples of 256');
    using zeros = device.step(() => zeroTensor(device, [3], 'f32', 'zeros'));
    expect([...(await zeros.read())]).toEqual([0, 0, 0]);
    using empty = tensor(device, [], [0, 3]);
    expect([...(await empty.read())]).toEqual([]);
  });

  test('numbers that do not fit the shape', async () => {
    const device = await open();
    expect(() => tensor(device, [1, 2, 3], [2, 2])).toThrow('tensor: 3 numbers for shape [2, 2], which holds 4');
    expect(() => tensor(device, [1], [-1])).toThrow('tensor: shape [-1]: dimensions are integers from 0');
    expect(() => tensor(device, [1], [0.5])).toThrow('tensor: shape [0.5]: dimensions are integers from 0');
    using x = tensor(device, [1, 2], [2]);
    expect(() => x.write([1])).toThrow('write: 1 numbers for shape [2], which holds 2');
    expect(() => persistentTensor(device, [2 ** 20, 2 ** 20], 'f32', 'weights')).toThrow(
      /^weights: a buffer of 4398046511104 bytes is above this device's limit of \d+$/,
    );
  });

  test('an op names itself, the argument and both shapes before it encodes anything', async () => {
    const device = await open();
    const of = (shape: number[], dtype: DataType = 'f32') => {
      const size = shape.reduce((product, length) => product * length, 1);
      return tensor(device, new Float32Array(size), shape, { dtype });
    };
    const table = attentionTable(sequence({ all: 3 }), { all: { all: full } });
    const cases: [() => Tensor, string][] = [
      [() => add(of([2, 3]), of([2])), 'add: b has shape [2]; expected the shape [2, 3] of a or a trailing part of it'],
      [() => add(of([4]), of([4], 'f16')), 'add: b is f16 [4]; expected f32'],
      [() => matmul(of([2, 3]), of([4, 5])), 'matmul: b has shape [4, 5]; expected [3, *] for a [2, 3]'],
      [() => linear(of([2, 3]), of([4, 5])), 'linear: weight has shape [4, 5]; expected [*, 3]'],
      [() => rmsNorm(of([2, 4]), of([5])), 'rmsNorm: weight has shape [5]; expected [4]'],
      [() => embedding(of([2]), of([3, 4])), 'embedding: ids is f32 [2]; expected u32'],
      [
        () => attention(of([1, 3, 2, 4]), of([1, 4, 1, 4]), of([1, 4, 1, 4]), { table }),
        'attention: key has shape [1, 4, 1, 4]; expected [1, 3, *, 4]',
      ],
    ];
    for (const [op, message] of cases) {
      let encoded = -1;
      const run = () =>
        device.step(() => {
          encoded = device.dispatches;
          return op();
        });
      expect(run).toThrow(message);
      expect(device.dispatches, message).toBe(encoded);
    }
  });

  test('operands of two devices', async () => {
    const device = await open();
    const other = await openDevice({ adapter: 'null', floor: true });
    using a = tensor(device, [1, 2, 3, 4], [4]);
    const b = tensor(other, [1, 2, 3, 4], [4]);
    expect(() => device.step(() => add(a, b))).toThrow('add: operands are on different devices');
    other.close();
    expect(a).toBeInstanceOf(Tensor);
  });
});
