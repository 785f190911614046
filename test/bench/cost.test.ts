/**
 * The cost that each dispatch states, compared with the work that it does: instrumented kernels count the arithmetic operations
 * that they execute and the distinct bytes that they touch (test/support/instrument.ts).
 *
 * An operand that a kernel reads several times, through tiles (products, attention) or in two passes, counts once for reading and
 * once for writing. Arithmetic on rows of a tile beyond the last is not useful work, so the sizes here are whole tiles.
 */
import { readdirSync } from 'node:fs';
import { afterAll, describe, expect, test } from 'vitest';
import { kernelCases } from '../../bench/kernels/cases.ts';
import type { ModelShape } from '../../bench/kernels/shapes.ts';
import { dealings, increment, move, movements, multiplyAdd } from '../../bench/measure/probes.ts';
import { backward, loadKernel, ParameterSet, parameter, type Tensor, tensor } from '../../engine/index.ts';
import * as kernels from '../../kernels/index.ts';
import { type Counted, openCountingDevice } from '../support/counting-device.ts';
import { normals } from '../support/numbers.ts';

const TOLERANCE = 0.1;
/** The fewest FLOPs or bytes that are compared: a dispatch with fewer costs little beside its launch. */
const LEAST = 4096;

/** Sizes for products, of few whole tiles; and for the other ops, with rows as long as a workgroup keeps in registers. */
const products: ModelShape = {
  ...{ name: 'products', batch: 1, prefix: 96, fast: 32, action: 64, width: 256, hidden: 512, expertWidth: 256 },
  ...{ expertHidden: 512, heads: 4, kvHeads: 2, headDimension: 64, vocabulary: 1024, image: 64, patch: 8 },
};
const rows: ModelShape = { ...products, width: 1024, hidden: 1024, expertWidth: 1024 };

/** Entry points without a comparison, and the reasons. */
const leftOut: Readonly<Record<string, string>> = {
  'attention-expression countAllowed': 'an expression of the user, run once when it is registered',
  'attention-expression differentiate': 'an expression of the user, run once when it is registered',
  'attention-expression maskTokens': 'a mask for unfused operations, made once before a benchmark',
  'first-not-finite search': 'runs after a step that was skipped',
  'matmul.matrix product': 'subgroup matrices, which are not counted; its work is that of matmul product',
};

const { full, insulated } = kernels;
const bf16 = (x: Tensor) => kernels.cast(x, 'bf16');
const causal = kernels.attentionTable(kernels.sequence({ all: 128 }), { all: { all: kernels.causal } });
const frozen = kernels.attentionTable(kernels.sequence({ prefix: 96, action: 32 }), {
  prefix: { prefix: full },
  action: { prefix: insulated, action: full },
});
/** The second sample's first image is absent. */
const validity = Uint8Array.from({ length: 2 * 128 }, (_, token) => (token >= 128 && token < 192 ? 0 : 1));
const cached = kernels.attentionTable(kernels.sequence({ prefix: 480, action: 32 }), {
  action: { prefix: full, action: full },
});

const normal = await openCountingDevice(false);
const floor = await openCountingDevice(true);
afterAll(() => {
  normal.close();
  floor.close();
});
const seen = new Set<string>();

function misstated(all: readonly Counted[]): string[] {
  return all.flatMap(({ label, stated, counted }) =>
    (['flops', 'bytes'] as const).flatMap((what) => {
      const [claim, found] = [stated[what], counted[what]];
      const fits = Math.abs(claim - found) <= TOLERANCE * found || Math.max(claim, found) < LEAST;
      return fits ? [] : [`${label}: ${claim} ${what} stated, ${found} counted: ${(claim / found).toFixed(3)}`];
    }),
  );
}

function expectAsStated(counted: readonly Counted[]): void {
  for (const { label } of counted) seen.add(label);
  expect(counted.length).toBeGreaterThan(0);
  expect(misstated(counted)).toEqual([]);
}

/** Operands of normal numbers, the op and its backward. */
async function count(device: typeof normal, shapes: readonly number[][], run: (operands: Tensor[]) => Tensor) {
  const numbers = (shape: readonly number[], seed: number) =>
    tensor(
      device,
      normals(
        shape.reduce((a, b) => a * b, 1),
        seed,
      ),
      shape,
    );
  device.step(() => {
    const operands = shapes.map((shape, seed) => Object.assign(numbers(shape, seed), { wantsGradient: true }));
    const output = run(operands);
    if (output.wantsGradient) backward(output, { gradient: numbers(output.shape, 9) });
  });
  return device.counted();
}

/** The heads of a joint projection with one head of keys, turned, one behind the other. */
function headsOf(x: Tensor): Tensor {
  const [batch, tokens, heads, dimension] = x.shape;
  const table = tensor(x.device, new Float32Array(x.size / heads), [batch, tokens, dimension / 2, 2]);
  const parts = Object.values(kernels.rotaryHeads(x, table, { heads: heads - 2, kvHeads: 1 }));
  return kernels.concatenateTokens(parts.map((part) => kernels.reshape(part, [1, part.size / dimension, dimension])));
}

describe('costs that dispatches state, and what instrumented kernels count', () => {
  const ofProducts = /^(linear|block|gatedMlp|attention|matmul|patch)/;
  // A product with one row computes almost only rows beyond it.
  const cases = [
    ...kernelCases(products).filter(({ name }) => ofProducts.test(name) && !name.startsWith('linear, 1 x')),
    ...kernelCases(rows).filter(({ name }) => !ofProducts.test(name)),
  ];
  const onFloor = /^(blockLinear|gatedMlp, expert|attention)/;
  test.each([
    ...cases.map((one) => [one.name, normal, one] as const),
    ...cases.flatMap((one) => (onFloor.test(one.name) ? [[`floor: ${one.name}`, floor, one] as const] : [])),
  ])('%s', async (_, device, one) => {
    using operands = one.make(device);
    await device.counted();
    device.step(() => {
      const output = operands.forward();
      if (output && operands.gradient) backward(output, { gradient: operands.gradient });
    });
    expectAsStated(await device.counted());
  });

  const matrix = [128, 1024];
  test.each<[string, number[][], (operands: Tensor[]) => Tensor]>([
    ['subtract', [matrix, matrix], ([a, b]) => kernels.subtract(a, b)],
    ['multiply', [matrix, matrix], ([a, b]) => kernels.multiply(a, b)],
    ['tanh', [matrix], ([x]) => kernels.tanh(x)],
    ['sigmoid', [matrix], ([x]) => kernels.sigmoid(x)],
    ['relu', [matrix], ([x]) => kernels.relu(x)],
    [
      'lstmCell',
      [
        [128, 4096],
        [128, 1024],
      ],
      ([gates, cell]) => kernels.concatenateTokens(Object.values(kernels.lstmCell(gates, cell))),
    ],
    ['rotaryHeads', [[2, 64, 6, 32]], ([x]) => headsOf(x)],
    ['sumRows', [[600, 64]], ([x]) => kernels.sumRows(x)],
    [
      'pad and cut, an odd width',
      [
        [128, 255],
        [64, 255],
      ],
      ([x, w]) => kernels.linear(x, w),
    ],
    ['linear with a bias', [matrix, [64, 1024], [64]], ([x, w, bias]) => kernels.linear(x, w, bias)],
    [
      'linear of other sizes',
      [
        [64, 512],
        [192, 512],
      ],
      ([x, w]) => kernels.linear(x, w),
    ],
    [
      'linear in bf16',
      [
        [64, 512],
        [192, 512],
      ],
      ([x, w]) => kernels.linear(bf16(x), bf16(w)),
    ],
    ['rmsNorm of other sizes', [[48, 2048], [2048]], ([x, w]) => kernels.rmsNorm(x, w)],
    ['rmsNorm in bf16', [matrix, [1024]], ([x, w]) => kernels.rmsNorm(bf16(x), bf16(w))],
    [
      'attention in bf16, heads of 128, causal',
      [
        [1, 128, 2, 128],
        [1, 128, 1, 128],
        [1, 128, 1, 128],
      ],
      ([query, key, value]) => kernels.attention(bf16(query), bf16(key), bf16(value), { table: causal }),
    ],
    [
      'attention behind a frozen prefix, a block of it padding',
      [
        [2, 128, 2, 64],
        [2, 128, 1, 64],
        [2, 128, 1, 64],
      ],
      ([query, key, value]) =>
        kernels.attention(query, key, value, { table: frozen, lossBlocks: ['action'], validity }),
    ],
    ['gradients that meet', [matrix], ([x]) => kernels.add(kernels.scale(x, 2), kernels.scale(x, 3))],
    [
      'attention of few rows, lists shared',
      [
        [1, 32, 2, 64],
        [1, 512, 1, 64],
        [1, 512, 1, 64],
      ],
      ([query, key, value]) => kernels.attention(query, key, value, { table: cached, queries: ['action'] }),
    ],
  ])('%s', async (_, shapes, run) => expectAsStated(await count(normal, shapes, run)));

  test('rmsNorm of long rows, as on a graphics adapter', async () => {
    const { software } = floor;
    Object.assign(floor, { software: false });
    const counted = await count(floor, [[48, 2048], [2048]], ([x, w]) => kernels.rmsNorm(x, w));
    Object.assign(floor, { software });
    expectAsStated(counted);
  });

  test("a gradient that is added to a parameter's", async () => {
    const weight = parameter(normal, normals(2 ** 16, 1), [2 ** 16], { name: 'weight' });
    normal.step(() => {
      for (const factor of [2, 3]) backward(kernels.sum(kernels.scale(weight, factor)));
    });
    expectAsStated(await normal.counted());
    weight.dispose();
  });

  test('a moving average of weights', async () => {
    using parameters = new ParameterSet(normal, [{ name: 'weight', shape: [2 ** 16], group: 'all' }]);
    using optimizer = new kernels.AdamW(parameters, { average: 0.5 });
    using gradients = new kernels.GradientNorms(parameters);
    normal.step(() => {
      gradients.checkLosses([tensor(normal, [1], [])]);
      gradients.measure();
      optimizer.average!.update(gradients.norms);
      optimizer.average!.exchange();
    });
    expectAsStated(await normal.counted());
  });

  test('choices of tokens', async () => {
    normal.step(() => {
      const logits = tensor(normal, normals(8 * 4096, 1), [8, 4096]);
      const bits = kernels.allowedBits(
        Array.from({ length: 8 }, () => 'all' as const),
        4096,
      );
      const allowed = tensor(normal, bits, [8, 128], { dtype: 'u32' });
      kernels.chooseTokens(logits, allowed);
      const draws = tensor(normal, new Float32Array(8).fill(0.5), [8]);
      kernels.chooseTokens(logits, allowed, { draws, temperature: 1 });
    });
    expectAsStated(await normal.counted());
  });

  test('rows into a cache', async () => {
    normal.step(() => {
      const [cache, rows] = [512, 128].map((tokens) => tensor(normal, new Float32Array(tokens * 64), [1, tokens, 64]));
      kernels.writeTokens(cache, rows, 32);
    });
    expectAsStated(await normal.counted());
  });

  test('probes of the roofline', async () => {
    normal.step(() => {
      multiplyAdd(normal, 64, 20);
      increment(normal, tensor(normal, [0], [1]));
      const [source, target] = [0, 1].map(() => tensor(normal, new Float32Array(2 ** 20), [2 ** 20]));
      for (const movement of movements) move(normal, movement, dealings[1], { source, target, bytes: 2 ** 22 });
    });
    expectAsStated(await normal.counted());
  });

  test('costs that are a fifth off are noticed', async () => {
    const counted = await count(normal, [[64, 1024]], ([x]) => kernels.scale(x, 2));
    for (const what of ['flops', 'bytes'] as const) {
      const wrong = counted.map((one) => ({ ...one, stated: { ...one.stated, [what]: 1.2 * one.stated[what] } }));
      expect(misstated(wrong).every((line) => line.includes(`${what} stated`))).toBe(true);
      expect(misstated(wrong)).toHaveLength(counted.length);
    }
  });

  test('no entry point is left out', async () => {
    const missing: string[] = [];
    for (const folder of ['engine', 'kernels', 'bench/measure'])
      for (const file of readdirSync(new URL(`../../${folder}/`, import.meta.url)).filter((name) =>
        name.endsWith('.wgsl'),
      )) {
        const { name, entryPoints } = await loadKernel(new URL(`../../${folder}/${file}`, import.meta.url));
        missing.push(...entryPoints.map((entry) => `${name} ${entry}`).filter((label) => !seen.has(label)));
      }
    expect(missing.sort()).toEqual(Object.keys(leftOut).sort());
  });
});
