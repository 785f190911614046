/** AdamW over a parameter in pieces of rows: it learns as one that is whole, and its state is that of one. */
import { expect, test } from 'vitest';
import { backward, type Device, type FloatType, ParameterSet, tensor } from '../../engine/index.ts';
import { AdamW, type AdamWOptions, embedding } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { describeOnDevices } from '../support/devices.ts';
import { expectClose, normals } from '../support/numbers.ts';

const [ROWS, WIDTH] = [150, 8];
const ofPieces = { pieceBytes: 4 * 64 * WIDTH };
const initial = normals(ROWS * WIDTH, 1);
const gradientOf = (step: number) => normals(ROWS * WIDTH, 10 + step);

type Run = AdamWOptions & { readonly dtype?: FloatType; readonly split: boolean };

function started(device: Device, { dtype, split, ...options }: Run) {
  const specification = { name: 'table', shape: [ROWS, WIDTH], group: 'all', splits: true, dtype };
  const parameters = new ParameterSet(device, [specification], split ? ofPieces : {});
  const table = parameters.get('table');
  table.write(initial);
  const optimizer = new AdamW(parameters, options);
  const advance = (step: number) => {
    device.step(() => {
      parameters.zeroGradients();
      const ids = tensor(
        device,
        new Uint32Array(ROWS).map((_, i) => i),
        [ROWS],
        { dtype: 'u32' },
      );
      backward(embedding(ids, table), { gradient: tensor(device, gradientOf(step), [ROWS, WIDTH]) });
      optimizer.step(0.01);
    });
  };
  const read = async () => {
    const state = { table: await table.read() } as Record<string, Float32Array>;
    for (const [name, moment] of optimizer.state().tensors) {
      expect(moment.shape).toEqual([ROWS, WIDTH]);
      expect(moment.pieces).toHaveLength(split ? 3 : 1);
      state[name] = await moment.read();
    }
    return state;
  };
  const dispose = () => {
    optimizer.dispose();
    parameters.dispose();
  };
  return { optimizer, advance, read, [Symbol.dispose]: dispose };
}

describeOnDevices('AdamW over pieces of rows', (device) => {
  /** After three steps. */
  const trained = async (run: Run) => {
    using own = started(await device(), run);
    for (let step = 1; step <= 3; step++) own.advance(step);
    return { state: await own.read(), norm: [(await own.optimizer.gradientNorms.read()).total] };
  };

  test('agrees with float64, with clipping and an average', async () => {
    const settings = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1 };
    const { state: found, norm: measured } = await trained({ ...settings, maximumNorm: 5, average: 0.5, split: true });
    const state = { value: Float64Array.from(initial), first: new Float64Array(1200), second: new Float64Array(1200) };
    const average = Float64Array.from(initial);
    let norm = 0;
    for (let step = 1; step <= 3; step++) {
      norm = Math.hypot(...gradientOf(step));
      const clipped = Float64Array.from(gradientOf(step), (value) => value * Math.min(1, 5 / norm));
      reference.adamw(state, clipped, settings, step, 0.01);
      state.value.forEach((value, i) => {
        average[i] += 0.5 * (value - average[i]);
      });
    }
    expectClose(measured, [norm], 1e-6, 'norm');
    expectClose(found.table, state.value, 1e-6, 'values');
    expectClose(found['firstMoment/table'], state.first, 1e-6, 'first moment');
    expectClose(found['secondMoment/table'], state.second, 1e-6, 'second moment');
    expectClose(found['trainingWeight/table'], average, 1e-6, 'average');
  });

  test('without rounding, each number is to the last bit that of a whole one', async () => {
    const options = { weightDecay: 0.1, average: 0.5 };
    const [split, whole] = [await trained({ ...options, split: true }), await trained({ ...options, split: false })];
    expect(split.state).toEqual(whole.state);
    expectClose(split.norm, whole.norm, 1e-6, 'norm');
  });

  // Stochastic rounding draws by the place in an arena: the values are off by the last place of what is rounded.
  test.each([
    { moments: 'bf16', dtype: 'f32', tolerance: 1e-3 },
    { moments: '8bit', dtype: 'f32', tolerance: 5e-3 },
    { moments: '8bit', dtype: 'bf16', tolerance: 1e-2 },
  ] as const)('moments in $moments, values in $dtype: within $tolerance of a whole one', async (sizes) => {
    const { tolerance, ...own } = sizes;
    const options = { ...own, weightDecay: 0.1, maximumNorm: 5, average: 0.5, seed: 3 };
    const [split, whole] = [await trained({ ...options, split: true }), await trained({ ...options, split: false })];
    expectClose(split.state.table, whole.state.table, tolerance, 'values');
    expectClose(split.state['firstMoment/table'], whole.state['firstMoment/table'], 0.1, 'first moment');
  });

  test.each(['f32', 'bf16', '8bit'] as const)('a state in %s goes on in a whole one, and back', async (moments) => {
    const opened = await device();
    const options = { moments, average: 0.5 };
    using there = started(opened, { ...options, split: true });
    using back = started(opened, { ...options, split: false });
    for (let step = 1; step <= 2; step++) there.advance(step);
    const tensors = new Map<string, Float32Array>();
    for (const [name, moment] of there.optimizer.state().tensors) tensors.set(name, await moment.read());
    back.optimizer.restore({ step: 2, tensors });
    const whole = await back.read();
    for (const [name, numbers] of tensors) expect(whole[name], name).toEqual(numbers);
    for (const moment of there.optimizer.state().tensors.values()) moment.write(new Float32Array(ROWS * WIDTH));
    there.optimizer.restore({ step: 2, tensors });
    const again = await there.read();
    for (const [name, numbers] of tensors) expect(again[name], name).toEqual(numbers);
  });
});
