import { expect, test } from 'vitest';
import {
  backward,
  captureStep,
  type Device,
  hostTensor,
  ParameterSet,
  parseKernel,
  persistentTensor,
  type Tensor,
  tensor,
  zeroGradients,
} from '../../engine/index.ts';
import { add, embedding, gelu, matmul, meanSquaredError, multiply, scale, sum } from '../../kernels/index.ts';
import { countCalls } from '../support/count-calls.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';
import { normals } from '../support/numbers.ts';

/** Adam without corrections: rate and decay of the moments are data. */
const adam = parseKernel(
  'test-adam',
  `struct Shape { elements: u32 }
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read> rate: array<f32>;
@group(0) @binding(3) var<storage, read_write> value: array<f32>;
@group(0) @binding(4) var<storage, read_write> first: array<f32>;
@group(0) @binding(5) var<storage, read_write> second: array<f32>;
@compute @workgroup_size(64) fn update(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  if (i >= shape.elements) { return; }
  first[i] = 0.9 * first[i] + 0.1 * gradient[i];
  second[i] = 0.95 * second[i] + 0.05 * gradient[i] * gradient[i];
  value[i] -= rate[0] * first[i] / (sqrt(second[i]) + 1e-8);
}
`,
);

const [TOKENS, WIDTH, HIDDEN, VOCABULARY] = [6, 8, 12, 10];
const declared = {
  ids: { shape: [2, TOKENS / 2], dtype: 'u32' },
  target: { shape: [2, TOKENS / 2, WIDTH] },
  rate: { shape: [] },
} as const;
type Inputs = Readonly<Record<keyof typeof declared, Tensor>>;

/** One for each id and column. */
const factors = (ids: ArrayLike<number>) =>
  Array.from({ length: TOKENS * WIDTH }, (_, i) => 1 / (1 + ids[Math.floor(i / WIDTH)]));

const dataOf = (step: number) => ({
  ids: Uint32Array.from({ length: TOKENS }, (_, i) => (7 * step + 3 * i) % VOCABULARY),
  target: normals(TOKENS * WIDTH, 100 + step),
  rate: Float32Array.of(0.01 / (1 + step)),
});

/** A network of two layers with its optimizer. */
class Network implements Disposable {
  readonly parameters: ParameterSet;
  readonly moments: readonly Tensor[];

  constructor(readonly device: Device) {
    this.parameters = new ParameterSet(
      device,
      Object.entries({ table: [VOCABULARY, WIDTH], up: [WIDTH, HIDDEN], bias: [HIDDEN], down: [HIDDEN, WIDTH] }).map(
        ([name, shape]) => ({ name, shape, group: 'all' }),
      ),
    );
    let seed = 0;
    for (const parameter of this.parameters) parameter.write(normals(parameter.size, ++seed, 0.5));
    const { byteLength } = this.parameters.arenas[0].values;
    this.moments = ['first', 'second'].map((name) => persistentTensor(device, [byteLength / 4], 'f32', name));
  }

  step = ({ ids, target, rate }: Inputs): { loss: Tensor; prediction: Tensor } => {
    const { parameters, moments, device } = this;
    parameters.zeroGradients();
    const x = embedding(ids, parameters.get('table'), { scale: Math.sqrt(WIDTH) });
    // Numbers that the host makes of the ids, and others that are always the same.
    const factor = hostTensor(device, [ids], factors, x.shape);
    const shift = tensor(device, normals(WIDTH, 9), [WIDTH]);
    const hidden = gelu(add(matmul(x, parameters.get('up')), parameters.get('bias')));
    const prediction = add(multiply(add(matmul(hidden, parameters.get('down')), shift), factor), x);
    const loss = meanSquaredError(prediction, target);
    backward(loss);
    const { values, gradients } = parameters.arenas[0];
    device.dispatch({
      kernel: adam,
      entry: 'update',
      bindings: { gradient: gradients(), rate, value: values, first: moments[0], second: moments[1] },
      uniform: { elements: values.byteLength / 4 },
      workgroups: [Math.ceil(values.byteLength / 256)],
    });
    return { loss, prediction };
  };

  dispose(): void {
    this.parameters.dispose();
    for (const moment of this.moments) moment.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** One step as it is without a capture. */
function eagerStep(network: Network, step: number) {
  const { device } = network;
  const data = dataOf(step);
  return device.step(() =>
    network.step({
      ids: tensor(device, data.ids, declared.ids.shape, { dtype: 'u32' }),
      target: tensor(device, data.target, declared.target.shape),
      rate: tensor(device, data.rate, []),
    }),
  );
}

async function bitsOf(
  network: Network,
  outputs: Readonly<Record<string, Tensor>>,
): Promise<Record<string, readonly number[]>> {
  const { parameters, moments } = network;
  const tensors = [
    ...Object.entries(outputs),
    ...[...parameters, ...moments].map((each) => [each.name, each] as const),
  ];
  const read = tensors.map(async ([name, each]) => [name, [...new Uint32Array((await each.read()).buffer)]] as const);
  return Object.fromEntries(await Promise.all(read));
}

describeOnDevices('captured steps', (open) => {
  test.each([false, true])(
    'are bit for bit the eager ones, on new inputs each; cut by an estimate of minutes for each dispatch: %s',
    async (cut) => {
      const device = await open();
      const { limit } = device.pace;
      if (cut) Object.assign(device.pace, { limit: 60, estimate: () => 61 });
      using eager = new Network(device);
      using replayed = new Network(device);
      using step = captureStep(device, declared, replayed.step);
      await step.prepare(dataOf(0));
      expect(step.stats().submits).toBe(cut ? step.stats().dispatches : 1);
      for (let i = 0; i < 6; i++) {
        const expected = eagerStep(eager, i);
        const outputs = await step.run(dataOf(i));
        expect(outputs.prediction.shape).toEqual([2, TOKENS / 2, WIDTH]);
        expect(await bitsOf(replayed, outputs), `step ${i}`).toEqual(await bitsOf(eager, expected));
        for (const each of Object.values(expected)) each.dispose();
      }
      Object.assign(device.pace, { limit });
      Reflect.deleteProperty(device.pace, 'estimate');
      const { submits, arenaBytes, lowerBoundBytes, constantBytes, hostMilliseconds } = step.stats();
      expect(submits, 'the first run took less than a minute').toBe(1);
      const total = arenaBytes.reduce((sum, bytes) => sum + bytes, 0);
      expect(total).toBeGreaterThanOrEqual(lowerBoundBytes);
      expect(total).toBeLessThanOrEqual(1.25 * lowerBoundBytes);
      expect(constantBytes, 'the shift and the gradient of the loss').toBe(4 * (WIDTH + 1));
      expect(hostMilliseconds, 'a browser counts in tenths').toBeGreaterThanOrEqual(0);
    },
  );

  test('200 runs make encoders and nothing else, submit once each, and take no memory', async () => {
    const device = await open();
    using network = new Network(device);
    using step = captureStep(device, declared, network.step);
    await step.run(dataOf(0));
    await step.run(dataOf(1));
    const { bytes } = device.memory;
    const calls = countCalls([device.gpu, /^create/], [device.gpu.queue, /^submit/]);
    const before = device.dispatches;
    for (let i = 0; i < 200; i++) await step.run(dataOf(i));
    expect(calls.end()).toEqual({ createCommandEncoder: 200, submit: 200 });
    expect(device.dispatches - before).toBe(200 * step.stats().dispatches);
    expect(device.memory.bytes).toBe(bytes);
    await device.finish();
  });
});

describeOnDevices('captured steps', (open) => {
  test('a function that throws is captured at the next run', async () => {
    const device = await open();
    let attempts = 0;
    using step = captureStep(device, { x: { shape: [2] } }, ({ x }) => {
      attempts += 1;
      if (attempts === 1) throw new Error('not yet');
      return { y: scale(x, 3) };
    });
    await expect(step.run({ x: [1, 2] })).rejects.toThrow('not yet');
    for (const x of [
      [1, 2],
      [3, 4],
      [5, 6],
    ]) {
      const { y } = await step.run({ x });
      expect([...(await y.read())]).toEqual(x.map((value) => 3 * value));
    }
    expect(attempts).toBe(2);
  });

  test('a read gives the numbers of its moment, whatever runs afterwards', async () => {
    const device = await open();
    using step = captureStep(device, { x: { shape: [2] } }, ({ x }) => ({ y: scale(x, 3) }));
    const reads: Promise<Float32Array>[] = [];
    const outputs = new Set<Tensor>();
    for (let i = 0; i < 5; i++) {
      const { y } = await step.run({ x: [i, -i] });
      outputs.add(y);
      reads.push(y.read());
    }
    expect(outputs.size).toBe(1);
    expect((await Promise.all(reads)).map((values) => values[0])).toEqual([0, 3, 6, 9, 12]);
  });

  test('prepared beforehand: pipelines are told of once, nothing runs, and the first run is like any other', async () => {
    const device = await open();
    const kernel = parseKernel(
      'counting',
      `@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(1) fn forward() { x[0] += 1.0; }
`,
    );
    using count = tensor(device, [5], [1]);
    const told: string[] = [];
    const work = () => {
      for (let i = 0; i < 3; i++)
        device.dispatch({ kernel, entry: 'forward', bindings: { x: count }, workgroups: [1] });
      return {};
    };
    for (const name of ['first', 'second']) {
      using step = captureStep(device, {}, work, {
        onPipeline: ({ label }, done, total) => told.push(`${name}: ${label} ${done}/${total}`),
      });
      await step.prepare({});
      expect(step.stats().dispatches).toBe(3);
      expect([...(await count.read())]).toEqual([name === 'first' ? 5 : 11]);
      await Promise.all([step.run({}), step.run({})]);
      expect([...(await count.read())]).toEqual([name === 'first' ? 11 : 17]);
    }
    expect(told).toEqual(['first: counting forward 1/1']);
  });

  test('what nothing reads is not run', async () => {
    const device = await open();
    using count = tensor(device, [1], [1]);
    using step = captureStep(device, { x: { shape: [2] } }, ({ x }) => {
      const used = scale(x, 3);
      scale(add(scale(used, 2), x), 5);
      device.copy(add(count, count), count, 4);
      return { y: add(used, x) };
    });
    const { y } = await step.run({ x: [1, 2] });
    expect([...(await y.read())]).toEqual([4, 8]);
    expect([...(await count.read())], 'what outlives the step is read').toEqual([2]);
    expect(step.list().map(({ operation }) => operation)).toEqual([
      'elementwise scale',
      'elementwise add',
      'copy',
      'elementwise add',
    ]);
  });

  test('copies, clears, numbers of the host that kernels write over, and numbers made of numbers made of inputs', async () => {
    const device = await open();
    const double = parseKernel(
      'double',
      `@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(4) fn forward(@builtin(local_invocation_index) i: u32) { x[i] *= 2.0; }
`,
    );
    const fn = ({ x }: Readonly<Record<'x', Tensor>>) => {
      const inPlace = tensor(device, [1, 2, 3, 4], [4]);
      const fromInput = hostTensor(device, [x], (numbers) => numbers.map((value) => value + 1), [4]);
      const squares = hostTensor(device, [x, fromInput], (a, b) => a.map((value, i) => value * b[i]), [4]);
      const cleared = add(x, x);
      device.clear(cleared);
      const copied = add(x, x);
      device.copy(inPlace, copied, 16);
      for (const each of [inPlace, fromInput])
        device.dispatch({ kernel: double, entry: 'forward', bindings: { x: each }, workgroups: [1] });
      return { inPlace: scale(inPlace, 1), fromInput, squares, cleared, copied };
    };
    using step = captureStep(device, { x: { shape: [4] } }, fn);
    const text = async (outputs: Readonly<Record<string, Tensor>>) =>
      Promise.all(Object.entries(outputs).map(async ([name, each]) => [name, ...(await each.read())]));
    for (const x of [
      [1, 2, 3, 4],
      [5, 6, 7, 8],
      [-1, 0, 0.5, 2],
    ]) {
      const eager = device.step(() => fn({ x: tensor(device, x, [4]) }));
      const expected = await text(eager);
      for (const each of Object.values(eager)) each.dispose();
      expect(await text(await step.run({ x }))).toEqual(expected);
      expect(expected).toEqual([
        ['inPlace', 2, 4, 6, 8],
        ['fromInput', ...x.map((value) => 2 * (value + 1))],
        ['squares', ...x.map((value) => value * (value + 1))],
        ['cleared', 0, 0, 0, 0],
        ['copied', 1, 2, 3, 4],
      ]);
    }
  });

  test('a buffer that the first run makes is begun once, and gradients that it makes are zeroed in every run', async () => {
    const device = await open();
    using set = new ParameterSet(device, [{ name: 'weight', shape: [2], group: 'all' }]);
    const weight = set.get('weight');
    weight.write([1, 2]);
    let count: Tensor | null = null;
    using step = captureStep(device, { x: { shape: [2] } }, ({ x }) => {
      if (!count) {
        count = persistentTensor(device, [2], 'f32', 'count');
        count.write([100, 200]);
      }
      zeroGradients([weight]);
      backward(sum(multiply(weight, x)));
      device.copy(add(count, x), count, 8);
      return { gradient: weight.grad!, count };
    });
    for (const [run, total] of [
      [101, 202],
      [102, 204],
      [103, 206],
    ].entries()) {
      const { gradient, count: counted } = await step.run({ x: [1, 2] });
      expect([...(await gradient.read())], `run ${run}`).toEqual([1, 2]);
      expect([...(await counted.read())], `run ${run}`).toEqual(total);
    }
    count!.dispose();
  });

  test('what WebGPU refuses names the step and its dispatches; the device goes on', async () => {
    const device = await open();
    const weight = tensor(device, [1, 2, 3, 4], [4]);
    using step = captureStep(device, { x: { shape: [4] } }, ({ x }) => ({ y: scale(add(x, weight), 2) }), {
      name: 'sum',
    });
    await step.run({ x: [1, 2, 3, 4] });
    weight.dispose();
    await expect(step.run({ x: [1, 2, 3, 4] })).rejects.toThrow(
      /^step 'sum', dispatches 1 to 2, the last elementwise scale: .*destroyed/,
    );
    using y = device.step(() => scale(tensor(device, [1], [1]), 2));
    expect([...(await y.read())]).toEqual([2]);
  });

  test('the list is a document: what runs, on how many workgroups, over which bytes', async () => {
    const device = await open();
    using weight = tensor(device, normals(64 * 64, 1), [64, 64]);
    using step = captureStep(device, { x: { shape: [64, 64] } }, ({ x }) => ({
      y: scale(add(scale(x, 2), weight), 3),
    }));
    await step.run({ x: normals(64 * 64, 2) });
    const list = step.list();
    expect(JSON.parse(JSON.stringify(list))).toEqual(list);
    const bytes = 4 * 64 * 64;
    expect(list.map(({ operation, bindings }) => [operation, bindings])).toEqual([
      [
        'elementwise scale',
        [
          { name: 'a', access: 'read', bytes, tensor: 'x', offset: 0 },
          { name: 'y', access: 'read_write', bytes, tensor: 'scale', arena: 0, allocation: 0, offset: 0 },
        ],
      ],
      [
        'elementwise add',
        [
          { name: 'a', access: 'read', bytes, tensor: 'scale', arena: 0, allocation: 0, offset: 0 },
          { name: 'b', access: 'read', bytes, tensor: 'tensor', offset: 0 },
          { name: 'y', access: 'read_write', bytes, tensor: 'add', arena: 1, allocation: 1, offset: 0 },
        ],
      ],
      [
        'elementwise scale',
        [
          { name: 'a', access: 'read', bytes, tensor: 'add', arena: 1, allocation: 1, offset: 0 },
          { name: 'y', access: 'read_write', bytes, tensor: 'scale', offset: 0 },
        ],
      ],
    ]);
    for (const { grid } of list) expect(grid!.length).toBe(3);
  });
});

test('a profile times the dispatches of a run', async ({ skip }) => {
  const device = await testDevice('normal');
  if (!device.features.has('timestamp-query')) skip('this adapter has no timestamps');
  using step = captureStep(device, { x: { shape: [4] } }, ({ x }) => ({ y: scale(add(x, x), 2) }));
  await step.run({ x: [1, 2, 3, 4] });
  const times = await device.profile(() => step.run({ x: [1, 2, 3, 4] }));
  expect(times.map(({ label }) => label)).toEqual(['elementwise add', 'elementwise scale']);
});
