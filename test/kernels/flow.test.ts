import { describe, expect, test } from 'vitest';
import { parameter, Random, randomStream, streams, tensor } from '../../engine/index.ts';
import { eulerStep, flowInterpolate, sampleTimes, timeEmbedding } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';
import { fixtureTolerance, readFixture } from '../support/fixtures.ts';
import { expectClose, normals } from '../support/numbers.ts';

describeOnDevices('flow matching', (device) => {
  test('a point of the path and its velocity: a = [.2, -.6], w = [1, .5], t = .25', async () => {
    const opened = await device();
    const { noisy, target } = opened.step(() =>
      flowInterpolate(
        tensor(opened, [0.2, -0.6], [1, 2]),
        tensor(opened, [1, 0.5], [1, 2]),
        tensor(opened, [0.25], [1]),
      ),
    );
    expectClose(await noisy.read(), [0.4, -0.325], 1e-7, 'noisy');
    expectClose(await target.read(), [0.8, 1.1], 1e-7, 'target');
    noisy.dispose();
    target.dispose();
  });

  test('time belongs to the sample', async () => {
    const opened = await device();
    const shape = [5, 3, 7];
    const actions = normals(105, 1);
    const noise = normals(105, 2);
    const time = sampleTimes(randomStream(3, 0, streams.time), 5);
    const { noisy, target } = opened.step(() =>
      flowInterpolate(tensor(opened, actions, shape), tensor(opened, noise, shape), tensor(opened, time, [5])),
    );
    const exact = reference.flowInterpolate(actions, noise, time);
    expectClose(await noisy.read(), exact.noisy, 1e-7, 'noisy');
    expectClose(await target.read(), exact.target, 1e-7, 'target');
    noisy.dispose();
    target.dispose();
  });

  test('an Euler step, forward and backward', async () => {
    await checkOperation(await device(), {
      inputs: [{ shape: [2, 3, 5] }, { shape: [2, 3, 5] }],
      run: ([x, velocity]) => eulerStep(x, velocity, -0.1),
      oracle: ([x, velocity]) => x.map((value, i) => value - 0.1 * velocity[i]),
      tolerance: { forward: 1e-7, backward: 1e-7 },
    });
  });

  test('ten Euler steps along the constant velocity return the actions', async () => {
    const opened = await device();
    const actions = normals(70, 4);
    const noise = normals(70, 5);
    const end = opened.step(() => {
      const velocity = tensor(
        opened,
        noise.map((w, i) => w - actions[i]),
        [70],
      );
      let x = tensor(opened, noise, [70]);
      for (let i = 0; i < 10; i++) x = eulerStep(x, velocity, -0.1);
      return x;
    });
    expectClose(await end.read(), actions, 1e-6, 'actions');
    end.dispose();
  });
});

describe('flow matching on the host', () => {
  test('time embedding, worked by hand', () => {
    const root = Math.SQRT1_2;
    expectClose(timeEmbedding([1], 8), [0, 0, 0, 1, 1, 1, -1, 0], 1e-7, 't = 1');
    expectClose(timeEmbedding([0.5], 8), [0, 0, 1, root, 1, -1, 0, root], 1e-7, 't = 0.5');
    expectClose(
      timeEmbedding([0.3, 0.037], 8),
      [0, 0, -1, 0.45399, 1, -1, 0, 0.891007, 1, -0.45399, 0.549023, 0.058087, 0, 0.891007, 0.835807, 0.998312],
      1e-6,
      't = 0.3 and 0.037',
    );
  });

  test('the shortest period', () => {
    const embedded = timeEmbedding([0.25], 4, { minimumPeriod: 1, maximumPeriod: 2 });
    expectClose(embedded, [1, Math.SQRT1_2, 0, Math.SQRT1_2], 1e-7, 'quarter and eighth of a turn');
    expect(() => timeEmbedding([1], 7)).toThrow('timeEmbedding: width 7');
  });

  test('training times', () => {
    const fixed = new (class extends Random {
      override uniform(index: number): number {
        return [0.1, 0.5, 0.9][index];
      }
    })(0, 0, 0);
    expectClose(sampleTimes(fixed, 3), [0.216228, 0.630331, 0.932238], 1e-6, 'times');
    const stream = randomStream(1, 2, streams.time);
    const times = sampleTimes(stream, 20_000);
    // Standard deviation 0.2619 of Beta(1.5, 1); five standard errors.
    expect(Math.abs(times.reduce((sum, t) => sum + t, 0) / times.length - 0.6004)).toBeLessThan(0.0093);
    expect([...sampleTimes(stream, 3, 7)]).toEqual([...times.subarray(7, 10)]);
  });
});

describe('flow matching operands', () => {
  test('wrong shapes and a wish for gradients are named', async () => {
    const device = await testDevice('normal');
    const actions = tensor(device, new Float32Array(12), [2, 6]);
    const time = tensor(device, new Float32Array(6), [6]);
    const weight = parameter(device, new Float32Array(12), [2, 6]);
    expect(() => flowInterpolate(actions, actions, time)).toThrow('flowInterpolate: time has shape [6]; expected [2]');
    expect(() => flowInterpolate(actions, time, time)).toThrow('flowInterpolate: noise has shape [6]; expected [2, 6]');
    expect(() => flowInterpolate(actions, weight, time)).toThrow('flowInterpolate: noise wants a gradient');
    expect(() => eulerStep(actions, time, -0.1)).toThrow('eulerStep: velocity has shape [6]; expected [2, 6]');
    for (const made of [actions, time, weight]) made.dispose();
  });
});

describe('flow matching golden', () => {
  test('operations-flow: the path', async () => {
    const device = await testDevice('normal');
    const fixture = readFixture('operations-flow');
    const given = (name: string) => tensor(device, fixture.get(name).data as Float32Array, fixture.get(name).shape);
    const { noisy, target } = device.step(() => flowInterpolate(given('actions'), given('noise'), given('time')));
    const expected = (name: string) => fixture.get(`expected/${name}`).data;
    expectClose(await noisy.read(), expected('noisy'), fixtureTolerance(fixture, 'noisy'), 'noisy');
    expectClose(await target.read(), expected('target'), fixtureTolerance(fixture, 'target'), 'target');
    noisy.dispose();
    target.dispose();
  });

  test.each([8, 32, 1024])('operations-time-embedding: width %i', (width) => {
    const fixture = readFixture('operations-time-embedding');
    const { minimumPeriod, maximumPeriod } = fixture.settings;
    const times = fixture.get('time').data;
    const embedded = timeEmbedding(times, width, { minimumPeriod, maximumPeriod });
    expectClose(embedded, fixture.get(`expected/width${width}`).data, 1e-7, `width ${width}`);
  });
});
