import { describe, expect, test } from 'vitest';
import { backward, type Device, parameter, tensor, withoutTape, zeroTensor } from '../../engine/index.ts';
import {
  blockLinear,
  cast,
  gatedMlp,
  type MatmulChoice,
  type MatmulKey,
  matmul,
  matmulSizes,
  matmulVariant,
  matmulVariants,
  useMatmulVariants,
} from '../../kernels/index.ts';
import { matmulLaunch, splitsOf } from '../../kernels/matmul-variants.ts';
import * as reference from '../../kernels/reference/index.ts';
import { checkOperation, runOnce, storageTolerance } from '../support/check-operation.ts';
import { describeOnDevices, fewerSizes, testDevice } from '../support/devices.ts';
import { longTest } from '../support/long.ts';
import { eighths, expectClose, integers, normals } from '../support/numbers.ts';

interface Case {
  batch: number[];
  m: number;
  n: number;
  k: number;
  transposeA: boolean;
  transposeB: boolean;
  shared: boolean;
  bias: boolean;
}

const count = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);

function shapesOf({ batch, m, n, k, transposeA, transposeB, shared }: Case): [number[], number[]] {
  return [
    [...batch, ...(transposeA ? [k, m] : [m, k])],
    [...(shared ? [] : batch), ...(transposeB ? [n, k] : [k, n])],
  ];
}

/** The product, and its bias if there is one, in float64. */
const exactly =
  ({ batch, ...sizes }: Case) =>
  ([a, b, bias]: ArrayLike<number>[]) =>
    reference.matmul(a, b, { ...sizes, batch: count(batch) }, bias);

async function check(device: Device, settings: Case): Promise<void> {
  const [aShape, bShape] = shapesOf(settings);
  const { transposeA, transposeB, bias, n } = settings;
  await checkOperation(device, {
    inputs: [{ shape: aShape }, { shape: bShape }, ...(bias ? [{ shape: [n] }] : [])],
    run: ([a, b, bias]) => matmul(a, b, { transposeA, transposeB, bias }),
    oracle: exactly(settings),
    tolerance: { forward: 5e-7, backward: 5e-7 },
  });
}

describeOnDevices('matmul', (device) => {
  const flags = [false, true];
  const cases = flags.flatMap((transposeA) => flags.map((transposeB) => ({ transposeA, transposeB })));

  test.each(cases)('one matrix, transposeA $transposeA, transposeB $transposeB', async (transposes) => {
    const opened = await device();
    await check(opened, { batch: [], m: 13, n: 22, k: 17, ...transposes, shared: true, bias: true });
    await check(opened, { batch: [], m: 2, n: 70, k: 5, ...transposes, shared: true, bias: false });
  });

  test.each(cases)('a batch, transposeA $transposeA, transposeB $transposeB', async (transposes) => {
    const opened = await device();
    await check(opened, { batch: [2, 3], m: 5, n: 6, k: 7, ...transposes, shared: false, bias: true });
    await check(opened, { batch: [3], m: 5, n: 6, k: 7, ...transposes, shared: true, bias: true });
  });

  test.each(cases)('several tiles and slices, transposeA $transposeA, transposeB $transposeB', async (transposes) => {
    const settings: Case = { batch: [2], m: 67, n: 130, k: 777, ...transposes, shared: false, bias: true };
    const [aShape, bShape] = shapesOf(settings);
    const [a, b, bias] = [normals(count(aShape), 1), normals(count(bShape), 2), normals(settings.n, 3)];
    const opened = await device();
    const run = () =>
      runOnce(opened, () =>
        matmul(tensor(opened, a, aShape), tensor(opened, b, bShape), {
          ...transposes,
          bias: tensor(opened, bias, [settings.n]),
        }),
      );
    const output = await run();
    const exact = exactly(settings)([a, b, bias]);
    expectClose(output, exact, 1e-6, 'output');
    expect(await run()).toEqual(output);
  });

  test('a zero gradient gives gradients of +0, and a sum of no terms is +0', async () => {
    const opened = await device();
    const a = parameter(opened, normals(300 * 8, 1), [300, 8], { name: 'a' });
    const b = parameter(opened, normals(8 * 12, 2), [8, 12], { name: 'b' });
    opened.step(() => {
      const output = matmul(a, b);
      backward(output, { gradient: zeroTensor(opened, output.shape, 'f32', 'test') });
    });
    for (const leaf of [a, b]) {
      const gradient = await leaf.grad!.read();
      expect(gradient.every((value) => Object.is(value, 0))).toBe(true);
      leaf.dispose();
    }
    const empty = await runOnce(opened, () =>
      matmul(tensor(opened, [], [0, 8]), tensor(opened, [], [0, 4]), { transposeA: true }),
    );
    expect(empty).toEqual(new Float32Array(32));
  });
});

describeOnDevices('matmul in other storage', (device) => {
  const storages = ['f32', 'f16', 'bf16'] as const;
  const pairs = storages
    .flatMap((a) => storages.map((b) => ({ a, b })))
    .filter(({ a, b }) => a !== 'f32' || b !== 'f32');

  for (const dtypes of pairs) {
    const title = `${dtypes.a} times ${dtypes.b}: sums and gradients are f32`;
    // The code that unpacks one operand knows nothing of the other: these three pairs have every storage on either side.
    const short = ['f32 bf16', 'f16 f32', 'bf16 f16'].includes(`${dtypes.a} ${dtypes.b}`);
    (short ? test : longTest)(title, () => checkStorage(dtypes));
  }

  async function checkStorage(dtypes: (typeof pairs)[number]): Promise<void> {
    const opened = await device();
    const transposes = { transposeA: dtypes.a === 'f16', transposeB: dtypes.b !== 'f16' };
    for (const sizes of [{ m: 8, n: 12, k: 16 }, ...(dtypes.a === 'bf16' ? [{ m: 5, n: 6, k: 7 }] : [])]) {
      const settings: Case = { batch: [], ...sizes, ...transposes, shared: true, bias: true };
      const shapes = [...shapesOf(settings), [sizes.n]];
      await checkOperation(opened, {
        inputs: shapes.map((shape, i) => ({ shape, data: eighths(count(shape), i) })),
        run: ([a, b, bias]) => {
          const options = { ...transposes, bias: cast(bias, dtypes.b), dtype: 'f32' } as const;
          return matmul(cast(a, dtypes.a), cast(b, dtypes.b), options);
        },
        oracle: exactly(settings),
        tolerance: { forward: 5e-7, backward: 5e-7 },
      });
    }
  }

  test.each(['f16', 'bf16'] as const)('the result is stored like a: %s, sliced or not', async (dtype) => {
    const opened = await device();
    for (const k of [16, 2048]) {
      const [a, b] = [eighths(12 * k, 1), eighths(8 * k, 2)];
      const settings: Case = {
        batch: [],
        m: 12,
        n: 8,
        k,
        transposeA: false,
        transposeB: false,
        shared: true,
        bias: false,
      };
      const output = await runOnce(opened, () => {
        const product = matmul(tensor(opened, a, [12, k], { dtype }), tensor(opened, b, [k, 8]));
        expect(product.dtype).toBe(dtype);
        return product;
      });
      expectClose(output, exactly(settings)([a, b]), storageTolerance[dtype], dtype);
    }
  });
});

describe('matmul variants', () => {
  const choicesOf = (variant: string, form: Partial<MatmulKey> = {}): MatmulChoice[] =>
    [false, true]
      .flatMap((transposeA) => [false, true].map((transposeB) => ({ transposeA, transposeB })))
      .flatMap((transposes) =>
        matmulSizes.map((size) => ({ a: 'f32', b: 'f32', sides: 1, size, ...transposes, ...form }) as const),
      )
      .map((key) => ({ ...key, variant }));
  const key: MatmulKey = { a: 'f32', b: 'f32', transposeA: false, transposeB: false, sides: 1, size: 'large' };

  test('every kernel that suits the device agrees with float64, and with the base kernel, at any size', async () => {
    const device = await testDevice('normal');
    const variants = matmulVariants(device, key);
    expect(variants).toContain('base-64x64-8x4');
    const rounds = fewerSizes ? 6 : 12;
    const random = integers(12 * 6, 2 ** 20, 11);
    try {
      for (let i = 0; i < rounds; i++) {
        const [m, n, k, size, flags] = random.subarray(i * 6);
        const settings: Case = {
          batch: i % 3 === 0 ? [] : [1 + (size % 4)],
          m: 1 + (m % 150),
          n: 1 + (n % 150),
          k: 1 + (k % (i < rounds / 2 ? 40 : 600)),
          transposeA: (flags & 1) === 1,
          transposeB: (flags & 2) === 2,
          shared: i % 3 === 0 || (flags & 4) === 4,
          bias: (flags & 8) === 8,
        };
        const [aShape, bShape] = shapesOf(settings);
        const data = [normals(count(aShape), 3 * i), normals(count(bShape), 3 * i + 1), normals(settings.n, 3 * i + 2)];
        const { transposeA, transposeB } = settings;
        const exact = exactly(settings)(data.slice(0, settings.bias ? 3 : 2));
        // Each of them compiles for every orientation: two at each size are enough.
        for (const variant of variants.filter((_, v) => v % 6 === i % 6)) {
          useMatmulVariants(device, choicesOf(variant));
          const output = await runOnce(device, () =>
            matmul(tensor(device, data[0], aShape), tensor(device, data[1], bShape), {
              transposeA,
              transposeB,
              bias: settings.bias ? tensor(device, data[2], [settings.n]) : undefined,
            }),
          );
          expectClose(output, exact, 1e-6, `${variant} ${JSON.stringify(settings)}`);
        }
      }
    } finally {
      useMatmulVariants(device, []);
    }
  });

  (fewerSizes ? longTest : test)(
    'every tile gives the same bits where the depth is not split: rows of a sequence, dual products, other storage',
    async () => {
      const device = await testDevice('floor');
      const of = (dtype: 'f16' | 'bf16', seed: number, ...shape: number[]) =>
        tensor(device, normals(count(shape), seed), shape, { dtype });
      const layout = [
        { input: 0, length: 5 },
        { input: 1, length: 50 },
        { input: 0, length: 22 },
      ];
      const products = {
        1: () => {
          const x = [of('bf16', 1, 2, 27, 36), of('bf16', 2, 2, 50, 36)];
          return blockLinear(x, [of('f16', 3, 76, 36), of('f16', 4, 76, 36)], layout);
        },
        2: () => gatedMlp(of('f16', 1, 70, 36), of('bf16', 2, 76, 36), of('bf16', 3, 76, 36), of('bf16', 4, 36, 76)),
      };
      try {
        for (const sides of [1, 2] as const) {
          const form = { a: sides === 1 ? 'bf16' : 'f16', b: sides === 1 ? 'f16' : 'bf16', sides } as const;
          const outputs = new Set<string>();
          for (const variant of matmulVariants(device, { ...key, ...form })) {
            useMatmulVariants(device, choicesOf(variant, form));
            outputs.add(String(await runOnce(device, () => withoutTape(device, products[sides]))));
          }
          expect(outputs.size).toBe(1);
        }
      } finally {
        useMatmulVariants(device, []);
      }
    },
  );

  test('a device without features has the base kernel alone, with a tile for each class of sizes and width of subgroups; an unknown one is named', async () => {
    const device = await testDevice('floor');
    expect(matmulSizes.map((size) => matmulVariant(device, { ...key, size }))).toEqual([
      'base-64x64-8x4',
      'base-32x32-4x4',
      'base-16x64-4x4',
      'base-64x16-4x4',
    ]);
    expect(matmulVariants(device, { ...key, sides: 2 }).every((name) => name.endsWith('x8'))).toBe(true);
    const withSubgroups = (...value: number[]): Device => Object.create(device, { subgroupSizes: { value } });
    const large = (own: Device) => ([1, 2] as const).map((sides) => matmulVariant(own, { ...key, sides }));
    expect(large(withSubgroups(32, 64))).toEqual(['base-64x64-8x8', 'base-64x64-8x8']);
    expect(large(withSubgroups(64, 64))).toEqual(['base-64x64-8x4', 'base-64x64-4x8']);
    // Few tiles share a short depth, and more of them a long one.
    const splits = (tiles: number, depth: number) => splitsOf(matmulLaunch(withSubgroups(32, 64), key), tiles, depth);
    expect([splits(64, 1024), splits(288, 2048), splits(288, 16384), splits(2304, 16384)]).toEqual([4, 1, 4, 1]);
    expect(() => useMatmulVariants(device, [{ ...key, variant: 'software' }])).toThrow(
      "useMatmulVariants: large products of f32 and f32: no variant 'software' on this device; it has base-64x64-8x4",
    );
    useMatmulVariants(device, [{ ...key, variant: 'base-128x64-8x8' }]);
    expect(matmulVariant(device, key)).toBe('base-128x64-8x8');
    expect(matmulVariant(device, { ...key, transposeA: true })).toBe('base-64x64-8x4');
    useMatmulVariants(device, []);
  });
});

describe('matmul cost', () => {
  test('FLOPs and bytes of a product, a sliced one, and one with a bias', async () => {
    const device = await testDevice('normal');
    const zeros = (...shape: number[]) => zeroTensor(device, shape, 'f32', 'operand');
    const costs = (fn: () => unknown) =>
      device.record('cost', () => void fn()).recorder.operations.flatMap((made) => ('cost' in made ? [made.cost] : []));
    expect(costs(() => matmul(zeros(64, 128), zeros(128, 256)))).toEqual([
      { flops: 2 * 64 * 128 * 256, bytes: 4 * (64 * 128 + 128 * 256 + 64 * 256) },
    ]);
    expect(costs(() => matmul(zeros(2, 64, 128), zeros(128, 256), { bias: zeros(256) }))).toEqual([
      { flops: 2 * 128 * 128 * 256 + 128 * 256, bytes: 4 * (128 * 128 + 128 * 256 + 128 * 256 + 256) },
    ]);
    const [product, sum] = costs(() => matmul(zeros(4, 4096), zeros(4096, 4)));
    const slices = sum.flops / 16;
    expect(slices).toBeGreaterThan(1);
    expect(product).toEqual({ flops: 2 * 4 * 4 * 4096, bytes: 4 * (2 * 4 * 4096 + slices * 16) });
    expect(sum).toEqual({ flops: slices * 16, bytes: 4 * (slices * 16 + 16) });
  });
});

describe('matmul operands', () => {
  const message = async (
    aShape: number[],
    bShape: number[],
    options: { transposeB?: boolean; bias?: number[] } = {},
  ) => {
    const device = await testDevice('normal');
    const make = (shape: number[]) => tensor(device, new Float32Array(count(shape)), shape);
    const bias = options.bias && make(options.bias);
    try {
      device.step(() => matmul(make(aShape), make(bShape), { ...options, bias }));
    } catch (error) {
      return (error as Error).message;
    }
    return null;
  };

  test('shapes that do not fit are named', async () => {
    expect(await message([2, 3, 4], [5, 6])).toBe(
      'matmul: b has shape [5, 6]; expected [4, *] or [2, 4, *] for a [2, 3, 4]',
    );
    expect(await message([3, 4], [4, 5], { transposeB: true })).toBe(
      'matmul: b has shape [4, 5]; expected [*, 4] for a [3, 4]',
    );
    expect(await message([2, 3, 4], [3, 4, 5])).toContain('b has shape [3, 4, 5]');
    expect(await message([3, 4], [4, 5], { bias: [4] })).toBe('matmul: bias has shape [4]; expected [5]');
    expect(await message([4], [4, 5])).toContain('matmul: a has shape [4]; expected two axes or more');
  });

  test('storage that does not fit is named', async () => {
    const device = await testDevice('normal');
    const full = tensor(device, new Float32Array(16), [4, 4]);
    const half = tensor(device, new Float32Array(4), [4], { dtype: 'f16' });
    const ids = tensor(device, new Uint32Array(16), [4, 4], { dtype: 'u32' });
    expect(() => device.step(() => matmul(full, ids))).toThrow('matmul: b is u32 [4, 4]; expected f32 or f16 or bf16');
    expect(() => device.step(() => matmul(full, full, { bias: half }))).toThrow(
      'matmul: bias is f16 [4]; expected f32',
    );
  });
});
