import { expect, test } from 'vitest';
import {
  backward,
  type Device,
  parameter,
  stopGradient,
  type Tensor,
  tensor,
  zeroGradients,
} from '../../engine/index.ts';
import { add, matmul, multiply, reshape, rmsNorm, scale, sum } from '../../kernels/index.ts';
import { describeOnDevices } from '../support/devices.ts';
import { normals } from '../support/numbers.ts';

describeOnDevices('steps', (open) => {
  /** x, made anew in every step. */
  const numbers = (device: Device) => tensor(device, [1, 2, 3, 4], [4]);

  test('what a step returns survives it, alone and in arrays, records and maps', async () => {
    const device = await open();
    const kept = device.step(() => {
      const x = numbers(device);
      const list = [scale(x, 3), scale(x, 4)];
      return { one: scale(x, 2), list, map: new Map([['a', scale(x, 5)]]), number: 7, nothing: null };
    });
    expect(kept.number).toBe(7);
    const all = [kept.one, ...kept.list, kept.map.get('a')!];
    // Steps that follow reuse what the first one freed, and not what it returned.
    for (let i = 0; i < 3; i++) device.step(() => scale(scale(numbers(device), 100), 100));
    const read = await Promise.all(all.map((each) => each.read()));
    expect(read.map((values) => [...values])).toEqual(
      [2, 3, 4, 5].map((factor) => [1, 2, 3, 4].map((x) => factor * x)),
    );
    for (const each of all) each.dispose();
    for (const each of all) each.dispose();
    const held = device.memory.bytes;
    const steps = () =>
      device.step(() => {
        const x = numbers(device);
        return [1, 2, 3, 4].map((factor) => scale(x, factor));
      });
    for (const each of steps()) each.dispose();
    expect(device.memory.bytes, 'disposed of, it serves the next step').toBe(held);
    const [first, second] = steps();
    expect(first.buffer, 'a second dispose gives nothing back twice').not.toBe(second.buffer);
  });

  test('what a step does not return is gone, and says so with the names of both ops', async () => {
    const device = await open();
    let inner: Tensor | null = null;
    const outer = device.step(() => {
      inner = scale(numbers(device), 2);
      return add(inner, inner);
    });
    const gone = "the tensor made by 'scale' [4] is gone: its step has ended or it was disposed";
    await expect(inner!.read()).rejects.toThrow(`read: ${gone}`);
    expect(() => device.step(() => add(inner!, outer))).toThrow(`add: ${gone}`);
    expect(() => device.step(() => add(outer, inner!))).toThrow(`add: ${gone}`);
    expect(() => device.step(() => rmsNorm(inner!, outer))).toThrow(`rmsNorm: ${gone}`);
    expect(() => device.step(() => reshape(inner!, [2, 2]))).toThrow(`reshape: ${gone}`);
    expect(() => device.step(() => stopGradient(inner!))).toThrow(`stopGradient: ${gone}`);
    expect(() => inner!.write([1, 2, 3, 4])).toThrow(`write: ${gone}`);
    outer.dispose();
    await expect(outer.read()).rejects.toThrow("read: the tensor made by 'add' [4] is gone");
  });

  test('ops and backward run in a step only, and steps do not nest', async () => {
    const device = await open();
    using x = numbers(device);
    expect(() => add(x, x)).toThrow('add: ops run inside device.step(() => ...)');
    expect(() => backward(x)).toThrow('backward: ops run inside device.step(() => ...)');
    expect(() => device.step(() => device.step(() => 1))).toThrow('device.step: steps do not nest');
    expect(
      device.step(() => 1),
      'the step before has ended',
    ).toBe(1);
    expect(() => device.step(() => scale(x, 2).dispose())).toThrow(
      "dispose: 'scale' belongs to a step, which frees it",
    );
    expect(() => device.step(() => scale(x, 2).write([0, 0, 0, 0]))).toThrow("write: 'scale' belongs to a step");
  });

  test('an error ends the step, and leaves the device as it was', async () => {
    const device = await open();
    let lost: Tensor | null = null;
    expect(() =>
      device.step(() => {
        lost = scale(numbers(device), 2);
        throw new Error('in the middle');
      }),
    ).toThrow('in the middle');
    await expect(lost!.read()).rejects.toThrow('is gone');
    await expect(
      device.step(async () => {
        await scale(numbers(device), 2).read();
        throw new Error('later');
      }),
    ).rejects.toThrow('later');
    using y = device.step(() => scale(numbers(device), 2));
    expect([...(await y.read())]).toEqual([2, 4, 6, 8]);
  });

  test('a step may wait', async () => {
    const device = await open();
    using y = await device.step(async () => {
      const x = numbers(device);
      const [first] = await x.read();
      return scale(x, first + 1);
    });
    expect([...(await y.read())]).toEqual([2, 4, 6, 8]);
  });

  test('200 steps of training take no more memory than the first', async () => {
    const device = await open();
    using weight = parameter(device, normals(64 * 64, 1), [64, 64], { name: 'weight' });
    const step = async () => {
      zeroGradients([weight]);
      const loss = device.step(() => {
        const x = tensor(device, normals(8 * 64, 2), [8, 64]);
        const y = matmul(x, weight);
        const result = sum(multiply(y, y));
        backward(result);
        return result;
      });
      const [value] = await loss.read();
      loss.dispose();
      return value;
    };
    await step();
    const second = await step();
    const { bytes } = device.memory;
    const values = new Set<number>();
    for (let i = 0; i < 200; i++) values.add(await step());
    expect(device.memory.bytes).toBe(bytes);
    expect([...values], 'the same step gives the same bits').toEqual([second]);
  });

  test('what throws leaves no freed buffer in the pool of steps', async () => {
    const { memory } = await open();
    const { bytes } = memory;
    const made: GPUBuffer[] = [];
    const work = () => {
      made.push(memory.take(12_345_678, 'given back'));
      memory.give(made[0]);
      throw new Error('too late');
    };
    expect(() => memory.allOrNothing(work)).toThrow('too late');
    expect(memory.bytes).toBeLessThanOrEqual(bytes);
    const next = memory.take(12_345_678, 'next');
    expect(next).not.toBe(made[0]);
    memory.give(next);
  });

  test('more dispatches in a step than one submit takes', async () => {
    const device = await open();
    using y = device.step(() => {
      let x = tensor(device, [0, 1, 2, 3], [4]);
      const one = tensor(device, [1], []);
      for (let i = 0; i < 700; i++) x = add(x, one);
      return x;
    });
    expect([...(await y.read())]).toEqual([700, 701, 702, 703]);
  });
});
