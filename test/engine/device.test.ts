import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import {
  captureStep,
  type Device,
  emptyTensor,
  InputError,
  loadedKernels,
  openDevice,
  parseKernel,
  persistentTensor,
  type Tensor,
  tensor,
} from '../../engine/index.ts';
import { add, linearCrossEntropy, matmul, scale } from '../../kernels/index.ts';
import { testDevice } from '../support/devices.ts';
import { normals } from '../support/numbers.ts';

const copiesOf = (name: string, element: string) =>
  parseKernel(
    name,
    `struct Shape { groups: u32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> x: array<${element}>;
@group(0) @binding(2) var<storage, read_write> y: array<${element}>;
@compute @workgroup_size(1) fn forward(@builtin(workgroup_id) id: vec3u) {
  if (id.x < shape.groups) { y[id.x] = x[id.x]; }
}
`,
  );
const copies = copiesOf('copies', 'vec4f');
const doubled = parseKernel(
  'doubled',
  `@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1) fn forward() { y[0] *= 2; }
`,
);
const broken = parseKernel(
  'broken',
  `@group(0) @binding(0) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(1) fn forward() { y[0] = nothing[0]; }
`,
);

type Settings = Partial<Parameters<Device['dispatch']>[0]>;

describe('kernels in place of others', () => {
  const changed = (from: string, to: string) => parseKernel('copies', copies.source.replace(from, to));
  const copy = (device: Device, x: Tensor) =>
    device.step(() => {
      const y = emptyTensor(device, [4], 'f32', 'copies');
      const bindings = { x, y };
      device.dispatch({ kernel: copies, entry: 'forward', bindings, uniform: { groups: 1 }, workgroups: [1] });
      return y;
    });

  test('run while a function does, and after it, or after its failure, the others run again', async () => {
    const device = await testDevice('normal');
    using x = tensor(device, [1, 2, 3, 4], [4]);
    const twice = changed('x[id.x]', '2 * x[id.x]');
    const read = async () => [...(await copy(device, x).read())];
    expect(await read()).toEqual([1, 2, 3, 4]);
    expect(await device.withKernels([twice], read)).toEqual([2, 4, 6, 8]);
    expect(() =>
      device.withKernels([twice], () => {
        throw new Error('failed');
      }),
    ).toThrow('failed');
    expect(await read()).toEqual([1, 2, 3, 4]);
    await expect(device.withKernels([changed('x[id.x]', 'z')], read)).rejects.toThrow("unresolved value 'z'");
    expect(await read()).toEqual([1, 2, 3, 4]);
  });

  test('the compiler says which line it refuses, as the file stands or as it has been specialised', async () => {
    const device = await testDevice('normal');
    using x = tensor(device, [1, 2, 3, 4], [4]);
    const source = 'const SIZE: u32 = 1u; // @param\n'.concat(copies.source).replaceAll('size(1)', 'size(SIZE)');
    const kernel = parseKernel('sized copies', source);
    device.step(() => {
      const bindings = { x, y: emptyTensor(device, [4], 'f32', 'copies') };
      const rest = { parameters: { SIZE: 2 }, uniform: { groups: 1 }, workgroups: [1] as const };
      device.dispatch({ kernel, entry: 'forward', bindings, ...rest });
    });
    const errors = async (own: string) =>
      (await device.pipelines.compilerErrors(parseKernel('sized copies', own))).map(({ lineNum }) => lineNum);
    expect(await errors(source)).toEqual([]);
    expect(await errors(source.replace('x[id.x]', 'z'))).toEqual([7]);
    expect(await errors(source.replace('x[id.x]', 'x[id.x / (SIZE - 2u)]'))).toEqual([7]);
    await expect(errors(source.replace('// @param', ''))).rejects.toThrow("'SIZE' is not a parameter");
    await device.finish();
  });

  test('every kernel that was loaded is there by its name', () => {
    expect(loadedKernels.get('rms-norm')?.entryPoints).toEqual(['forward', 'backward']);
  });
});

describe('dispatch', () => {
  const run = (device: Device, x: Tensor, settings: Settings) =>
    device.dispatch({
      kernel: copies,
      entry: 'forward',
      bindings: { x },
      uniform: { groups: 1 },
      workgroups: [1],
      ...settings,
    });

  test.each<[string, Settings, string]>([
    ['entry point', { entry: 'backward' }, "kernel copies: no entry point 'backward'; it has forward"],
    ['grid', { workgroups: [65536] }, 'copies forward: a grid of 65536 x 1 x 1 workgroups; each must be an integer'],
    ['part of a grid', { workgroups: [1, 0.5] }, 'copies forward: a grid of 1 x 0.5 x 1 workgroups'],
    ['uniform', { uniform: { rows: 1 } }, 'kernel copies: Shape has no field rows'],
    ['parameter', { parameters: { TILE: 3 } }, "kernel copies: 'TILE' is not a parameter"],
  ])('a wrong %s is refused at once', async (_, settings, message) => {
    const device = await testDevice('floor');
    using x = tensor(device, [1, 2, 3, 4], [4]);
    expect(() => device.step(() => run(device, x, settings))).toThrow(message);
    await device.finish();
  });

  test('a tensor above the limit of a binding is refused before anything is encoded; the loss takes its rows in parts', async () => {
    const device = await openDevice({ adapter: 'null', floor: true });
    using large = persistentTensor(device, [33 * 1024, 1024], 'f32', 'large'); // 132 MiB
    const message =
      "elementwise add: 'a' takes 138412032 bytes, above this device's limit of 134217728 for one binding; make the batch smaller, or cut the tensor along its first axis";
    const { dispatches } = device;
    for (const run of [
      async () => device.step(() => void add(large, tensor(device, [1], []))),
      () => captureStep(device, {}, () => ({ y: add(large, tensor(device, [1], [])) })).run({}),
    ])
      await expect(run()).rejects.toThrow(message);
    expect(device.dispatches).toBe(dispatches);
    device.step(() => {
      const ids = tensor(device, [40, 41], [1, 2], { dtype: 'u32' });
      linearCrossEntropy(tensor(device, new Float32Array(2048), [1, 2, 1024]), large, ids, ids);
    });
    expect(device.dispatches).toBeGreaterThan(dispatches);
    await device.finish();
    device.close();
  });

  test('a binding that is not there, or needs a uniform that is not', async () => {
    const device = await testDevice('floor');
    using x = tensor(device, [1, 2, 3, 4], [4]);
    expect(() => device.step(() => run(device, x, { bindings: { z: x } }))).toThrow(
      "copies forward: no binding 'z'; it has shape, x, y",
    );
    expect(() =>
      device.step(() => run(device, x, { kernel: broken, bindings: { y: x }, uniform: { groups: 1 } })),
    ).toThrow('kernel broken: no uniform binding');
    device.step(() => run(device, x, { kernel: broken, bindings: { y: x }, uniform: undefined }));
    await expect(device.finish()).rejects.toThrow('compiling broken forward {}: Error while parsing WGSL');
  });

  test('pipelines with the same kinds of bindings share a layout, whatever the elements', async () => {
    const device = await testDevice('floor');
    using x = tensor(device, [1, 2, 3, 4], [4]);
    using y = tensor(device, [0, 0, 0, 0], [4]);
    const [vectors, numbers] = [copies, copiesOf('copies of numbers', 'f32')].map((kernel) =>
      device.pipelines.get(kernel, 'forward', {}, ['shape', 'x', 'y']),
    );
    const shape = device.memory.uniform(16, 'shape');
    device.gpu.queue.writeBuffer(shape, 0, new Uint32Array([4]));
    const entries = [shape, x.buffer, y.buffer].map((buffer, binding) => ({ binding, resource: { buffer } }));
    const group = device.gpu.createBindGroup({ layout: vectors.groupLayout, entries });
    // WebGPU refuses a bind group of another layout.
    device.submit('copying', (encoder) => {
      const pass = encoder.beginComputePass();
      pass.setPipeline(numbers.compiled);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(4);
      pass.end();
    });
    expect([...(await y.read())]).toEqual([1, 2, 3, 4]);
    device.memory.free(shape);
  });

  test('what WebGPU refuses is thrown at the next await, once, and the device goes on', async () => {
    const device = await testDevice('floor');
    using x = tensor(device, [1, 2, 3, 4], [4]);
    const wrong: [Settings, RegExp][] = [
      [{ bindings: { x } }, /^compiling copies forward \{\}: Binding doesn't exist in/],
      [{ bindings: { x, y: x } }, /^2 dispatches, the last elementwise scale: /],
    ];
    for (const [settings, message] of wrong) {
      using y = device.step(() => {
        run(device, x, settings);
        return scale(x, 2);
      });
      await expect(y.read()).rejects.toThrow(message);
      await device.finish();
      using z = device.step(() => scale(x, 2));
      expect([...(await z.read())]).toEqual([2, 4, 6, 8]);
    }
  });

  test('with { debug } the error names the op that caused it', async () => {
    const device = await openDevice({ floor: true, debug: true });
    const x = tensor(device, [1, 2, 3, 4], [4]);
    device.step(() => {
      run(device, x, { bindings: { x } });
      scale(x, 2);
    });
    await expect(device.finish()).rejects.toThrow(/^copies forward: Number of entries \(2\) did not match/);
    device.step(() => run(device, x, { kernel: doubled, bindings: { x, y: x }, uniform: undefined }));
    await expect(device.finish()).rejects.toThrow(
      /^doubled forward: .*binding index 0 not present in the bind group layout/,
    );
    device.step(() => run(device, x, { kernel: broken, bindings: { y: x }, uniform: undefined }));
    await expect(device.finish()).rejects.toThrow(/^compiling broken forward \{\}: Error while parsing WGSL/);
    device.close();
  });
});

describe('a device that is gone', () => {
  test('closed: every use says so', async () => {
    const device = await openDevice();
    const x = tensor(device, normals(256 * 256, 1), [256, 256]);
    const product = device.step(() => matmul(x, x));
    const pending = product.read();
    device.close();
    device.close();
    await expect(pending).rejects.toThrow('the device is closed');
    expect(() => device.step(() => add(x, x))).toThrow('the device is closed');
    expect(() => tensor(device, [1], [1])).toThrow('the device is closed');
    expect(() => x.write(new Float32Array(256 * 256))).toThrow('the device is closed');
    await expect(x.read()).rejects.toThrow('the device is closed');
    await expect(device.finish()).rejects.toThrow('the device is closed');
  });

  test('lost: every use says why, and what to do', async () => {
    const device = await openDevice();
    const x = tensor(device, normals(256 * 256, 1), [256, 256]);
    const pending = device.step(() => matmul(x, x)).read();
    device.gpu.destroy();
    const message = /^the device was lost \(destroyed\): .*; open it again and resume from the last checkpoint$/;
    await expect(pending).rejects.toThrow(message);
    expect(() => device.step(() => add(x, x))).toThrow(message);
    await expect(x.read()).rejects.toThrow(message);
    await expect(device.finish()).rejects.toThrow(message);
    device.close();
  });

  test('no adapter of that name', async () => {
    const error = await openDevice({ adapter: 'no such thing' }).catch((error) => error);
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toMatch(/^no WebGPU adapter with 'no such thing' in its name opens .*; there is '.+'$/);
    expect(error.message).not.toContain('\n');
  });
});

test('while a software adapter computes, timers and messages of workers are served', async ({ skip }) => {
  const device = await testDevice('normal');
  if (!device.software) skip('this adapter is no software adapter');
  const worker = new Worker(
    "const { parentPort } = require('node:worker_threads'); parentPort.on('message', (n) => parentPort.postMessage(n + 1));",
    { eval: true },
  );
  try {
    worker.postMessage(0);
    await once(worker, 'message');
    using x = tensor(device, normals(512 * 512, 1, 0.04), [512, 512]);
    using y = device.step(() => {
      let product = x;
      for (let i = 0; i < 30; i++) product = matmul(product, x);
      return product;
    });
    let messages = 0;
    let ticks = 0;
    let done = false;
    worker.on('message', (n: number) => {
      messages += 1;
      if (!done) worker.postMessage(n);
    });
    worker.postMessage(0);
    const timer = setInterval(() => {
      ticks += 1;
    }, 1);
    const values = await y.read();
    done = true;
    clearInterval(timer);
    expect(values.every(Number.isFinite)).toBe(true);
    expect(messages).toBeGreaterThan(1);
    expect(ticks).toBeGreaterThan(1);
  } finally {
    await worker.terminate();
  }
});
