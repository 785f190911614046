import { describe, expect, test } from 'vitest';
import { backward, parameter, type Tensor, tensor } from '../../engine/index.ts';
import {
  binaryCrossEntropyWithLogits,
  flowInterpolate,
  huber,
  type LossMasks,
  l1,
  meanSquaredError,
} from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';
import { fixtureTolerance, readFixture } from '../support/fixtures.ts';
import { expectClose, expectZero, integers, normals } from '../support/numbers.ts';

type Loss = (prediction: Tensor, target: Tensor, masks?: LossMasks) => Tensor;

const losses = Object.entries<Loss>({ meanSquaredError, l1, huber, binaryCrossEntropyWithLogits }).map(
  ([name, loss]) => ({ name, loss, error: reference.errors[name as keyof typeof reference.errors] }),
);

/** Shape of the prediction, and of its masks where there are any; the last axis of `dimensions` is that of the prediction. */
const cases = [
  { shape: [7], valid: [7], dimensions: null },
  { shape: [3, 5, 7], valid: [3, 5], dimensions: null },
  { shape: [4, 3, 6], valid: [4], dimensions: [6] },
  { shape: [3, 5, 7], valid: [3, 5], dimensions: [3, 7] },
  { shape: [3, 40, 33], valid: null, dimensions: null },
];

describeOnDevices('losses', (device) => {
  describe.each(losses)('$name', ({ loss, error }) => {
    test.each(cases)('agrees with float64: $shape, valid $valid, dimensions $dimensions', async (given) => {
      const opened = await device();
      const { shape } = given;
      const size = shape.reduce((a, b) => a * b, 1);
      const target = normals(size, 31).map((value) => Math.abs(value) % 1);
      const mask = (maskShape: number[] | null, seed: number) =>
        maskShape && {
          shape: maskShape,
          data: integers(
            maskShape.reduce((a, b) => a * b, 1),
            2,
            seed,
          ),
        };
      const valid = mask(given.valid, 32);
      const dimensions = mask(given.dimensions, 34);
      const kept = reference.countedElements(shape, { valid: valid?.data, dimensions: dimensions?.data });
      expect(kept.length).toBeGreaterThan(0);
      await checkOperation(opened, {
        inputs: [{ shape, name: 'prediction' }],
        run: ([prediction]) => {
          const u32 = (m: typeof valid) => (m ? tensor(opened, m.data, m.shape, { dtype: 'u32' }) : undefined);
          return loss(prediction, tensor(opened, target, shape), { valid: u32(valid), dimensions: u32(dimensions) });
        },
        oracle: ([prediction]) => reference.meanLoss(error, prediction, target, kept),
        tolerance: { forward: 1e-6, backward: 1e-6 },
      });
    });

    test('nothing counts: the loss and its gradient are zero', async () => {
      const opened = await device();
      const prediction = parameter(opened, normals(12, 1), [3, 4]);
      const found = opened.step(() => {
        const none = tensor(opened, new Uint32Array(3), [3], { dtype: 'u32' });
        const made = loss(prediction, tensor(opened, normals(12, 2), [3, 4]), { valid: none });
        backward(made);
        return made;
      });
      expectZero(await found.read(), 'loss');
      expectZero(await prediction.grad!.read(), 'gradient');
      found.dispose();
      prediction.dispose();
    });
  });

  test('cross-entropy of extreme logits', async () => {
    const opened = await device();
    const logits = [200, -200, 60, -60, 0];
    const labels = [0, 1, 1, 0, 1];
    const logit = parameter(opened, logits, [5]);
    const found = opened.step(() => {
      const made = binaryCrossEntropyWithLogits(logit, tensor(opened, labels, [5]));
      backward(made);
      return made;
    });
    expectClose(await found.read(), [(400 + Math.log(2)) / 5], 1e-6, 'loss');
    expectClose(await logit.grad!.read(), [0.2, -0.2, 0, 0, -0.1], 1e-6, 'gradient');
    found.dispose();
    logit.dispose();
  });
});

describe('losses operands', () => {
  test('wrong shapes and types are named', async () => {
    const device = await testDevice('normal');
    const f32 = (...shape: number[]) => tensor(device, new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const u32 = (...shape: number[]) =>
      tensor(device, new Uint32Array(shape.reduce((a, b) => a * b, 1)), shape, { dtype: 'u32' });
    const x = f32(2, 3, 4);
    const fail = (masks: LossMasks) => expect(() => device.step(() => l1(x, x, masks)));
    expect(() => device.step(() => l1(x, f32(2, 3)))).toThrow('l1: target has shape [2, 3]; expected [2, 3, 4]');
    fail({ valid: f32(2, 3) }).toThrow('l1: valid is f32 [2, 3]; expected u32');
    fail({ valid: u32(3) }).toThrow('l1: valid has shape [3]; expected a leading part of [2, 3, 4]');
    fail({ dimensions: u32(3) }).toThrow('l1: dimensions has shape [3]; expected [4] or [2, 4] for [2, 3, 4]');
    x.dispose();
  });
});

describe('losses golden', () => {
  test.each([
    { name: 'mse', loss: meanSquaredError, prediction: 'prediction', target: 'target' },
    { name: 'l1', loss: l1, prediction: 'prediction', target: 'target' },
    { name: 'huber', loss: huber, prediction: 'prediction', target: 'target' },
    { name: 'bce', loss: binaryCrossEntropyWithLogits, prediction: 'logit', target: 'label' },
  ])('operations-loss-$name', async ({ name, loss, ...names }) => {
    const device = await testDevice('normal');
    const fixture = readFixture(`operations-loss-${name}`);
    const prediction = parameter(
      device,
      fixture.get(names.prediction).data as Float32Array,
      fixture.get(names.prediction).shape,
    );
    const valid = fixture.get('valid');
    const found = device.step(() => {
      const made = loss(prediction, tensor(device, fixture.get(names.target).data as Float32Array, prediction.shape), {
        valid: tensor(device, Uint32Array.from(valid.data), valid.shape, { dtype: 'u32' }),
      });
      backward(made);
      return made;
    });
    const gradient = names.prediction === 'logit' ? 'dLogit' : 'dPrediction';
    expectClose(await found.read(), fixture.get(`expected/${name}`).data, 1e-5, 'loss');
    expectClose(
      await prediction.grad!.read(),
      fixture.get(`expected/${gradient}`).data,
      fixtureTolerance(fixture, gradient),
      gradient,
    );
    found.dispose();
    prediction.dispose();
  });

  test('operations-flow: the loss of the velocity', async () => {
    const device = await testDevice('normal');
    const fixture = readFixture('operations-flow');
    const given = (name: string) => tensor(device, fixture.get(name).data as Float32Array, fixture.get(name).shape);
    const velocity = parameter(device, fixture.get('velocity').data as Float32Array, fixture.get('velocity').shape);
    const found = device.step(() => {
      const made = meanSquaredError(velocity, flowInterpolate(given('actions'), given('noise'), given('time')).target);
      backward(made);
      return made;
    });
    expectClose(await found.read(), fixture.get('expected/loss').data, 1e-5, 'loss');
    expectClose(
      await velocity.grad!.read(),
      fixture.get('expected/dVelocity').data,
      fixtureTolerance(fixture, 'dVelocity'),
      'dVelocity',
    );
    found.dispose();
    velocity.dispose();
  });
});
