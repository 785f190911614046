import { describe, expect, test } from 'vitest';
import { backward, captureStep, hostTensor, ParameterSet, type Tensor, tensor } from '../../engine/index.ts';
import { AdamW, multiply, scale, sum } from '../../kernels/index.ts';
import { testDevice } from '../support/devices.ts';

describe('what a captured step refuses', () => {
  const pair = { x: { shape: [2, 2] }, ids: { shape: [3], dtype: 'u32' } } as const;
  const good = { x: [1, 2, 3, 4], ids: [0, 1, 2] };

  test.each<[string, Record<string, number[]>, string]>([
    [
      'another length',
      { ...good, ids: [0, 1] },
      "step 'pair': input 'ids' has shape [2]; expected the 3 numbers of [3]",
    ],
    [
      'another length',
      { ...good, x: [1, 2, 3] },
      "step 'pair': input 'x' has shape [3]; expected the 4 numbers of [2, 2]",
    ],
    ['an input too few', { x: good.x }, "step 'pair': input 'ids' is missing"],
    ['an input too many', { ...good, y: [1] }, "step 'pair': no input 'y'; it has x, ids"],
  ])('%s', async (_, data, message) => {
    const device = await testDevice('floor');
    using step = captureStep(device, pair, ({ x }) => ({ y: scale(x, 2) }), { name: 'pair' });
    await expect(step.run(data as typeof good), 'at the first run').rejects.toThrow(message);
    await step.run(good);
    await expect(step.run(data as typeof good), 'later').rejects.toThrow(message);
    expect([...(await (await step.run(good)).y.read())]).toEqual([2, 4, 6, 8]);
  });

  test('reading, waiting and results that are no tensors', async () => {
    const device = await testDevice('floor');
    const attempt = async (fn: (inputs: { x: Tensor }) => unknown) => {
      using step = captureStep(device, { x: pair.x }, fn as () => Record<string, Tensor>, { name: 'wrong' });
      await step.run({ x: good.x });
    };
    await expect(attempt(({ x }) => ({ y: scale(x, 2).read() }))).rejects.toThrow(
      "read: 'scale' is read while step 'wrong' is captured; return it, and read what run gives",
    );
    const shape = "step 'wrong': its function returns a record of tensors, and no promise";
    await expect(attempt(async ({ x }) => ({ y: await scale(x, 2).read() }))).rejects.toThrow(shape);
    await expect(attempt(({ x }) => scale(x, 2))).rejects.toThrow(shape);
    await expect(attempt(({ x }) => ({ y: scale(x, 2), n: 1 }))).rejects.toThrow(shape);
    await expect(attempt(() => undefined)).rejects.toThrow(shape);
    using y = device.step(() => scale(tensor(device, [1], [1]), 2));
    expect([...(await y.read())], 'the device goes on').toEqual([2]);
  });

  test('tensors whose memory is gone, and learning rates that would stay those of the first run', async () => {
    const device = await testDevice('floor');
    using set = new ParameterSet(device, [{ name: 'weight', shape: [4], group: 'all' }]);
    using optimizer = new AdamW(set);
    const attempt = async (fn: () => Record<string, Tensor>) => {
      using step = captureStep(device, {}, fn, { name: 'wrong' });
      await step.run({});
    };
    const gone = () => {
      const made = scale(tensor(device, [1], [1]), 2);
      device.currentStep('test').release(made.buffer);
      return { made };
    };
    await expect(attempt(gone)).rejects.toThrow("step 'wrong': the tensor made by 'scale' [1] is gone");
    const rate = () => {
      backward(sum(multiply(set.get('weight'), set.get('weight'))));
      optimizer.step(0.01);
      return {};
    };
    await expect(attempt(rate)).rejects.toThrow("AdamW: step 'wrong' would keep the learning rate of its first run");
  });

  test('numbers on the host that another run may change', async () => {
    const device = await testDevice('floor');
    using outliving = tensor(device, [1, 2, 3], [3], { dtype: 'u32' });
    const attempt = async (fn: (ids: Tensor) => unknown) => {
      const run = ({ ids }: { ids: Tensor }) => {
        fn(ids);
        return { ids };
      };
      using step = captureStep(device, { ids: pair.ids }, run, { name: 'frozen' });
      await step.run({ ids: good.ids });
    };
    const frozen = (name: string) => `hostData of '${name}' is read while step 'frozen' is captured`;
    await expect(attempt((ids) => ids.hostData)).rejects.toThrow(frozen('ids'));
    await expect(attempt(() => outliving.hostData)).rejects.toThrow(frozen('tensor'));
    const copied = (ids: Tensor) => hostTensor(device, [ids], (numbers) => numbers, [3], { dtype: 'u32' });
    await expect(attempt((ids) => copied(ids).hostData)).rejects.toThrow(frozen('tensor'));
    await expect(attempt(() => outliving.write([4, 5, 6]))).rejects.toThrow(
      "write: 'tensor' outlives step 'frozen', which would write the numbers of its first run for ever; give them to run as an input",
    );
    expect([...outliving.hostData!]).toEqual([1, 2, 3]);
    const onDevice = () => hostTensor(device, [scale(tensor(device, [1], [1]), 2)], (numbers) => numbers, [1]);
    await expect(attempt(onDevice)).rejects.toThrow("hostTensor: the host did not write the numbers of 'scale'");
    expect(() => device.step(onDevice)).toThrow("hostTensor: the host did not write the numbers of 'scale'");
    // Numbers that are the same in every run may be read.
    await attempt(() => expect([...tensor(device, [7], [1], { dtype: 'u32' }).hostData!]).toEqual([7]));
  });

  test('running inside a step, before the first run, and after it is disposed of', async () => {
    const device = await testDevice('floor');
    const { bytes } = device.memory;
    const step = captureStep(device, { x: pair.x }, ({ x }) => ({ y: scale(x, 2), x }));
    await expect(device.step(() => step.run({ x: good.x }))).rejects.toThrow(
      "step 'step': runs outside of device.step",
    );
    expect(() => step.list()).toThrow("list: step 'step' has not run yet");
    expect(() => step.stats()).toThrow("stats: step 'step' has not run yet");
    const { y, x } = await step.run({ x: good.x });
    step.dispose();
    step.dispose();
    await expect(step.run({ x: good.x })).rejects.toThrow("step 'step' was disposed of");
    expect(() => step.stats()).toThrow("step 'step' was disposed of");
    for (const output of [x, y]) await expect(output.read()).rejects.toThrow('is gone');
    device.memory.trim();
    expect(device.memory.bytes).toBeLessThanOrEqual(bytes);
  });
});
