import { copyFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import {
  backward,
  type Device,
  observeOps,
  ParameterSet,
  parameter,
  readSafetensors,
  type Tensor,
  tensor,
} from '../../engine/index.ts';
import { AdamW, type AdamWOptions, FirstNotFinite, GradientNorms, scale, sum } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs } from '../../model/architecture/training-pass.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { BatchMaker } from '../../model/training/batches.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { firstNotFinite } from '../../model/training/diagnosis.ts';
import type { RunListener } from '../../model/training/prepare-run.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { describeOnAllDevices, describeOnDevices } from '../support/devices.ts';
import { long } from '../support/long.ts';
import { expectClose, normals } from '../support/numbers.ts';
import { minutePreset, quietListener } from '../support/synthetic-dataset.ts';
import { tinySizes } from '../support/tiny-sizes.ts';
import { type TestRun, trainRun } from '../support/train-run.ts';

const folder = await mkdtemp(join(tmpdir(), 'insula-numbers-'));
afterAll(() => rm(folder, { recursive: true, force: true }));

/** One parameter in each group; the first fills several slices of an arena. */
const sizes = { backbone: 20_000, expert: 333 } as const;
type Gradients = Readonly<Record<keyof typeof sizes, Float32Array>>;

function parametersOf(device: Device, dtype: 'f32' | 'bf16' = 'f32'): ParameterSet {
  const rows = Object.entries(sizes).map(([group, size]) => ({ name: group, shape: [size], group, dtype }));
  const set = new ParameterSet(device, rows);
  for (const own of set) own.write(normals(own.size, own.size));
  return set;
}

/** Sets the gradients; inside a step. */
function reach(set: ParameterSet, gradients: Gradients): void {
  set.zeroGradients();
  for (const own of set)
    backward(own, { gradient: tensor(set.device, gradients[own.name as keyof Gradients], own.shape) });
}

describeOnAllDevices('norms of gradients', (device) => {
  // Both ends of f32, the borders of the range that is summed at once, and slices of very different magnitudes.
  const magnitudes = [1e-37, 1e-30, 1e-20, 2 ** -33, 2 ** -31, 1, 2 ** 31, 2 ** 33, 1e19, 1e20, 1e30, 5e37];
  const pairs = magnitudes.flatMap((one, i) =>
    (long ? magnitudes : [1, magnitudes.at(-1 - i)!]).map((two) => [one, two]),
  );

  test.each(pairs)('agree with float64 at magnitudes %s and %s, and clip to the maximum', async (one, two) => {
    using set = parametersOf(await device());
    using optimizer = new AdamW(set, { maximumNorm: 0.5, beta1: 0.5 });
    const mixed = normals(sizes.backbone, 1).map((value, i) => value * (i < 10_000 ? one : two));
    const gradients = { backbone: mixed, expert: normals(sizes.expert, 2, one) };
    const expected = [gradients.backbone, gradients.expert].map((own) => reference.gradientNorm([own]));
    set.device.step(() => {
      reach(set, gradients);
      optimizer.step(0.1);
    });
    const { groups, total, usable } = await optimizer.gradientNorms.read();
    expect(usable).toBe(true);
    for (const [i, norm] of [groups.backbone, groups.expert].entries())
      expectClose([norm], [expected[i]], 2e-6, Object.keys(sizes)[i]);
    expectClose([total], [Math.hypot(...expected)], 2e-6, 'total');
    // From moments of zero, m = g / 2.
    const { tensors } = optimizer.state();
    for (const [i, name] of (['backbone', 'expert'] as const).entries()) {
      const clip = Math.min(1, 0.5 / expected[i]);
      const first = await tensors.get(`firstMoment/${name}`)!.read();
      expectClose(
        first,
        Float64Array.from(gradients[name], (g) => (g * clip) / 2),
        2e-6,
        `first moment of ${name}`,
      );
    }
  });

  test('are zero for gradients of zero, and right beyond the largest f32', async () => {
    using set = parametersOf(await device());
    using norms = new GradientNorms(set);
    const gradients = { backbone: new Float32Array(sizes.backbone), expert: new Float32Array(sizes.expert).fill(3e38) };
    set.device.step(() => {
      reach(set, gradients);
      norms.measure();
    });
    const { groups, total } = await norms.read();
    expect(groups.backbone).toBe(0);
    expectClose([groups.expert, total], [3e38 * Math.sqrt(sizes.expert), groups.expert], 1e-6, 'norms');
  });
});

/** Weights, averages and moments, bit by bit. */
async function stateOf(set: ParameterSet, optimizer: AdamW): Promise<Map<string, string>> {
  const all = new Map<string, string>();
  for (const [name, own] of [...Array.from(set, (own) => [own.name, own] as const), ...optimizer.state().tensors])
    all.set(name, bitsOf(await own.read()));
  return all;
}

const bitsOf = ({ buffer, byteOffset, byteLength }: Float32Array) =>
  Buffer.from(buffer, byteOffset, byteLength).toString('base64');

const good = (seed: number): Gradients => ({
  backbone: normals(sizes.backbone, seed),
  expert: normals(sizes.expert, seed + 1),
});

function spoilt(group: keyof Gradients, value: number): Gradients {
  const gradients = good(7);
  gradients[group][sizes[group] - 2] = value;
  return gradients;
}

describeOnDevices('a step is skipped', (device) => {
  const kinds: [string, AdamWOptions, 'f32' | 'bf16'][] = [
    ['f32', { clip: 'perGroup' }, 'f32'],
    ['bf16 moments and weights', { clip: 'together', moments: 'bf16' }, 'bf16'],
    ['8-bit moments', { clip: 'perGroup', moments: '8bit' }, 'f32'],
  ];

  test.each(kinds)('in all groups, to the bit, and the next one is taken: %s', async (_, options, dtype) => {
    using set = parametersOf(await device(), dtype);
    using optimizer = new AdamW(set, { maximumNorm: 1, weightDecay: 0.1, average: 0.5, ...options });
    const step = (gradients: Gradients, losses: readonly number[] = []) =>
      set.device.step(() => {
        reach(set, gradients);
        optimizer.checkLosses(losses.map((loss) => tensor(set.device, Float32Array.of(loss), [])));
        optimizer.step(0.1);
      });
    step(good(1), [1, 2]);
    const before = await stateOf(set, optimizer);
    for (const group of ['backbone', 'expert'] as const)
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
        step(spoilt(group, value));
        const norms = await optimizer.gradientNorms.read();
        const { [group]: own, ...others } = norms.groups;
        expect([norms.usable, norms.total, own]).toEqual([false, Number.NaN, Number.NaN]);
        expect(Object.values(others).every(Number.isFinite)).toBe(true);
        expect(await stateOf(set, optimizer)).toEqual(before);
      }
    for (const loss of [Number.NaN, Number.NEGATIVE_INFINITY, 1e30]) {
      step(good(3), [1, loss, 2]);
      const { usable, total, groups } = await optimizer.gradientNorms.read();
      expect([usable, total]).toEqual([false, Number.NaN]);
      expect(Object.values(groups).every(Number.isFinite)).toBe(true);
      expect(await stateOf(set, optimizer)).toEqual(before);
    }
    step(good(5), [1, 2]);
    expect((await optimizer.gradientNorms.read()).usable).toBe(true);
    const after = await stateOf(set, optimizer);
    for (const [name, bits] of before) expect(after.get(name), name).not.toEqual(bits);
  });

  test('for a loss in an earlier part of the step', async () => {
    using set = parametersOf(await device());
    using optimizer = new AdamW(set);
    const before = await stateOf(set, optimizer);
    for (const loss of [Number.NaN, 1])
      set.device.step(() => optimizer.checkLosses([tensor(set.device, Float32Array.of(loss), [])]));
    for (const usable of [false, true]) {
      set.device.step(() => {
        reach(set, good(1));
        optimizer.step(0.1);
      });
      expect((await optimizer.gradientNorms.read()).usable).toBe(usable);
      if (!usable) expect(await stateOf(set, optimizer)).toEqual(before);
    }
  });

  test('for a finite gradient whose square is beyond f32, unless it is clipped', async () => {
    using set = parametersOf(await device());
    for (const maximumNorm of [undefined, 1e30, 1]) {
      using optimizer = new AdamW(set, { maximumNorm });
      set.device.step(() => {
        reach(set, spoilt('expert', 1e30));
        optimizer.step(0.1);
      });
      const { usable, total } = await optimizer.gradientNorms.read();
      expect(usable).toBe(maximumNorm === 1);
      expectClose([total], [1e30], 1e-6, 'norm');
      for (const own of [...set, ...optimizer.state().tensors.values()])
        expect((await own.read()).every(Number.isFinite)).toBe(true);
    }
  });
});

describeOnDevices('the first tensor that is not finite', (device) => {
  test.each(['f32', 'bf16', 'f16'] as const)('is found among others, with its numbers counted: %s', async (dtype) => {
    const opened = await device();
    using numbers = new FirstNotFinite(opened);
    const values = [[1, -2, 3e4], [0, Number.NaN, Number.NEGATIVE_INFINITY], new Array(70_001).fill(Number.NaN)];
    opened.step(() => {
      for (const own of values) numbers.search(tensor(opened, Float32Array.from(own), [own.length], { dtype }));
    });
    expect(await numbers.read()).toEqual({ index: 1, elements: 2 });
    using none = new FirstNotFinite(opened);
    opened.step(() => {
      none.search(tensor(opened, Float32Array.of(1, 2, 3), [3], { dtype }));
      none.search(tensor(opened, Uint32Array.of(0x7f800000), [1], { dtype: 'u32' }));
    });
    expect(await none.read()).toBeNull();
  });

  test('may be made by a backward rule', async () => {
    const opened = await device();
    using x = parameter(opened, Float32Array.of(1e-30, -1e-30), [2], { name: 'x' });
    using numbers = new FirstNotFinite(opened);
    const seen: string[] = [];
    opened.step(() => {
      observeOps(opened, (phase, op, results) => {
        for (const result of results) if (result) seen[numbers.search(result as Tensor)] = `${phase} ${op}`;
      });
      backward(sum(scale(scale(x, 1e30), 1e30)));
    });
    const found = await numbers.read();
    expect([seen[found!.index], found!.elements]).toEqual(['backward scale', 2]);
    expect(seen.slice(0, 2)).toEqual(['forward scale', 'forward scale']);
  });

  // A weight of a width that is not a multiple of four is copied first, and has no name then.
  const places: [string, number, RegExp][] = [
    ['action_in_proj.weight', Number.NaN, /^the weight 'action_in_proj\.weight', \[24, 3\], in 1 number$/],
    [
      'action_out_proj.weight',
      1e38,
      /^the result of linear with 'action_out_proj\.weight', \[2, 4, 4\], in \d+ numbers$/,
    ],
    ['action_in_proj.weight', 3e38, /^the result of linear with 'action_in_proj\.bias', \[2, 4, 24\], in \d+ numbers$/],
  ];
  test.each(places)('of a model with %s holding %s', async (name, value, words) => {
    const configuration = configurationOf(systemNamed('pi0'), tinySizes);
    using model = new Model(await device(), configuration);
    model.initialise(1);
    const inputs = trainingInputs(model.architecture, randomBatch(configuration, 2, 3));
    expect(await firstNotFinite(model, inputs)).toBeNull();
    const weight = model.parameters.get(name);
    const values = await weight.read();
    if (Number.isNaN(value)) values[4] = value;
    else values.fill(value);
    weight.write(values);
    expect(await firstNotFinite(model, inputs)).toMatch(words);
  });
});

const makeBatch = BatchMaker.prototype.make;

/** Has the batches of these training steps (from 1), and of these measurements, hold `value` as an action: its square has no place in f32. */
function spoilBatches(steps: readonly number[], { value = 3e38, measured = [] as readonly number[] } = {}): void {
  const spy = vi.spyOn(BatchMaker.prototype, 'make').mockImplementation(async function (this: BatchMaker, ...given) {
    const batch = await makeBatch.apply(this, given);
    const [, step, { use = 'measuring' } = {}] = given;
    const spoilt = use === 'training' ? steps.includes(step + 1) : measured.includes(step % 2 ** 31);
    if (spoilt) batch.actions!.fill(value, 0, 1);
    return batch;
  });
  onTestFinished(() => spy.mockRestore());
}

async function run(file: string, given: TestRun & { stopAt?: number; saved?: RunListener['saved'] } = {}) {
  const notes: string[] = [];
  const controller = new AbortController();
  const { stopAt, saved = () => {}, ...options } = given;
  const listener = quietListener({
    saved,
    note: (line) => notes.push(line),
    step: (step) => step === stopAt && controller.abort(),
  });
  const { history, policy, finished } = await trainRun(join(folder, file), {
    ...options,
    listener,
    signal: controller.signal,
  });
  policy.model.dispose();
  return { notes, history, finished };
}

async function tensorsOf(file: string): Promise<Map<string, string>> {
  const opened = await readSafetensors(join(folder, file));
  const tensors = new Map<string, string>();
  for (const [name, { shape }] of opened.tensors)
    tensors.set(name, bitsOf(await opened.readFloat32(name, { shape: [...shape] })));
  await opened.close();
  return tensors;
}

describe('a run with batches that are not finite', () => {
  test.each([{}, { accumulate: 2, moments: '8bit', ema: 0.5, precision: 'bf16' }] as const)(
    'skips them, says where, and resumes to the same bits: %o',
    async (given) => {
      spoilBatches([2, 5]);
      const whole = await run('whole', { ...given, steps: 7 });
      expect(whole.finished).toBe(true);
      expect(whole.history.skipped).toEqual([2, 5]);
      expect(whole.history.training.map(({ step }) => step)).toEqual([1, 3, 4, 6, 7]);
      const skips = whole.notes.filter((line) => line.includes('was skipped'));
      expect(skips).toHaveLength(2);
      expect(skips[0]).toMatch(
        /^training step 2 was skipped, and changed nothing: the flow loss is Infinity, the gradient of .* is not finite; first not finite: the result of \w+.*, \[.*\], in \d+ numbers?$/,
      );
      await run('resumed', { ...given, steps: 7, stopAt: 3 });
      const { history } = await run('resumed', { steps: 7, resume: await openCheckpoint(join(folder, 'resumed')) });
      expect(history.skipped).toEqual([2, 5]);
      expect(await tensorsOf('resumed')).toEqual(await tensorsOf('whole'));
    },
  );

  test('keeps the checkpoint before them, bit by bit', async () => {
    spoilBatches([2, 3]);
    const saved = (step: number, path: string) => copyFileSync(path, `${path}-${step}`);
    const { history } = await run('kept', { preset: { ...minutePreset, saveEvery: 1 }, steps: 5, saved });
    expect(history.skipped).toEqual([2, 3]);
    const [one, two, three, four] = await Promise.all([1, 2, 3, 4].map((step) => tensorsOf(`kept-${step}`)));
    expect(two).toEqual(one);
    expect(three).toEqual(one);
    expect(four).not.toEqual(one);
  });

  test('ends after ten of them in a hundred steps, and keeps its last checkpoint', async () => {
    spoilBatches(Array.from({ length: 20 }, (_, i) => i + 4));
    const preset = { ...minutePreset, saveEvery: 3 };
    const notes: string[] = [];
    const listener = quietListener({ note: (line) => notes.push(line) });
    await expect(trainRun(join(folder, 'ended'), { preset, steps: 40, listener })).rejects.toThrow(
      'training has diverged: 10 of the last 13 steps had a loss or a gradient that was not finite',
    );
    expect(notes.filter((line) => line.includes('was skipped'))).toHaveLength(10);
    const kept = await openCheckpoint(join(folder, 'ended'));
    expect(kept.progress.step).toBe(12);
    expect(kept.progress.history.skipped).toEqual([4, 5, 6, 7, 8, 9, 10, 11, 12]);
    await kept.close();
  });

  test('ends where no step of a short run was taken', async () => {
    spoilBatches([1, 2]);
    await expect(trainRun(join(folder, 'short'), { steps: 2 })).rejects.toThrow('2 of the last 2 steps');
  });
});

test('held-out losses and gradient norms that are not finite are left out, and said', async () => {
  // The last gradient norms are those of the batch that would come next.
  spoilBatches([7], { measured: [0, 1, 2] });
  const { history, notes } = await run('measured', { steps: 6 });
  expect(history.heldOut.map(({ step, losses }) => [step, Object.keys(losses)])).toEqual([
    [0, []],
    [6, []],
  ]);
  expect(history.gradients.every(({ step, norm }) => step === 0 && Number.isFinite(norm))).toBe(true);
  const left = notes.filter((line) => line.includes('left out'));
  expect(left).toHaveLength(2);
  expect(left[0]).toBe('measured after step 0, and left out: the flow loss is Infinity');
  expect(left[1]).toMatch(
    /^measured after step 6, and left out: the flow loss is Infinity, the gradient norm of the flow loss on \w+ is NaN/,
  );
});
