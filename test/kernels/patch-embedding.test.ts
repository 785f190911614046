import { describe, expect, test } from 'vitest';
import { backward, parameter, tensor } from '../../engine/index.ts';
import { patchEmbedding } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation } from '../support/check-operation.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';
import { fixtureTolerance, readFixture } from '../support/fixtures.ts';
import { expectClose } from '../support/numbers.ts';

describeOnDevices('patchEmbedding', (device) => {
  test.each([
    { count: 2, height: 8, width: 12, patch: 4, out: 8 },
    { count: 3, height: 6, width: 9, patch: 3, out: 5 },
    { count: 1, height: 2, width: 3, patch: 1, out: 4 },
  ])('agrees with float64: $count of $height x $width, patch $patch, out $out', async (sizes) => {
    const { count, height, width, patch, out } = sizes;
    await checkOperation(await device(), {
      inputs: [
        { shape: [count, height, width, 3], name: 'images' },
        { shape: [out, 3, patch, patch], name: 'weight' },
        { shape: [out], name: 'bias' },
        { shape: [(height * width) / patch ** 2, out], name: 'position' },
      ],
      run: ([images, weight, bias, position]) => patchEmbedding(images, weight, bias, position),
      oracle: (inputs) => reference.patchEmbedding(inputs, { height, width, patch }),
      tolerance: { forward: 1e-6, backward: 1e-6 },
    });
  });
});

describe('patchEmbedding operands', () => {
  test('wrong shapes are named', async () => {
    const device = await testDevice('normal');
    const zeros = (...shape: number[]) => tensor(device, new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const images = zeros(2, 8, 8, 3);
    const bias = zeros(5);
    const run = (...operands: Parameters<typeof patchEmbedding>) =>
      expect(() => device.step(() => patchEmbedding(...operands)));
    run(zeros(2, 3, 8, 8), zeros(5, 3, 4, 4), bias, zeros(4, 5)).toThrow(
      'patchEmbedding: images has shape [2, 3, 8, 8]; expected [*, *, *, 3]',
    );
    run(images, zeros(5, 3, 4, 2), bias, zeros(4, 5)).toThrow(
      'patchEmbedding: weight has shape [5, 3, 4, 2]; expected [*, 3, 2, *]',
    );
    run(images, zeros(5, 3, 3, 3), bias, zeros(4, 5)).toThrow(
      'patchEmbedding: images [2, 8, 8, 3] cannot be cut into patches of 3 x 3',
    );
    run(images, zeros(5, 3, 4, 4), bias, zeros(5, 5)).toThrow(
      'patchEmbedding: position has shape [5, 5]; expected [4, 5]',
    );
    images.dispose();
    bias.dispose();
  });
});

describe('patchEmbedding golden', () => {
  test('operations-patch-embedding', async () => {
    const device = await testDevice('normal');
    const fixture = readFixture('operations-patch-embedding');
    const leaf = (name: string) =>
      parameter(device, fixture.get(name).data as Float32Array, fixture.get(name).shape, { name });
    const leaves = { Images: leaf('images'), Weight: leaf('weight'), Bias: leaf('bias'), Position: leaf('position') };
    const output = device.step(() => {
      const y = patchEmbedding(leaves.Images, leaves.Weight, leaves.Bias, leaves.Position);
      backward(y, { gradient: tensor(device, fixture.get('dOutput').data as Float32Array, y.shape) });
      return y;
    });
    const expected = (name: string) => fixture.get(`expected/${name}`).data;
    expectClose(await output.read(), expected('output'), fixtureTolerance(fixture, 'output'), 'output');
    for (const [name, { grad }] of Object.entries(leaves))
      expectClose(await grad!.read(), expected(`d${name}`), fixtureTolerance(fixture, `d${name}`), `d${name}`);
    for (const made of [output, ...Object.values(leaves)]) made.dispose();
  });
});
