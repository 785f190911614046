import { describe, expect, test } from 'vitest';
import { bytesPerElement, ParameterSet, streams, type Tensor, tensor } from '../../engine/index.ts';
import { fillUniform, randomAddress, randomUniform } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { runOnce } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';

describeOnDevices('randomUniform', (device) => {
  test.each([
    { shape: [1], seed: 0, step: 0, stream: streams.rounding },
    { shape: [37, 5], seed: 2 ** 53 - 1, step: 2 ** 32 - 1, stream: streams.sampling },
    { shape: [20_001], seed: 5 * 2 ** 32 + 17, step: 9, stream: streams.rounding },
  ])('has the bits of the host: $shape, seed $seed, step $step', async ({ shape, ...address }) => {
    const opened = await device();
    const drawn = await runOnce(opened, () =>
      randomUniform(shape, tensor(opened, randomAddress(address), [4], { dtype: 'u32' })),
    );
    const host = reference.randomUniform(drawn.length, address);
    expect(new Uint32Array(drawn.buffer)).toEqual(new Uint32Array(host.buffer));
  });
});

describeOnDevices('fillUniform', (device) => {
  const address = { seed: 5 * 2 ** 32 + 17, step: 9, stream: streams.initialisation };
  const BOUND = 0.0382;

  test.each(['f32', 'f16', 'bf16'] as const)(
    'has the numbers of the host in %s, whole and in pieces',
    async (dtype) => {
      const shapes = [
        [12, 1001],
        [8, 1001],
        [4, 1001],
        [3, 3],
      ]; // prettier-ignore
      const names = ['whole', 'first', 'second', 'after'];
      const specifications = shapes.map((shape, i) => ({ name: names[i], shape, group: 'all', dtype }));
      const opened = await device();
      using set = new ParameterSet(opened, specifications);
      const [whole, first, second, after] = names.map((name) => set.get(name));
      opened.step(() => {
        fillUniform([whole], address, BOUND);
        fillUniform([first, second], address, BOUND);
        fillUniform([after], address, BOUND);
      });
      const numbers = await whole.read();
      const unit = Math.fround(BOUND / 2 ** 23);
      // An integer of 24 bits times one of as many: exact in float64.
      const exact = reference.randomUniform(numbers.length, address).map((u) => (u - 0.5) * 2 ** 24 * unit);
      expect(numbers).toEqual(reference.cast(exact, dtype));
      expect(await first.read()).toEqual(numbers.slice(0, first.size));
      expect(await second.read()).toEqual(numbers.slice(first.size));
      const [sum, squares] = numbers.reduce(([sum, squares], x) => [sum + x, squares + x * x], [0, 0]);
      const deviation = BOUND / Math.sqrt(3);
      const { length } = numbers;
      expect(Math.abs(sum / length)).toBeLessThan((4 * deviation) / Math.sqrt(length));
      // Four standard errors: the fourth moment of a uniform number is 9/5 of the square of its variance.
      expect(Math.abs(Math.sqrt(squares / length) / deviation - 1)).toBeLessThan(4 * Math.sqrt(0.2 / length));
      expect(Math.max(...numbers.map(Math.abs))).toBeLessThanOrEqual(BOUND * (1 + 2 ** -8));
      // The arena's memory between two parameters stays zero.
      const { buffer, offset } = after;
      const { byteLength } = after;
      const rest = new Uint8Array(await opened.read({ buffer, offset, byteLength }, byteLength));
      expect(rest.subarray(after.size * bytesPerElement[dtype])).toEqual(
        new Uint8Array(byteLength).slice(after.size * bytesPerElement[dtype]),
      );
    },
  );
});

describe('fillUniform arguments', () => {
  test('a piece that cuts a group of four is named, and one of ids', async () => {
    const device = await testDevice('normal');
    const filled = (make: () => Tensor[]) => () =>
      device.step(() => fillUniform(make(), { seed: 0, step: 0, stream: 0 }, 1));
    expect(filled(() => [tensor(device, [1, 2, 3], [3]), tensor(device, [1], [1])])).toThrow(
      /^fillUniform: 'tensor' begins at element 3 and has 1; a piece begins at a multiple of 4/,
    );
    const ids = () => [tensor(device, [1], [1], { dtype: 'u32' })];
    expect(filled(ids)).toThrow('fillUniform: piece is u32 [1]; expected f32 or f16 or bf16');
  });
});

describe('randomUniform arguments', () => {
  test('a bad seed or step is named, and an address of floats', async () => {
    const device = await testDevice('normal');
    const address = (seed: number, step: number) => () => randomAddress({ seed, step, stream: 0 });
    expect(address(-1, 0)).toThrow('randomAddress: seed -1');
    expect(address(0.5, 0)).toThrow('randomAddress: seed 0.5');
    expect(address(0, 2 ** 32)).toThrow('randomAddress: step 4294967296');
    const floats = () => randomUniform([4], tensor(device, [1, 2, 3, 4], [4]));
    expect(() => device.step(floats)).toThrow('randomUniform: address is f32 [4]; expected u32');
  });
});
