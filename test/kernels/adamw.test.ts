import { describe, expect, test } from 'vitest';
import {
  backward,
  type Device,
  ParameterSet,
  type ParameterSpecification,
  type Tensor,
  tensor,
} from '../../engine/index.ts';
import { AdamW, GradientNorms, linear, sum } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { describeOnAllDevices, testDevice } from '../support/devices.ts';
import { readFixture } from '../support/fixtures.ts';
import { expectClose, normals, relativeError } from '../support/numbers.ts';

interface Group {
  group: string;
  /** Elements of each parameter of the group. */
  sizes: number[];
}

function parametersOf(device: Device, groups: Group[]): ParameterSet {
  const set = new ParameterSet(
    device,
    groups.flatMap(({ group, sizes }) => sizes.map((size, i) => ({ name: `${group}.${i}`, shape: [size], group }))),
  );
  let seed = 60;
  for (const parameter of set) parameter.write(normals(parameter.size, seed++));
  return set;
}

/** Gives `parameter` the gradient `values`, in a step. */
function reach(parameter: Tensor, values: Float32Array): void {
  const { device, shape } = parameter;
  backward(parameter, { gradient: tensor(device, values, shape) });
}

/** The parameters of a model and their moments in float64. */
class Oracle {
  readonly states: ReadonlyMap<string, reference.AdamWState>;
  private steps = 0;

  constructor(
    values: ReadonlyMap<string, Float64Array>,
    readonly settings: reference.AdamWSettings,
  ) {
    this.states = new Map(
      [...values].map(([name, value]) => {
        const zeros = () => new Float64Array(value.length);
        return [name, { value, first: zeros(), second: zeros() }];
      }),
    );
  }

  step(
    rate: number,
    gradients: ReadonlyMap<string, Float32Array>,
    clip: (name: string) => number,
    factor: (name: string) => number = () => 1,
  ): void {
    this.steps += 1;
    for (const [name, state] of this.states) {
      const gradient = Float64Array.from(gradients.get(name) ?? state.value.map(() => 0), (g) => g * clip(name));
      reference.adamw(state, gradient, this.settings, this.steps, factor(name) * rate);
    }
  }
}

const moments = ['f32', 'bf16', '8bit'] as const;

const layout: Group[] = [
  { group: 'backbone', sizes: [5, 700, 64] },
  { group: 'expert', sizes: [33, 1] },
];

describeOnAllDevices('AdamW', (device) => {
  test.each(['perGroup', 'together'] as const)('agrees with float64, clipping %s', async (clip) => {
    const opened = await device();
    using parameters = parametersOf(opened, layout);
    const options = { beta1: 0.75, beta2: 0.875, epsilon: 1e-6, weightDecay: 0.125 };
    using optimizer = new AdamW(parameters, { ...options, maximumNorm: 12, clip });
    const values = new Map<string, Float64Array>();
    for (const parameter of parameters) values.set(parameter.name, Float64Array.from(await parameter.read()));
    const oracle = new Oracle(values, options);
    for (let step = 1; step <= 3; step++) {
      // The largest parameter takes no gradient in step 2; backbone is clipped then, expert never is alone.
      const gradients = new Map<string, Float32Array>();
      for (const [name, { length }] of values)
        if (step !== 2 || name !== 'backbone.1') gradients.set(name, normals(length, 70 + step + length, step));
      opened.step(() => {
        parameters.zeroGradients();
        for (const [name, values] of gradients) reach(parameters.get(name), values);
        optimizer.step(0.5 ** step);
      });
      const normOf = (prefix: string) =>
        reference.gradientNorm([...gradients].flatMap(([name, own]) => (name.startsWith(prefix) ? [own] : [])));
      const norms = await optimizer.gradientNorms.read();
      const expected = ['backbone', 'expert', ''].map(normOf);
      expectClose([norms.groups.backbone, norms.groups.expert, norms.total], expected, 1e-6, 'norms');
      oracle.step(0.5 ** step, gradients, (name) => {
        const norm = expected[clip === 'together' ? 2 : name.startsWith('backbone') ? 0 : 1];
        return Math.min(1, 12 / norm);
      });
    }
    const { step, tensors } = optimizer.state();
    expect(step).toBe(3);
    for (const [name, value] of values) {
      expectClose(await parameters.get(name).read(), value, 1e-6, name);
      expectClose(
        await tensors.get(`firstMoment/${name}`)!.read(),
        oracle.states.get(name)!.first,
        1e-6,
        `m of ${name}`,
      );
      expectClose(
        await tensors.get(`secondMoment/${name}`)!.read(),
        oracle.states.get(name)!.second,
        1e-6,
        `v of ${name}`,
      );
    }
  });

  test('a restored state continues with the same bits', async () => {
    const opened = await device();
    const [there, back] = [parametersOf(opened, layout), parametersOf(opened, layout)];
    const options = { weightDecay: 0.01, maximumNorm: 1 };
    const [first, second] = [new AdamW(there, options), new AdamW(back, options)];
    const advance = (parameters: ParameterSet, optimizer: AdamW, step: number) =>
      opened.step(() => {
        parameters.zeroGradients();
        for (const parameter of parameters) reach(parameter, normals(parameter.size, step));
        optimizer.step(0.01);
      });
    advance(there, first, 1);
    advance(there, first, 2);
    const { step, tensors } = first.state();
    const saved = new Map<string, Float32Array>();
    for (const [name, moment] of tensors) saved.set(name, await moment.read());
    for (const parameter of there) back.get(parameter.name).write(await parameter.read());
    second.restore({ step, tensors: saved });
    expect(second.steps).toBe(2);
    advance(there, first, 3);
    advance(back, second, 3);
    for (const parameter of there) expect(await back.get(parameter.name).read()).toEqual(await parameter.read());
    for (const made of [first, second, there, back]) made.dispose();
  });

  test('what lies behind a parameter in its arena takes no part in the norm', async () => {
    const opened = await device();
    using parameters = parametersOf(opened, [{ group: 'odd', sizes: [5, 1] }]);
    using norms = new GradientNorms(parameters);
    const poison = opened.step(() => tensor(opened, new Float32Array(64).fill(1e9), [64]));
    opened.step(() => {
      // Step memory that still holds other numbers behind the five of a gradient.
      for (let i = 0; i < 4; i++) opened.copy(poison, tensor(opened, new Float32Array(64), [64]), 256);
    });
    opened.step(() => {
      for (const parameter of parameters) reach(parameter, new Float32Array(parameter.size).fill(2));
      norms.measure();
    });
    expectClose([(await norms.read()).total], [Math.sqrt(24)], 1e-6, 'norm');
    poison.dispose();
  });

  const mixed: Required<Omit<ParameterSpecification, 'dtype' | 'splits'>>[] = [
    { name: 'first', shape: [5], group: 'one', rate: 1, frozen: false },
    { name: 'slow', shape: [700], group: 'one', rate: 0.1, frozen: false },
    { name: 'fixed', shape: [64], group: 'one', rate: 0.1, frozen: true },
    { name: 'other', shape: [33], group: 'two', rate: 0.1, frozen: false },
    { name: 'last', shape: [9], group: 'one', rate: 1, frozen: false },
    { name: 'still', shape: [3], group: 'two', rate: 0, frozen: false },
  ];

  test.each(moments)('rates and frozen parameters: values agree with float64, moments in %s', async (moments) => {
    const opened = await device();
    using parameters = new ParameterSet(opened, mixed);
    expect(
      parameters.arenas.map(({ group, rate, tensors }) => [group, rate, ...tensors.map(({ name }) => name)]),
    ).toEqual([
      ['one', 1, 'first', 'last'],
      ['one', 0.1, 'slow'],
      ['one', null, 'fixed'],
      ['two', 0.1, 'other'],
      ['two', 0, 'still'],
    ]);
    [...parameters].forEach((parameter, i) => {
      parameter.write(normals(parameter.size, i));
    });
    const options = { beta1: 0.75, beta2: 0.875, epsilon: 1e-6, weightDecay: 0.125 };
    using optimizer = new AdamW(parameters, { ...options, maximumNorm: 12, moments, average: 0.75 });
    const trained = mixed.filter(({ frozen }) => !frozen);
    const [fixed, still] = await Promise.all(['fixed', 'still'].map((name) => parameters.get(name).read()));
    const values = new Map<string, Float64Array>();
    for (const { name } of trained) values.set(name, Float64Array.from(await parameters.get(name).read()));
    const averages = new Map([...values].map(([name, value]) => [name, Float64Array.from(value)]));
    const oracle = new Oracle(values, options);
    // Packed moments are those of f32 until they have been rounded once.
    for (let step = 1; step <= (moments === 'f32' ? 3 : 1); step++) {
      const gradients = new Map(trained.map(({ name, shape }) => [name, normals(shape[0], step + shape[0], step)]));
      opened.step(() => {
        parameters.zeroGradients();
        for (const [name, values] of gradients) reach(parameters.get(name), values);
        optimizer.step(0.5 ** step);
      });
      const norm = (group: string) => {
        const own = trained.filter((each) => each.group === group);
        return reference.gradientNorm(own.map(({ name }) => gradients.get(name)!));
      };
      const norms = await optimizer.gradientNorms.read();
      expect(Object.keys(norms.groups)).toEqual(['one', 'two']);
      expectClose(
        [norms.groups.one, norms.groups.two, norms.total],
        [norm('one'), norm('two'), Math.hypot(norm('one'), norm('two'))],
        1e-6,
        'norms',
      );
      const specification = (name: string) => mixed.find((each) => each.name === name)!;
      oracle.step(
        0.5 ** step,
        gradients,
        (name) => Math.min(1, 12 / norm(specification(name).group)),
        (name) => specification(name).rate,
      );
      for (const [name, value] of values) averages.set(name, reference.movingAverage(averages.get(name)!, value, 0.75));
    }
    for (const [name, value] of values) expectClose(await parameters.get(name).read(), value, 1e-6, name);
    await optimizer.averaged(async () => {
      for (const [name, average] of averages) expectClose(await parameters.get(name).read(), average, 1e-6, name);
    });
    for (const [name, value] of values) expectClose(await parameters.get(name).read(), value, 1e-6, name);
    expect(await parameters.get('fixed').read()).toEqual(fixed);
    expect(await parameters.get('still').read()).toEqual(still);
    const saved = [...optimizer.state().tensors.keys()].map((key) => key.split('/')[1]);
    expect(new Set(saved)).toEqual(new Set(trained.map(({ name }) => name)));
  });

  test('a rate of one changes no bit, whatever the rates of other groups', async () => {
    const opened = await device();
    const bits = async (rate?: number) => {
      const specifications = layout.flatMap(({ group, sizes }) =>
        sizes.map((size, i) => ({ name: `${group}.${i}`, shape: [size], group, ...(group === 'expert' && { rate }) })),
      );
      using parameters = new ParameterSet(opened, specifications);
      using optimizer = new AdamW(parameters, { weightDecay: 0.125, maximumNorm: 12 });
      for (let step = 1; step <= 2; step++)
        opened.step(() => {
          parameters.zeroGradients();
          for (const parameter of parameters) reach(parameter, normals(parameter.size, step));
          optimizer.step(0.1);
        });
      return Promise.all([...parameters].map((parameter) => parameter.read()));
    };
    const [plain, ones, slow] = [await bits(), await bits(1), await bits(0.1)];
    expect(ones).toEqual(plain);
    expect(slow.slice(0, 3)).toEqual(plain.slice(0, 3));
    expect(slow[3]).not.toEqual(plain[3]);
  });

  test('backward does no work for frozen parameters', async () => {
    const opened = await device();
    const dispatches = (frozen: boolean) => {
      using parameters = new ParameterSet(opened, [
        { name: 'lower', shape: [8, 8], group: 'all', frozen },
        { name: 'middle', shape: [8, 8], group: 'all' },
        { name: 'upper', shape: [8, 8], group: 'all', frozen },
      ]);
      const [lower, middle, upper] = ['lower', 'middle', 'upper'].map((name) => parameters.get(name));
      const before = opened.dispatches;
      opened.step(() => {
        parameters.zeroGradients();
        backward(sum(linear(linear(linear(middle, lower), middle), upper)));
      });
      const count = opened.dispatches - before;
      expect([lower, middle, upper].map(({ grad }) => grad !== null)).toEqual([!frozen, true, !frozen]);
      if (frozen)
        expect(() => opened.step(() => backward(sum(linear(middle, lower)), { parameters: [lower] }))).toThrow(
          "backward: 'lower' is no parameter, or a frozen one",
        );
      return count;
    };
    expect(dispatches(false) - dispatches(true)).toBe(2);
  });

  test('a parameter that no loss reaches decays', async () => {
    const opened = await device();
    using parameters = parametersOf(opened, layout);
    using optimizer = new AdamW(parameters, { weightDecay: 0.5 });
    const before = await parameters.get('backbone.0').read();
    opened.step(() => optimizer.step(0.5));
    expectClose(
      await parameters.get('backbone.0').read(),
      before.map((value) => value * 0.75),
      1e-7,
      'decayed',
    );
  });

  test('norms of an arena of several slices', async () => {
    const opened = await device();
    using parameters = parametersOf(opened, [{ group: 'large', sizes: [100_003, 70_001] }]);
    using norms = new GradientNorms(parameters);
    const values = [normals(100_003, 1), normals(70_001, 2)];
    opened.step(() => {
      [...parameters].forEach((parameter, i) => {
        reach(parameter, values[i]);
      });
      norms.measure();
    });
    expectClose([(await norms.read()).groups.large], [reference.gradientNorm(values)], 1e-6, 'norm');
  });
});

describe('AdamW arguments', () => {
  test('bad settings, states and rates are named', async () => {
    const device = await testDevice('normal');
    using parameters = parametersOf(device, layout);
    expect(() => new AdamW(parameters, { beta2: 1 })).toThrow('AdamW: beta2 is 1');
    expect(() => new ParameterSet(device, [{ name: 'a', shape: [1], group: 'one', rate: -1 }])).toThrow(
      "parameter 'a': rate -1; expected a number from 0",
    );
    expect(() => new AdamW(parameters, { maximumNorm: 0 })).toThrow('AdamW: maximumNorm is 0');
    using optimizer = new AdamW(parameters);
    expect(() => optimizer.step(0.1)).toThrow('AdamW: ops run inside device.step');
    expect(() => device.step(() => optimizer.step(Number.NaN))).toThrow('AdamW: learning rate NaN');
    expect(optimizer.steps).toBe(0);
    const tensors = new Map<string, Float32Array>();
    expect(() => optimizer.restore({ step: 1, tensors })).toThrow(
      "optimizer state: 'firstMoment/backbone.0' is missing",
    );
    tensors.set('firstMoment/backbone.0', new Float32Array(4));
    expect(() => optimizer.restore({ step: 1, tensors })).toThrow(
      "optimizer state: 'firstMoment/backbone.0' has 4 numbers; this model's has 5",
    );
  });
});

describe('AdamW golden', () => {
  test.each(['adamw', 'adamw-plain'])('operations-%s', async (name) => {
    const device = await testDevice('normal');
    const fixture = readFixture(`operations-${name}`);
    const { settings } = fixture;
    const names: string[] = settings.parameters;
    const numbers = (key: string) => fixture.get(key).data as Float32Array;
    using parameters = new ParameterSet(
      device,
      names.map((p) => ({ name: p, shape: fixture.get(`parameter/${p}`).shape, group: p })),
    );
    for (const p of names) parameters.get(p).write(numbers(`parameter/${p}`));
    const { beta1, beta2, epsilon, weightDecay, maxNorm: maximumNorm } = settings;
    using optimizer = new AdamW(parameters, { beta1, beta2, epsilon, weightDecay, maximumNorm, clip: 'together' });
    for (let step = 1; step <= settings.steps; step++) {
      device.step(() => {
        parameters.zeroGradients();
        for (const p of names) reach(parameters.get(p), numbers(`gradient/${step}/${p}`));
        optimizer.step(settings.learningRate[step - 1]);
      });
      const { total } = await optimizer.gradientNorms.read();
      expectClose([total], [numbers('expected/globalNorm')[step - 1]], 1e-6, `norm of step ${step}`);
      const clip = Math.min(1, maximumNorm / total);
      expect(relativeError([clip], [numbers('expected/clip')[step - 1]])).toBeLessThan(1e-6);
      const { tensors } = optimizer.state();
      for (const p of names) {
        const close = (actual: Float32Array, key: string) =>
          expectClose(actual, numbers(`expected/${key}/${step}/${p}`), 1e-5, `${key} of ${p} after step ${step}`);
        close(await parameters.get(p).read(), 'parameter');
        close(await tensors.get(`firstMoment/${p}`)!.read(), 'firstMoment');
        close(await tensors.get(`secondMoment/${p}`)!.read(), 'secondMoment');
      }
    }
  });
});
