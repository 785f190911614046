import { expect, test } from 'vitest';
import { decodeBfloat16, encodeBfloat16 } from '../../engine/files/half.ts';
import { backward, type Device, elementCount, ParameterSet, tensor } from '../../engine/index.ts';
import {
  blockLinear,
  cast,
  embedding,
  gatedMlp,
  layerNorm,
  linear,
  linearCrossEntropy,
  patchEmbedding,
  rmsNorm,
} from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, storageTolerance } from '../support/check-operation.ts';
import { describeOnDevices } from '../support/devices.ts';
import { integers, normals } from '../support/numbers.ts';

/** Normal numbers that bfloat16 holds. */
const rounded = (size: number, seed: number) => decodeBfloat16(encodeBfloat16(normals(size, seed)));

const matrices = {
  embed: [50, 64],
  query: [64, 64],
  key: [32, 64],
  mix: [64, 96],
  gate: [128, 64],
  up: [128, 64],
  down: [64, 128],
};

/** A loss and the gradients of parameters whose matrices are stored as `dtype`; gate and up, query and key are each one product. */
async function passOf(device: Device, dtype: 'f32' | 'bf16') {
  using parameters = new ParameterSet(device, [
    ...Object.entries(matrices).map(([name, shape]) => ({ name, shape, group: 'all', dtype })),
    { name: 'gain', shape: [64], group: 'all' },
    { name: 'bias', shape: [64], group: 'all' },
  ]);
  for (const [i, parameter] of [...parameters].entries())
    parameter.write(rounded(parameter.size, i).map((value) => value / 8));
  const get = (name: string) => parameters.get(name);
  const loss = device.step(() => {
    parameters.zeroGradients();
    const ids = (seed: number) => tensor(device, integers(14, 50, seed), [2, 7], { dtype: 'u32' });
    const x = embedding(ids(1), get('embed'), { scale: 8, dtype: 'f32' });
    const normed = rmsNorm(x, get('gain'));
    const heads = blockLinear([normed], [[get('query'), get('key')]], [{ input: 0, length: 7 }]);
    const mixed = linear(heads, get('mix'), get('bias'), { residual: x, activation: 'gelu' });
    const hidden = gatedMlp(mixed, get('gate'), get('up'), get('down'), { residual: mixed });
    const mask = tensor(device, new Uint32Array(14).fill(1), [2, 7], { dtype: 'u32' });
    const loss = linearCrossEntropy(hidden, get('embed'), ids(2), mask);
    backward(loss);
    return loss;
  });
  const gradients = new Map<string, Float32Array>();
  for (const { name, grad } of parameters) gradients.set(name, await grad!.read());
  const bytes = parameters.bytes;
  return { loss: await loss.read(), gradients, bytes };
}

describeOnDevices('operands of different storage', (open) => {
  test('matrices in bfloat16 give the bits that the same numbers give in f32, and so do their gradients', async () => {
    const device = await open();
    const [{ bytes: whole, ...exact }, { bytes: half, ...own }] = [
      await passOf(device, 'f32'),
      await passOf(device, 'bf16'),
    ];
    expect(own).toEqual(exact);
    expect([...own.gradients.values()].every((gradient) => gradient.some((value) => value !== 0))).toBe(true);
    expect(half.gradients).toBe(whole.gradients);
    expect(half.values).toBe(whole.values / 2 + 256);
  });

  test('images in f32, and patches and positions in bfloat16, agree with float64', async () => {
    const shapes = [[2, 8, 12, 3], [8, 3, 4, 4], [8], [6, 8]];
    await checkOperation(await open(), {
      inputs: shapes.map((shape, i) => ({ shape, data: rounded(elementCount(shape), i) })),
      run: ([images, weight, bias, position]) =>
        patchEmbedding(images, cast(weight, 'bf16'), bias, cast(position, 'bf16')),
      oracle: (inputs) => reference.patchEmbedding(inputs, { height: 8, width: 12, patch: 4 }),
      tolerance: { forward: 1e-6, backward: 1e-6 },
    });
  });

  test('norms of rows in bfloat16 with gains in f32 agree with float64', async () => {
    const device = await open();
    const tolerance = { forward: 2 * storageTolerance.bf16, backward: 1e-5 };
    const inputs = [[5, 24], [24], [24]].map((shape, i) => ({ shape, data: rounded(shape[0] * (shape[1] ?? 1), i) }));
    await checkOperation(device, {
      inputs: inputs.slice(0, 2),
      run: ([x, weight]) => rmsNorm(cast(x, 'bf16'), weight),
      oracle: ([x, weight]) => reference.rmsNorm(x, weight),
      tolerance,
    });
    await checkOperation(device, {
      inputs,
      run: ([x, weight, bias]) => layerNorm(cast(x, 'bf16'), weight, bias),
      oracle: ([x, weight, bias]) => reference.layerNorm(x, weight, bias),
      tolerance,
    });
  });
});
