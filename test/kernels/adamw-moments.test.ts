import { expect, test } from 'vitest';
import { decodeBfloat16, encodeBfloat16 } from '../../engine/files/half.ts';
import { backward, type Device, ParameterSet, philox, streams, type Tensor, tensor } from '../../engine/index.ts';
import { AdamW, type AdamWOptions } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { describeOnAllDevices } from '../support/devices.ts';
import { expectClose, normals } from '../support/numbers.ts';

const packed = ['bf16', '8bit'] as const;
const sizes = [700, 5, 130];
const options = { beta1: 0.75, beta2: 0.875, weightDecay: 0.125 };

/** Parameters of the given sizes, all of one group and arena, with their optimizer. */
class Training implements Disposable {
  readonly parameters: ParameterSet;
  readonly optimizer: AdamW;

  constructor(
    readonly device: Device,
    all: readonly number[],
    settings: AdamWOptions,
    dtype: 'f32' | 'bf16' = 'f32',
  ) {
    const group = 'all';
    this.parameters = new ParameterSet(
      device,
      all.map((size, i) => ({ name: `p${i}`, shape: [size], group, dtype })),
    );
    for (const [i, parameter] of [...this.parameters].entries())
      parameter.write(decodeBfloat16(encodeBfloat16(normals(parameter.size, i))));
    this.optimizer = new AdamW(this.parameters, settings);
  }

  step(rate: number, gradient: (parameter: Tensor) => Float32Array): void {
    this.device.step(() => {
      this.parameters.zeroGradients();
      for (const parameter of this.parameters)
        backward(parameter, { gradient: tensor(this.device, gradient(parameter), parameter.shape) });
      this.optimizer.step(rate);
    });
  }

  /** Bits of the values of all parameters, and the numbers of both moments of the first. */
  async read() {
    const moment = (which: string) => this.optimizer.state().tensors.get(`${which}Moment/p0`)!.read();
    const values = await Promise.all([...this.parameters].map((parameter) => parameter.read()));
    return { values, first: await moment('first'), second: await moment('second') };
  }

  [Symbol.dispose](): void {
    this.optimizer.dispose();
    this.parameters.dispose();
  }
}

/** Numbers of magnitudes from 1e-4 to 1, as gradients are. */
const spread = (size: number, seed: number) =>
  normals(size, seed).map((value) => value * Math.exp(-Math.abs(9 * value)));

describeOnAllDevices('AdamW with packed moments', (open) => {
  test.each(packed)(
    'the first step is that of f32 to the last bit; %s moments are within a place of it',
    async (moments) => {
      const device = await open();
      using exact = new Training(device, sizes, options);
      using training = new Training(device, sizes, { ...options, moments, seed: 3 });
      for (const each of [exact, training]) each.step(0.1, ({ size }) => spread(size, size));
      const [expected, found] = [await exact.read(), await training.read()];
      expect(found.values).toEqual(expected.values);
      for (const which of ['first', 'second'] as const) {
        // bfloat16: 2^-7 of the number. 8 bits: 2^-3, or a unit of the lowest exponent.
        const unit = which === 'first' ? 2 ** -17 : 2 ** -33;
        let inexact = 0;
        expected[which].forEach((value, i) => {
          const block = expected[which].subarray(i - (i % 64), i - (i % 64) + 64);
          const scale = 2 ** Math.ceil(Math.log2(block.reduce((most, other) => Math.max(most, Math.abs(other)), 0)));
          const allowed = moments === 'bf16' ? 2 ** -7 * Math.abs(value) : Math.max(Math.abs(value) / 8, unit * scale);
          const error = Math.abs(found[which][i] - value);
          if (error > 0) inexact += 1;
          if (error > allowed) expect.fail(`${which} ${i}: ${found[which][i]} for ${value}`);
          if (which === 'second' && value > 0) expect(found.second[i]).toBeGreaterThan(0);
        });
        expect(inexact).toBeGreaterThan(600);
      }
    },
  );

  test('bfloat16 is rounded by the bits of the counter-based generator', async () => {
    const device = await open();
    const seed = 7 * 2 ** 32 + 11;
    using exact = new Training(device, [700], options);
    using training = new Training(device, [700], { ...options, moments: 'bf16', seed });
    for (const each of [exact, training]) each.step(0.1, ({ size }) => spread(size, size));
    const [expected, found] = [await exact.read(), await training.read()];
    const random = (i: number) => philox([11, 7], [Math.floor(i / 4), 0, 1, streams.rounding])[i % 4];
    expect(found.first).toEqual(reference.roundedMoment(expected.first, random, 0));
    expect(found.second).toEqual(reference.roundedMoment(expected.second, random, 16));
  });

  test.each(packed)('rounding %s moments is right on average', async (moments) => {
    const device = await open();
    const size = 64 * 512;
    using training = new Training(device, [size], { ...options, moments, seed: 5 });
    // In every block the first element sets the scale and the others are alike, block by block another number.
    const gradient = Float32Array.from({ length: size }, (_, i) =>
      i % 64 === 0 ? 1 : (0.6 * (1 + (i >> 6) / 512)) / 2 ** ((i >> 6) % 12),
    );
    training.step(0.1, () => gradient);
    const { first, second } = await training.read();
    for (const [which, found, exact] of [
      ['first', first, (g: number) => 0.25 * g],
      ['second', second, (g: number) => 0.125 * g * g],
    ] as const) {
      // Relative errors are bounded by 2^-7 and 2^-3 and independent: five standard deviations of their mean.
      const errors = gradient.map((g, i) => found[i] / exact(g) - 1);
      const mean = errors.reduce((sum, error) => sum + error, 0) / size;
      const bound = moments === 'bf16' ? 2 ** -7 : 2 ** -3;
      expect(Math.abs(mean), which).toBeLessThan((5 * bound) / 2 / Math.sqrt(size));
      expect(errors.some((error) => Math.abs(error) > bound / 4)).toBe(true);
    }
  });

  test.each(packed)('a restored state of %s moments continues with the same bits', async (moments) => {
    const device = await open();
    const settings = { ...options, maximumNorm: 1, moments, seed: 9 };
    using there = new Training(device, sizes, settings);
    using back = new Training(device, sizes, settings);
    for (let step = 1; step <= 4; step++) there.step(0.05, ({ size }) => spread(size, size + step));
    const { step, tensors } = there.optimizer.state();
    const saved = new Map<string, Float32Array>();
    for (const [name, moment] of tensors) saved.set(name, await moment.read());
    for (const parameter of there.parameters) back.parameters.get(parameter.name).write(await parameter.read());
    back.optimizer.restore({ step, tensors: saved });
    for (const [name, moment] of back.optimizer.state().tensors) expect(await moment.read()).toEqual(saved.get(name));
    for (const each of [there, back])
      for (let step = 5; step <= 7; step++) each.step(0.05, ({ size }) => spread(size, size + step));
    expect(await back.read()).toEqual(await there.read());
  });

  test.each(packed)('with %s moments a quadratic is minimised as with f32', async (moments) => {
    const device = await open();
    const curvature = Float32Array.from({ length: 200 }, (_, i) => 10 ** (-2 + (i % 5)));
    const distance = async (kind: AdamWOptions['moments']) => {
      using training = new Training(device, [200], { beta2: 0.99, moments: kind, seed: 1 });
      let [value] = (await training.read()).values;
      for (let step = 0; step < 150; step++) {
        training.step(0.1 * (1 - step / 150), () => value.map((p, i) => curvature[i] * (p - 1)));
        [value] = (await training.read()).values;
      }
      return Math.max(...value.map((p) => Math.abs(p - 1)));
    };
    expect(await distance('f32')).toBeLessThan(0.01);
    expect(await distance(moments)).toBeLessThan(0.02);
  });

  test('numbers that were not packed are rounded to nearest when they are restored', async () => {
    const device = await open();
    using training = new Training(device, [130], { moments: '8bit' });
    const values = spread(130, 4);
    const tensors = new Map([
      ['firstMoment/p0', values],
      ['secondMoment/p0', values.map((value) => value * value)],
    ]);
    training.optimizer.restore({ step: 1, tensors });
    const { first, second } = await training.read();
    expectClose(first, values, 2 ** -4, 'first');
    expectClose(second, tensors.get('secondMoment/p0')!, 2 ** -4, 'second');
    expect(() => new AdamW(training.parameters, { seed: -1 })).toThrow('AdamW: seed -1');
  });
});

describeOnAllDevices('AdamW with parameters in bfloat16', (open) => {
  test.each(['f32', ...packed] as const)(
    'the update is that of f32, rounded by the bits of the counter-based generator, with moments in %s',
    async (moments) => {
      const device = await open();
      const settings = { ...options, moments, seed: 7 * 2 ** 32 + 11 };
      using exact = new Training(device, [700], settings);
      using training = new Training(device, [700], settings, 'bf16');
      for (const each of [exact, training]) each.step(0.1, ({ size }) => spread(size, size));
      const [expected, found] = [await exact.read(), await training.read()];
      const random = (i: number) => philox([11, 7], [Math.floor(i / 4), 0, 1, streams.parameterRounding])[i % 4];
      expect(found.values).toEqual([reference.roundedMoment(expected.values[0], random, 0)]);
      expect([found.first, found.second]).toEqual([expected.first, expected.second]);
    },
  );

  test('rounding is right on average over seeds, beside float64', async () => {
    const device = await open();
    const [size, seeds, rate] = [4096, 8, 0.03];
    const gradient = spread(size, 1);
    const sums = new Float64Array(size);
    let exact = new Float64Array();
    let last = new Float32Array();
    for (let seed = 0; seed < seeds; seed++) {
      using training = new Training(device, [size], { ...options, seed }, 'bf16');
      const [before] = (await training.read()).values;
      const [first, second] = [new Float64Array(size), new Float64Array(size)];
      const state = { value: Float64Array.from(before), first, second };
      reference.adamw(state, Float64Array.from(gradient), { ...options, epsilon: 1e-8 }, 1, rate);
      exact = state.value;
      training.step(rate, () => gradient);
      [last] = (await training.read()).values;
      for (const [i, value] of last.entries()) sums[i] += value;
    }
    // An error is below 2^-7 of the number and independent of the others: five standard deviations of their mean.
    const mean = exact.reduce((sum, value, i) => sum + (sums[i] / seeds / value - 1), 0) / size;
    expect(Math.abs(mean)).toBeLessThan((5 * 2 ** -7) / 2 / Math.sqrt(size * seeds));
    expect(exact.filter((value, i) => Math.abs(last[i] / value - 1) > 2 ** -9).length).toBeGreaterThan(size / 8);
  });

  test('their average is exact, acts rounded to nearest, and goes back to the same bits', async () => {
    const device = await open();
    using training = new Training(device, sizes, { ...options, average: 0.7, seed: 2 }, 'bf16');
    const average = [...training.parameters].map(({ size }, i) =>
      Float64Array.from(decodeBfloat16(encodeBfloat16(normals(size, i)))),
    );
    for (let step = 1; step <= 3; step++) {
      training.step(0.05, ({ size }) => spread(size, size + step));
      const { values } = await training.read();
      for (const [i, own] of average.entries()) average[i] = reference.movingAverage(own, values[i], 0.7);
    }
    const before = await training.read();
    const saved = new Map<string, Float32Array>();
    await training.optimizer.averaged(async () => {
      const { values } = await training.read();
      for (const [i, own] of average.entries()) {
        expectClose(values[i], own, 2 ** -8, 'averages');
        const nearest = decodeBfloat16(encodeBfloat16(Float32Array.from(own)));
        // The f32 sums of the kernel may fall on the other side of a tie.
        expect(values[i].filter((value, j) => value !== nearest[j]).length).toBeLessThan(3);
      }
      for (const [name, tensor] of training.optimizer.state().tensors) saved.set(name, await tensor.read());
    });
    expect(await training.read()).toEqual(before);
    await training.optimizer.averaged(async () => training.optimizer.restore({ step: 3, tensors: saved }));
    expect(await training.read()).toEqual(before);
  });

  test('parameters in f16 are not trained', async () => {
    using parameters = new ParameterSet(await open(), [{ name: 'half', shape: [8], group: 'all', dtype: 'f16' }]);
    expect(() => new AdamW(parameters)).toThrow(
      "AdamW: parameter 'half' is f16; those that are trained are f32 or bf16",
    );
  });
});
