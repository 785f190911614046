import { describe, expect, test } from 'vitest';
import {
  backward,
  openDevice,
  ParameterSet,
  parameter,
  recompute,
  stopGradient,
  type Tensor,
  tensor,
  withoutTape,
  zeroGradients,
} from '../../engine/index.ts';
import { add, embedding, linear, matmul, multiply, rmsNorm, scale, sum } from '../../kernels/index.ts';
import { describeOnDevices } from '../support/devices.ts';
import { expectClose, normals } from '../support/numbers.ts';

const read = async (gradient: Tensor | null) => (gradient ? [...(await gradient.read())] : null);

describeOnDevices('tape', (open) => {
  test('backward adds: over losses of a step, and over steps, until it is zeroed', async () => {
    const device = await open();
    using x = parameter(device, [1, 2, 3, 4], [4], { name: 'x' });
    expect(x.grad).toBeNull();
    const step = () =>
      device.step(() => {
        backward(sum(scale(x, 2)));
        backward(sum(multiply(x, x)));
      });
    step();
    expect(await read(x.grad)).toEqual([4, 6, 8, 10]);
    step();
    expect(await read(x.grad)).toEqual([8, 12, 16, 20]);
    zeroGradients([x]);
    expect(await read(x.grad)).toEqual([0, 0, 0, 0]);
    step();
    expect(await read(x.grad)).toEqual([4, 6, 8, 10]);
  });

  test('the gradient of a parameter is added to its own, without a sum beside it', async () => {
    const device = await open();
    using set = new ParameterSet(device, [
      { name: 'weight', shape: [4, 4], group: 'all' },
      { name: 'table', shape: [3, 4], group: 'all' },
      { name: 'gain', shape: [4], group: 'all' },
    ]);
    const [weight, table, gain] = ['weight', 'table', 'gain'].map((name) => set.get(name));
    weight.write(normals(16, 1));
    table.write(normals(12, 2));
    const gradients = async (zero: () => void, losses: number) => {
      const before = device.dispatches;
      device.step(() => {
        zero();
        const ids = tensor(device, [2, 0, 2], [3], { dtype: 'u32' });
        // The table is reached as a table and as a matrix.
        const loss = sum(linear(linear(rmsNorm(embedding(ids, table), gain), weight), table));
        for (let i = 0; i < losses; i++) backward(loss);
      });
      const dispatches = device.dispatches - before;
      return {
        dispatches,
        numbers: await Promise.all([weight, table, gain].map(async ({ grad }) => [...(await grad!.read())])),
      };
    };
    const first = await gradients(() => {}, 1);
    const zeroed = await gradients(() => set.zeroGradients(), 1);
    const one = await gradients(() => zeroGradients(set), 1);
    expect(zeroed.numbers).toEqual(first.numbers);
    expect(one.numbers).toEqual(first.numbers);
    expect(first.dispatches, 'six forward, ten backward, no sum of gradients').toBe(16);
    expect(zeroed.dispatches).toBe(first.dispatches);
    const twice = (numbers: number[][]) => numbers.map((own) => own.map((value) => 2 * value));
    expectClose(
      (await gradients(() => set.zeroGradients(), 2)).numbers.flat(),
      twice(first.numbers).flat(),
      1e-6,
      'two losses',
    );
    expectClose((await gradients(() => {}, 2)).numbers.flat(), twice(twice(first.numbers)).flat(), 1e-6, 'four');
  });

  test('a tensor that an operation takes twice gets both gradients, before others and after', async () => {
    const device = await open();
    using weight = parameter(device, normals(16, 1), [4, 4], { name: 'weight' });
    using start = parameter(device, normals(16, 2), [4, 4], { name: 'start' });
    const gradientOf = async (make: (x: Tensor) => Tensor) => {
      device.step(() => {
        zeroGradients([start, weight]);
        backward(sum(make(scale(start, 1))));
      });
      return [...(await start.grad!.read())];
    };
    const [product, square] = [(x: Tensor) => linear(x, weight), (x: Tensor) => matmul(x, x)];
    const [ofProduct, ofSquare] = [await gradientOf(product), await gradientOf(square)];
    const expected = ofProduct.map((value, i) => value + 3 + ofSquare[i]);
    for (const make of [
      (x: Tensor) => add(add(add(x, x), add(product(x), x)), square(x)),
      (x: Tensor) => add(square(x), add(x, add(add(x, product(x)), x))),
      (x: Tensor) => add(add(product(x), square(x)), add(x, add(x, x))),
    ])
      expectClose(await gradientOf(make), expected, 1e-6, 'gradient');
  });

  test('a part that runs again in backward: what it may return, and frozen parameters, whose gradients take no memory', async () => {
    const device = await open();
    using set = new ParameterSet(device, [
      { name: 'weight', shape: [4, 4], group: 'trained' },
      { name: 'frozen', shape: [64, 64], group: 'trained', frozen: true },
    ]);
    const weight = set.get('weight');
    weight.write(normals(16, 1));
    const { bytes } = device.memory;
    const gradient = async (part: (x: Tensor) => Tensor) => {
      device.step(() => {
        set.zeroGradients();
        backward(sum(part(scale(weight, 2))));
      });
      return [...(await weight.grad!.read())];
    };
    const square = (x: Tensor) => add(matmul(x, x), linear(x, weight));
    expect(await gradient((x) => recompute(x, 'part', () => [square(x)])[0])).toEqual(await gradient(square));
    device.memory.trim();
    expect(device.memory.bytes - bytes).toBeLessThan(64 * 64 * 4);
    await expect(gradient((x) => recompute(x, 'part', () => [x, square(x)])[1])).rejects.toThrow(
      'part: recompute returns what its function makes',
    );
  });

  test('one tensor that a rule returns as the gradient of two operands stays until both have it', async () => {
    const device = await open();
    using p = parameter(device, [1, 2, 3, 4], [4]);
    using q = parameter(device, [1, 2, 3, 4], [4]);
    device.step(() => {
      const [x, y] = [scale(p, 2), multiply(q, q)];
      const [part] = recompute(x, 'part', () => [scale(add(x, y), 5)]);
      backward(sum(add(part, scale(x, 7))));
    });
    expect(await read(p.grad)).toEqual(Array(4).fill(2 * (5 + 7)));
    expect(await read(q.grad)).toEqual([1, 2, 3, 4].map((value) => 2 * value * 5));
  });

  test('the same loss twice counts twice', async () => {
    const device = await open();
    using x = parameter(device, [1, 2, 3, 4], [4]);
    device.step(() => {
      const loss = sum(multiply(x, x));
      backward(loss);
      backward(loss);
    });
    expect(await read(x.grad)).toEqual([4, 8, 12, 16]);
  });

  test('gradients that meet add up, and a gradient given for the loss is used', async () => {
    const device = await open();
    using x = parameter(device, [1, 2, 3, 4], [4]);
    using seed = tensor(device, [1, 10, 100, 1000], [4]);
    device.step(() => {
      const y = scale(x, 3);
      backward(add(multiply(y, x), add(x, y)), { gradient: seed });
    });
    // d(3 x^2 + 4 x) / dx
    expect(await read(x.grad)).toEqual([10, 160, 2200, 28000]);
    await expect(seed.read()).resolves.toEqual(Float32Array.of(1, 10, 100, 1000));
  });

  test('stopGradient keeps the numbers and passes no gradient', async () => {
    const device = await open();
    using x = parameter(device, [1, 2, 3, 4], [4]);
    using y = parameter(device, [5, 6, 7, 8], [4]);
    const stopped = device.step(() => {
      const product = multiply(stopGradient(multiply(x, x)), y);
      backward(sum(product));
      return product;
    });
    expect([...(await stopped.read())]).toEqual([5, 24, 63, 128]);
    stopped.dispose();
    expect(x.grad).toBeNull();
    expect(await read(y.grad)).toEqual([1, 4, 9, 16]);
    expect(() => device.step(() => backward(sum(stopGradient(x))))).toThrow(
      "backward: no parameter reaches the loss made by 'sum'",
    );
  });

  test('only the parameters asked for get a gradient, and nothing is computed for the others', async () => {
    const device = await open();
    using early = parameter(device, normals(64, 1), [8, 8], { name: 'early' });
    using late = parameter(device, normals(64, 2), [8, 8], { name: 'late' });
    using gain = parameter(device, normals(8, 3), [8], { name: 'gain' });
    using x = tensor(device, normals(32, 4), [4, 8]);
    const dispatched = (parameters?: Tensor[]) =>
      device.step(() => {
        const loss = sum(matmul(rmsNorm(matmul(x, early), gain), late));
        const before = device.dispatches;
        backward(loss, { parameters });
        return device.dispatches - before;
      });
    const all = dispatched();
    const [everything, ofLate] = [await read(early.grad), await read(late.grad)];
    zeroGradients([early, late, gain]);
    const one = dispatched([late]);
    expect(one).toBeLessThan(all / 2);
    expect(await read(late.grad)).toEqual(ofLate);
    expect(await read(early.grad)).toEqual(Array(64).fill(0));
    expect(await read(gain.grad)).toEqual(Array(8).fill(0));
    zeroGradients([late]);
    expect(dispatched([early])).toBeLessThan(all);
    expect(await read(early.grad)).toEqual(everything);
    expect(await read(late.grad)).toEqual(Array(64).fill(0));
    expect(() => device.step(() => backward(sum(late), { parameters: [scale(early, 2)] }))).toThrow(
      "backward: 'scale' is no parameter, or a frozen one: gradients are kept for trained parameters only",
    );
  });

  test('without a tape nothing is remembered', async () => {
    const device = await open();
    using x = parameter(device, [1, 2], [2]);
    expect(() => device.step(() => backward(withoutTape(device, () => sum(x))))).toThrow(
      "backward: no parameter reaches the loss made by 'sum'",
    );
    device.step(() => backward(sum(x)));
    expect(await read(x.grad)).toEqual([1, 1]);
  });

  test('a loss with several elements needs a gradient of its shape', async () => {
    const device = await open();
    using x = parameter(device, [1, 2], [2]);
    using wrong = tensor(device, [1, 2, 3], [3]);
    expect(() => device.step(() => backward(scale(x, 2)))).toThrow(
      'backward: the loss has shape [2]; give { gradient }',
    );
    expect(() => device.step(() => backward(scale(x, 2), { gradient: wrong }))).toThrow(
      'backward: gradient is f32 [3]; expected f32 [2]',
    );
    expect(x.grad).toBeNull();
  });

  test('parameters of a set: one clear zeroes them all, and names are unique', async () => {
    const device = await open();
    const { bytes } = device.memory;
    {
      using set = new ParameterSet(device, [
        { name: 'a', shape: [3], group: 'one' },
        { name: 'b', shape: [2, 2], group: 'two' },
        { name: 'c', shape: [5], group: 'one' },
      ]);
      expect(set.arenas.map(({ group, tensors }) => [group, tensors.map((tensor) => tensor.name)])).toEqual([
        ['one', ['a', 'c']],
        ['two', ['b']],
      ]);
      set.get('a').write([1, 2, 3]);
      set.get('c').write([5, 6, 7, 8, 9]);
      device.step(() => {
        backward(sum(multiply(set.get('a'), set.get('a'))));
        backward(sum(scale(set.get('c'), 2)));
      });
      expect(await read(set.get('a').grad)).toEqual([2, 4, 6]);
      expect(await read(set.get('c').grad)).toEqual([2, 2, 2, 2, 2]);
      expect(set.get('b').grad).toBeNull();
      set.zeroGradients();
      expect(await read(set.get('a').grad)).toEqual([0, 0, 0]);
      expect(() => set.get('d')).toThrow("no parameter is named 'd'");
    }
    expect(device.memory.bytes).toBe(bytes);
    const twice = { name: 'a', shape: [1], group: 'one' };
    expect(() => new ParameterSet(device, [twice, twice])).toThrow("two parameters are named 'a'");
    expect(device.memory.bytes, 'an error leaves no arena').toBe(bytes);
  });
});

describe('arenas of parameters', () => {
  test('an arena holds as many as the largest binding of the device does', async () => {
    const shape = [33 * 1024, 1024]; // 132 MiB
    const specifications = [
      { name: 'before', shape: [4], group: 'all' },
      { name: 'large', shape, group: 'all' },
      { name: 'behind', shape: [4], group: 'all' },
      { name: 'last', shape: [4], group: 'all' },
    ];
    const device = await openDevice({ adapter: 'null', floor: true });
    expect(() => new ParameterSet(device, specifications)).toThrow(
      "parameter 'large' [33792, 1024] has 138412032 bytes; on this device one parameter holds at most 134217728",
    );
    // As on a graphics adapter: those that run without one bind no more than 128 MiB.
    const arenasAt = (maxStorageBufferBindingSize: number) => {
      Object.defineProperty(device, 'limits', { value: { maxStorageBufferBindingSize }, configurable: true });
      using set = new ParameterSet(device, specifications);
      return set.arenas.map(({ tensors }) => tensors.map(({ name }) => name));
    };
    expect(arenasAt(138412032)).toEqual([['before'], ['large'], ['behind', 'last']]);
    expect(arenasAt(2 ** 28)).toEqual([['before', 'large', 'behind', 'last']]);
    device.close();
  });
});
