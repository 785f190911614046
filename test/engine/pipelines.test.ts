import { describe, expect, test } from 'vitest';
import { captureStep, type Device, openDevice, parseKernel, tensor } from '../../engine/index.ts';
import { Pipelines } from '../../engine/pipelines.ts';
import { countCalls } from '../support/count-calls.ts';
import { testDevice } from '../support/devices.ts';

/** y = x times the last of `count` op parameters. */
function scaling(count: number) {
  const fields = Array.from({ length: count }, (_, i) => `f${i}`);
  const kernel = parseKernel(
    `scaling by ${count}`,
    `struct Shape { ${fields.map((field) => `${field}: f32`).join(', ')} }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(4) fn forward(@builtin(local_invocation_index) i: u32) { y[i] = x[i] * shape.f${count - 1}; }
`,
  );
  return { kernel, uniform: (factor: number) => Object.fromEntries(fields.map((field) => [field, factor])) };
}

test.each([1, 16, 17, 40])('%i op parameters arrive, as immediates or in a uniform buffer', async (count) => {
  const { kernel, uniform } = scaling(count);
  for (const kind of ['normal', 'floor'] as const) {
    const device = await testDevice(kind);
    using weights = tensor(device, [1, 2, 3, 4], [4]);
    const results = [5, 7].map((factor) => {
      const y = tensor(device, [0, 0, 0, 0], [4]);
      return { factor, y, bindings: { x: weights, y } };
    });
    const dispatchAll = () => {
      for (const { factor, bindings } of results)
        device.dispatch({ kernel, entry: 'forward', bindings, uniform: uniform(factor), workgroups: [1] });
      return {};
    };
    device.step(dispatchAll);
    for (const { y, factor } of results) expect([...(await y.read())]).toEqual([1, 2, 3, 4].map((x) => x * factor));
    using step = captureStep(device, {}, dispatchAll);
    weights.write([2, 4, 6, 8]);
    await step.run({});
    for (const { y, factor } of results) {
      expect([...(await y.read())]).toEqual([2, 4, 6, 8].map((x) => x * factor));
      y.dispose();
    }
  }
});

describe('kernels with subgroup operations', () => {
  const kernel = parseKernel(
    'adding',
    `enable subgroups;
@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@compute @workgroup_size(32) fn forward() { x[0] = subgroupAdd(1u); }
`,
  );
  const pipelines = ({ errors }: Device, features: string[], sizes: [number, number]) =>
    new Pipelines({ features: new Set(features) } as unknown as GPUDevice, errors, 0, sizes, true);

  test('are refused where subgroups may have another size', async () => {
    const device = await testDevice('floor');
    const refused = (features: string[], parameters: Record<string, number>, message: string) =>
      expect(() => pipelines(device, features, [16, 32]).get(kernel, 'forward', parameters, ['x'])).toThrow(
        new Error(`kernel adding: ${message}`),
      );
    const control = ['subgroups', 'subgroup-size-control'];
    refused(control, {}, "it has subgroup operations, and no 'subgroupSize' among its parameters");
    const without = "made for subgroups of 16 lanes; this device's have 16 to 32, and it lacks 'subgroup-size-control'";
    refused(['subgroups'], { subgroupSize: 16 }, without);
    expect(pipelines(device, control, [16, 32]).get(kernel, 'forward', { subgroupSize: 16 }, ['x'])).toBeDefined();
    expect(pipelines(device, [], [16, 16]).get(kernel, 'forward', { subgroupSize: 16 }, ['x'])).toBeDefined();
  });

  test('run at the size that they were made for', async ({ skip }) => {
    const device = await testDevice('normal');
    if (!device.features.has('subgroups')) skip('this adapter has no subgroups');
    const [subgroupSize] = device.subgroupSizes;
    using x = tensor(device, [0], [1], { dtype: 'u32' });
    const parameters = { subgroupSize };
    device.step(() => device.dispatch({ kernel, entry: 'forward', parameters, bindings: { x }, workgroups: [1] }));
    expect([...(await x.read('u32'))]).toEqual([subgroupSize]);
  });
});

describe('pipelines of a step, side by side', () => {
  const writing = (name: string, value: string) =>
    parseKernel(
      name,
      `@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(1) fn forward() { x[0] = ${value}; }
`,
    );
  const dispatches = (device: Device, values: readonly string[]) => {
    const x = tensor(device, [0], [1]);
    for (const [i, value] of values.entries())
      device.dispatch({
        kernel: writing(`writing ${value} at ${i}`, value),
        entry: 'forward',
        bindings: { x },
        workgroups: [1],
      });
    return { x };
  };

  test('are told of as they get ready; one that does not compile is named, and the device goes on', async () => {
    const device = await testDevice('floor');
    const { atOnce } = device.pipelines;
    device.pipelines.atOnce = 3;
    const told: string[] = [];
    const stepOf = (...values: string[]) =>
      captureStep(device, {}, () => dispatches(device, values), {
        onPipeline: ({ label }, done, total) => told.push(`${label} ${done}/${total}`),
      });
    using good = stepOf('1.0', 'x[0] + 2.0', 'x[0] + 3.0', 'x[0] + 4.0');
    expect([...(await (await good.run({})).x.read())]).toEqual([10]);
    expect(told.map((line) => line.slice(-3))).toEqual(['1/4', '2/4', '3/4', '4/4']);
    expect(told.map((line) => line.match(/at (.)/)![1]).sort()).toEqual(['0', '1', '2', '3']);
    using bad = stepOf('1.0', 'x[0] + 2.0', 'nothing', 'x[0] + 4.0');
    for (let i = 0; i < 2; i++)
      await expect(bad.run({})).rejects.toThrow(
        /^compiling writing nothing at 2 forward \{\}: Error while parsing WGSL/,
      );
    expect([...(await (await good.run({})).x.read())]).toEqual([10]);
    device.pipelines.atOnce = atOnce;
  });

  test('a device that is lost meanwhile is one error, and nothing goes on', async () => {
    const device = await openDevice({ adapter: 'null' });
    using step = captureStep(device, {}, () => dispatches(device, ['1.0', '2.0', '3.0']));
    const preparing = step.prepare({});
    device.gpu.destroy();
    await expect(preparing).rejects.toThrow(/^the device was lost \(destroyed\)/);
    await expect(step.run({})).rejects.toThrow(/^the device was lost \(destroyed\)/);
    device.close();
  });
});

test('a graphics adapter gets a submit for each half second of estimated work, or as the first run took', async () => {
  const device = await openDevice({ adapter: 'null' });
  const { kernel, uniform } = scaling(1);
  const work = () => {
    const bindings = { x: tensor(device, [1], [1]), y: tensor(device, [0], [1]) };
    for (const flops of [2e10, 2e10, 2e10, 9e10, 1e9])
      device.dispatch({ kernel, entry: 'forward', bindings, uniform: uniform(1), workgroups: [1], flops });
    return { y: bindings.y };
  };
  const calls = countCalls([device.gpu.queue, /^submit/]);
  device.step(work);
  expect(calls.end()).toEqual({ submit: 4 });
  using step = captureStep(device, {}, work);
  await step.prepare({});
  expect(step.stats().submits).toBe(4);
  await (await step.run({})).y.read();
  await device.finish();
  expect(step.stats().submits, 'this backend computes nothing').toBe(1);
  device.close();
});
