import { describe, expect, test } from 'vitest';
import { type Device, emptyTensor, openDevice, tensor } from '../../engine/index.ts';
import {
  blockLinear,
  gatedMlp,
  linear,
  type MatmulKey,
  matmul,
  matmulSizes,
  matmulVariant,
  matmulVariants,
  useMatmulVariants,
} from '../../kernels/index.ts';
import { encodeProduct } from '../../kernels/product.ts';
import * as reference from '../../kernels/reference/index.ts';
import { runOnce, storageTolerance } from '../support/check-operation.ts';
import { fewerSizes, testDevice } from '../support/devices.ts';
import { deviceWithEmulatedMatrices, matricesOfF16, pretendMatrices } from '../support/emulated-matrices.ts';
import { longTest } from '../support/long.ts';
import { expectClose, normals } from '../support/numbers.ts';

const flags = [false, true];
const keys = flags.flatMap((transposeA) =>
  flags.flatMap((transposeB) =>
    ([1, 2] as const).flatMap((sides) =>
      matmulSizes.map((size): MatmulKey => ({ a: 'f16', b: 'f16', transposeA, transposeB, sides, size })),
    ),
  ),
);
const ofMatrices = (device: Device, key: MatmulKey) =>
  matmulVariants(device, key).filter((name) => name.startsWith('matrix-'));

describe('variants of products with subgroup matrices', () => {
  test('suit a device with the matrices and the width that they are made for, and operands in f16; none is taken by itself', async () => {
    const device = pretendMatrices(await openDevice({ adapter: 'null', floor: true }));
    const names = ['matrix-64x64', 'matrix-128x128'];
    for (const key of keys) {
      expect(ofMatrices(device, key)).toEqual(names);
      expect(matmulVariant(device, key)).toMatch(/^base-/);
      for (const other of [{ a: 'f32' }, { b: 'bf16' }] as const)
        expect(ofMatrices(device, { ...key, ...other })).toEqual([]);
    }
    const lacking = (change: Partial<Record<keyof Device, unknown>>) =>
      ofMatrices(Object.assign(Object.create(device), change), keys[0]);
    expect(lacking({})).toEqual(names);
    expect(lacking({ subgroupSizes: [64, 64] })).toEqual([]);
    expect(lacking({ subgroupSizes: [8, 16] })).toEqual([]);
    for (const change of [{ resultComponentType: 'f16' }, { componentType: 'i8' }, { K: 8 }, { M: 32 }])
      expect(lacking({ subgroupMatrices: [{ ...matricesOfF16[0], ...change }] })).toEqual([]);
    for (const feature of ['shader-f16', 'subgroups', 'subgroup-size-control'])
      expect(lacking({ features: new Set([...device.features].filter((name) => name !== feature)) })).toEqual([]);
    device.close();
  });

  test('a device that is not opened as experimental has none, and an adapter without them says so', async () => {
    const device = await testDevice('normal');
    expect(device.subgroupMatrices).toEqual([]);
    expect(ofMatrices(device, keys[0])).toEqual([]);
    const error = await openDevice({ experimental: true }).then((opened) => opened.close(), String);
    if (error) expect(error).toContain('no experimental kernel runs on this adapter, which lacks ');
  });
});

const half = (device: Device, data: Float32Array, ...shape: number[]) => tensor(device, data, shape, { dtype: 'f16' });
const halves = (count: number, seed: number) => reference.cast(normals(count, seed), 'f16');

/** Products with edges in rows, columns and depth, batches and splits, as [batch, m, n, k]. */
async function checkProducts(device: Device, orientations: readonly (readonly [boolean, boolean])[]): Promise<void> {
  for (const [transposeA, transposeB] of orientations)
    for (const [batch, m, n, k] of [
      [1, 72, 132, 52],
      [2, 20, 24, 780],
      [3, 132, 8, 20],
    ]) {
      const [a, b, bias] = [halves(batch * m * k, 1), halves(batch * k * n, 2), halves(n, 3)];
      const output = await runOnce(device, () => {
        const left = transposeA ? half(device, a, batch, k, m) : half(device, a, batch, m, k);
        const right = transposeB ? half(device, b, batch, n, k) : half(device, b, batch, k, n);
        return matmul(left, right, { transposeA, transposeB, bias: half(device, bias, n), dtype: 'f32' });
      });
      const sizes = { batch, m, n, k, transposeA, transposeB, shared: false };
      expectClose(output, reference.matmul(a, b, sizes, bias), 1e-6, JSON.stringify(sizes));
    }
}

/** Epilogues, the dual product of a gated MLP, and row maps. */
async function checkLayers(device: Device): Promise<void> {
  const [rows, width, hidden] = [37, 28, 76];
  const [x, gate, up] = [halves(rows * width, 1), halves(hidden * width, 2), halves(hidden * width, 3)];
  const [down, bias, added] = [halves(width * hidden, 4), halves(hidden, 5), halves(rows * hidden, 6)];
  const projected = await runOnce(device, () => {
    const options = { activation: 'gelu', residual: half(device, added, rows, hidden) } as const;
    return linear(half(device, x, rows, width), half(device, gate, hidden, width), half(device, bias, hidden), options);
  });
  const options = { bias, activation: 'gelu', residual: added } as const;
  expectClose(projected, reference.linear(x, gate, width, options), storageTolerance.f16, 'linear');
  const gated = await runOnce(device, () => {
    const weights = [
      half(device, gate, hidden, width),
      half(device, up, hidden, width),
      half(device, down, width, hidden),
    ] as const;
    return gatedMlp(half(device, x, rows, width), ...weights, { activation: 'swish' });
  });
  const exact = reference.gatedMlp([x, gate, up, down], width, { activation: 'swish' });
  expectClose(gated, exact, storageTolerance.f16, 'gatedMlp');
  // A depth in runs, of which a split takes several.
  const map = { length: 9, stride: 12, offset: 2 };
  const [stored, m, n, k] = [40 * map.stride, 20, 24, 40 * map.length];
  const [a, b] = [halves(stored * m, 7), halves(stored * n, 8)];
  const inRuns = await runOnce(device, () => {
    const output = emptyTensor(device, [m, n], 'f32', 'test');
    const ofA = { tensor: half(device, a, stored, m), rows: k, map, transposed: true };
    const ofB = { tensor: half(device, b, stored, n), rows: k, map };
    encodeProduct({ a: ofA, b: ofB, output: { tensor: output, rows: m }, depth: k }, 'test');
    return output;
  });
  const mapped = (all: Float32Array, width: number) =>
    all.filter((_, i) => {
      const place = (Math.floor(i / width) % map.stride) - map.offset;
      return place >= 0 && place < map.length;
    });
  const sizes = { m, n, k, transposeA: true, transposeB: false };
  expectClose(inRuns, reference.matmul(mapped(a, m), mapped(b, n), sizes), 1e-6, 'runs');
  // Samples of a joint sequence: 3 rows of each, with 2 rows of the other input between.
  const layout = [
    { input: 0, length: 3 },
    { input: 1, length: 2 },
  ];
  const [own, other] = [x.subarray(0, 24 * width), x.subarray(0, 16 * width)];
  const joint = await runOnce(device, () => {
    const inputs = [half(device, own, 8, 3, width), half(device, other, 8, 2, width)];
    return blockLinear(inputs, [half(device, gate, hidden, width), half(device, up, hidden, width)], layout, [], {
      dtype: 'f32',
    });
  });
  const [ofOwn, ofOther] = [reference.linear(own, gate, width), reference.linear(other, up, width)];
  const samples = Array.from({ length: 8 }, (_, i) => [
    ...ofOwn.subarray(3 * i * hidden, 3 * (i + 1) * hidden),
    ...ofOther.subarray(2 * i * hidden, 2 * (i + 1) * hidden),
  ]);
  expectClose(joint, samples.flat(), 1e-6, 'blockLinear');
}

describe('products with subgroup matrices agree with float64', () => {
  const choose = (device: Device, variant: string) =>
    useMatmulVariants(
      device,
      keys.map((key) => ({ ...key, variant })),
    );

  test('on an adapter that has them', async ({ skip }) => {
    const device = await openDevice({ experimental: true }).catch((error: Error) => error);
    if (device instanceof Error) return skip(device.message);
    const variants = ofMatrices(device, keys[0]);
    if (variants.length === 0) skip('its subgroup matrices are not 16 x 16 x 16 of f16 with f32 sums');
    for (const variant of variants) {
      choose(device, variant);
      await checkProducts(device, [
        [false, false],
        [false, true],
        [true, false],
        [true, true],
      ]);
      await checkLayers(device);
    }
    device.close();
  });

  (fewerSizes ? longTest : test)('where the matrices are emulated: a tile of 64 x 64', async () => {
    const device = await deviceWithEmulatedMatrices();
    choose(device, 'matrix-64x64');
    await checkProducts(device, [[true, false]]);
    await checkLayers(device);
    device.close();
  });

  longTest('where the matrices are emulated: every orientation, every tile', async () => {
    const device = await deviceWithEmulatedMatrices();
    for (const variant of ofMatrices(device, keys[0])) {
      choose(device, variant);
      await checkProducts(device, [
        [false, false],
        [false, true],
        [true, true],
      ]);
      await checkLayers(device);
    }
    device.close();
  });
});
