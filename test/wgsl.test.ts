import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dealings, increment, move, movements, multiplyAdd } from '../bench/measure/probes.ts';
import {
  backward,
  type DataType,
  type Device,
  InputError,
  type Kernel,
  loadKernel,
  openDevice,
  ParameterSet,
  type Parameters,
  specialise,
  type Tensor,
  zeroTensor,
} from '../engine/index.ts';
import * as kernels from '../kernels/index.ts';
import { pretendMatrices } from './support/emulated-matrices.ts';

const root = new URL('..', import.meta.url);
const files = ['engine', 'kernels', 'bench/measure'].flatMap((folder) =>
  readdirSync(new URL(folder, root))
    .filter((name) => name.endsWith('.wgsl'))
    .map((name) => `${folder}/${name}`),
);

/**
 * Dawn's backend that validates everything and computes nothing: on the floor, or with all that WebGPU can offer. `debug` refuses
 * a binding that the entry point does not use.
 */
const nullDevice = (floor: boolean) => openDevice({ adapter: 'null', floor, debug: true });
/** The same with experimental features; null where this build of Dawn has none. */
const experimental = await openDevice({ adapter: 'null', experimental: true, debug: true }).catch((error) => {
  if (error instanceof InputError) return null;
  throw error;
});
afterAll(() => experimental?.close());
const noExperiments = 'this build of Dawn has no subgroup matrices';

async function expectValid(gpu: GPUDevice, entryPoints: readonly string[], code: string, what = ''): Promise<void> {
  for (const entryPoint of entryPoints) {
    gpu.pushErrorScope('validation');
    const module = gpu.createShaderModule({ code });
    gpu.createComputePipeline({ layout: 'auto', compute: { module, entryPoint } });
    const error = await gpu.popErrorScope();
    expect(error?.message, `${entryPoint} ${what}`).toBeUndefined();
    const { messages } = await module.getCompilationInfo();
    expect(messages.map(({ message, lineNum }) => `line ${lineNum}: ${message}`)).toEqual([]);
  }
}

/**
 * For each name of alternatives: those declarations together that mention one another (an alias and the functions that take it),
 * each such group alone, and all declarations that have an alternative of that name.
 */
function alternativeSets({ alternatives }: Kernel): Record<string, string>[] {
  const names = new Set([...alternatives.values()].flatMap((known) => [...known.keys()]));
  return [...names].flatMap((name) => {
    const declarations = [...alternatives].flatMap(([parameter, known]) =>
      known.has(name) ? [{ parameter, text: known.get(name)! }] : [],
    );
    let groups: (typeof declarations)[] = [];
    for (const declared of declarations) {
      const mentions = (other: typeof declared) =>
        new RegExp(`\\b${other.parameter}\\b`).test(declared.text) ||
        new RegExp(`\\b${declared.parameter}\\b`).test(other.text);
      const joined = groups.filter((group) => group.some(mentions));
      groups = [...groups.filter((group) => !joined.includes(group)), [...joined.flat(), declared]];
    }
    return [...groups, declarations].map((group) =>
      Object.fromEntries(group.map(({ parameter }) => [parameter, name])),
    );
  });
}

/** What in a declaration needs a feature of the device. */
const needing = { f16: /\bf16\b/, subgroups: /\bsubgroup[A-Z]/ };

describe('WGSL files as they stand', () => {
  let floor: Device;
  let full: Device;
  beforeAll(async () => {
    [floor, full] = [await nullDevice(true), await nullDevice(false)];
  });
  afterAll(() => {
    floor.close();
    full.close();
  });
  /** Whether a WGSL text needs features that are no standard yet. */
  const isExperiment = (source: string) => /^enable .*\bchromium_experimental/m.test(source);

  test.for(files)('%s is valid, every entry point of it', async (path, { skip }) => {
    const source = readFileSync(new URL(path, root), 'utf8');
    expect(source).not.toMatch(/\$\{|^\s*#/m);
    const extensions = [...source.matchAll(/^enable ([^;]+);/gm)].flatMap((match) => match[1].split(/,\s*/));
    const sibling = path.split('.').length > 2;
    if (!sibling) expect(extensions, 'a base file needs no feature').toEqual([]);
    const device = isExperiment(source) ? experimental : extensions.length > 0 ? full : floor;
    if (!device) return skip(noExperiments);
    const { gpu, features } = device;
    for (const extension of extensions)
      expect([...features]).toContain(extension.replace(/^f16$/, 'shader-f16').replaceAll('_', '-'));
    const kernel = await loadKernel(new URL(path, root));
    expect(kernel.entryPoints.length).toBe(source.match(/@compute/g)!.length);
    expect(kernel.parameters.length).toBe(source.match(/\/\/ @param/g)?.length ?? 0);
    await expectValid(gpu, kernel.entryPoints, source);
    const target = { immediateBytes: full.immediateBytes, subgroupSizeControl: false };
    const immediate = specialise(kernel, {}, target);
    if (immediate !== source) await expectValid(full.gpu, kernel.entryPoints, immediate, 'with immediates');
  });

  const kernelsWithAlternatives = files.filter((path) => /^\/\/ @or /m.test(readFileSync(new URL(path, root), 'utf8')));
  test.for(kernelsWithAlternatives)('%s is valid with each of its alternatives', async (path, { skip }) => {
    const kernel = await loadKernel(new URL(path, root));
    const sets = alternativeSets(kernel);
    const chosen = new Set(sets.flatMap((set) => Object.entries(set).map(String)));
    for (const [parameter, known] of kernel.alternatives)
      for (const name of known.keys()) expect([...chosen]).toContain(`${parameter},${name}`);
    for (const parameters of sets) {
      const text = Object.entries(parameters)
        .map(([parameter, name]) => kernel.alternatives.get(parameter)!.get(name))
        .join();
      const enable = Object.entries(needing).flatMap(([feature, words]) => (words.test(text) ? [feature] : []));
      const code = specialise(kernel, { ...parameters, ...(enable.length > 0 && { enable: enable.join() }) });
      const device = isExperiment(code) ? experimental : /^enable /m.test(code) ? full : floor;
      if (!device) return skip(noExperiments);
      await expectValid(device.gpu, kernel.entryPoints, code, JSON.stringify(parameters));
    }
  });
});

/** Attention of 4 heads on 2 with zeros; lists of 140 tokens are shared by workgroups, of 40 not. */
function attentionOf(
  device: Device,
  tokens: number,
  headDimension: number,
  dtype: DataType,
  parameters?: Parameters,
): Tensor {
  const layout = kernels.sequence({ all: tokens });
  const table = kernels.attentionTable(layout, { all: { all: kernels.full } });
  const expression = parameters && { source: {}, layout, samples: 1, parameters, allowedPairs: null };
  const [query, key, value] = [4, 2, 2].map((heads) =>
    zeroTensor(device, [1, tokens, heads, headDimension], dtype, 'operand'),
  );
  query.wantsGradient = key.wantsGradient = value.wantsGradient = true;
  return kernels.attention(query, key, value, { table, expression });
}

/** Runs every op forward and backward, in every storage and at every kind of shape for which it specialises its kernels. */
function runEveryOp(device: Device): void {
  const data = (shape: number[], dtype: DataType = 'f32') => zeroTensor(device, shape, dtype, 'operand');
  const ids = (shape: number[]) => data(shape, 'u32');
  const leaf = (shape: number[], dtype: DataType = 'f32') => {
    const made = data(shape, dtype);
    made.wantsGradient = true;
    return made;
  };
  const both = (...outputs: Tensor[]) => {
    for (const output of outputs) backward(output, { gradient: data([...output.shape]) });
  };
  const { gelu, swish, tanh, sigmoid, relu, meanSquaredError, l1, huber, binaryCrossEntropyWithLogits } = kernels;
  for (const dtype of ['f32', 'f16', 'bf16'] as const) {
    for (const activation of [gelu, swish, tanh, sigmoid, relu]) both(activation(leaf([3, 8], dtype)));
    for (const second of [[3, 8], [8]])
      for (const op of [kernels.add, kernels.subtract, kernels.multiply])
        both(op(leaf([3, 8], dtype), leaf(second, dtype)));
    both(kernels.scale(leaf([3, 8], dtype), 2));
    both(kernels.sum(leaf([3, 8], dtype)), kernels.mean(leaf([40_000], dtype)));
    for (const gain of ['onePlus', 'plain'] as const)
      for (const width of [8, 1032]) both(kernels.rmsNorm(leaf([3, width], dtype), leaf([width], dtype), { gain }));
    both(kernels.layerNorm(leaf([3, 8], dtype), leaf([8], dtype), leaf([8], dtype)));
    both(kernels.adaptiveRmsNorm(leaf([2, 3, 8], dtype), leaf([2, 24], dtype)));
    both(kernels.gatedResidual(leaf([2, 3, 8], dtype), leaf([2, 3, 8], dtype), leaf([2, 24], dtype)));
    both(kernels.softmax(leaf([3, 8])), kernels.softmax(leaf([3, 5])));
    for (const layout of ['halves', 'pairs'] as const) {
      both(kernels.rotary(leaf([1, 3, 2, 8], dtype), data([1, 3, 4, 2]), { layout }));
      const counts = { heads: 2, kvHeads: 1 };
      both(...Object.values(kernels.rotaryHeads(leaf([1, 3, 4, 8], dtype), data([1, 3, 4, 2]), { layout, ...counts })));
    }
    both(kernels.embedding(ids([5]), leaf([7, 8], dtype)));
    both(kernels.concatenateTokens([leaf([2, 3, 8], dtype), leaf([2, 1, 8], dtype)]));
    both(kernels.sliceTokens(leaf([2, 3, 8], dtype), 1, 2));
    for (const other of ['f32', 'f16', 'bf16'] as const)
      if (other !== dtype) both(kernels.cast(leaf([8], dtype), other));
    for (const dimension of [16, 32, 64, 96, 128, 160, 192, 224, 256]) both(attentionOf(device, 140, dimension, dtype));
    both(attentionOf(device, 40, 16, dtype));
  }

  // Single numbers, and widths that are no multiple of four.
  both(kernels.add(leaf([3, 8]), leaf([])), kernels.multiply(leaf([3, 8]), leaf([])));
  const twice = leaf([3, 8]);
  both(kernels.add(twice, twice));
  both(kernels.add(leaf([3, 5]), leaf([5])), kernels.multiply(leaf([3, 5]), leaf([5])), kernels.scale(leaf([5]), 2));
  both(kernels.sumRows(leaf([3, 5])), kernels.sumRows(leaf([600, 5])), kernels.sumRows(leaf([600, 8])));
  both(kernels.rmsNorm(leaf([3, 5]), leaf([5])), kernels.layerNorm(leaf([3, 5]), leaf([5]), leaf([5])));
  both(kernels.adaptiveRmsNorm(leaf([2, 3, 5]), leaf([2, 15])));
  both(kernels.gatedResidual(leaf([2, 3, 5]), leaf([2, 3, 5]), leaf([2, 15])));
  for (const layout of ['halves', 'pairs'] as const) {
    both(kernels.rotary(leaf([1, 3, 2, 6]), data([1, 3, 3, 2]), { layout }));
    const counts = { heads: 2, kvHeads: 1 };
    both(...Object.values(kernels.rotaryHeads(leaf([1, 3, 4, 6]), data([1, 3, 3, 2]), { layout, ...counts })));
  }
  both(kernels.embedding(ids([5]), leaf([7, 5])));
  both(kernels.sliceTokens(leaf([2, 3, 5]), 1, 2));

  for (const transposeA of [false, true])
    for (const transposeB of [false, true])
      for (const [m, n, k] of [
        [8, 12, 16],
        [5, 6, 7],
        [8, 8, 2048],
      ]) {
        const a = leaf(transposeA ? [k, m] : [m, k]);
        const b = leaf(transposeB ? [n, k] : [k, n]);
        both(kernels.matmul(a, b, { transposeA, transposeB }));
        both(kernels.matmul(a, b, { transposeA, transposeB, bias: leaf([n]) }));
        const batch = leaf([2, ...a.shape]);
        both(kernels.matmul(batch, b, { transposeA, transposeB }));
      }
  // One row, many rows of few columns, few tiles and many; sliced and not.
  for (const [rows, columns] of [
    [3, 20],
    [20, 12],
    [20, 20],
    [640, 640],
  ])
    for (const depth of [8, 2048]) both(kernels.matmul(leaf([rows, depth]), leaf([depth, columns])));
  for (const dtype of ['f32', 'f16', 'bf16'] as const)
    for (const other of ['f32', 'f16', 'bf16'] as const)
      for (const rows of [3, 20, 640]) {
        const [x, weight, bias] = [leaf([rows, 8], dtype), leaf([640, 8], other), leaf([640], other)];
        both(kernels.linear(x, weight), kernels.linear(x, weight, bias));
        const [down, up] = [leaf([4, 8]), leaf([640, 4])];
        both(kernels.lowRank(x, weight, { down, up }), kernels.lowRank(x, weight, { down, up }, bias));
        for (const activation of ['gelu', 'swish'] as const) {
          const residual = leaf([rows, 640], dtype);
          both(
            kernels.linear(x, weight, null, { activation }),
            kernels.linear(x, weight, bias, { activation, residual }),
          );
          const weights = [leaf([640, 8], other), leaf([640, 8], other), leaf([8, 640], other)] as const;
          const short = leaf([rows, 8], dtype);
          both(kernels.gatedMlp(x, ...weights, { activation, residual: short }));
        }
      }
  const layout = [
    { input: 0, length: 3 },
    { input: 1, length: 2 },
    { input: 0, length: 1 },
  ];
  both(kernels.blockLinear([leaf([2, 4, 8]), leaf([2, 2, 12])], [leaf([16, 8]), leaf([16, 12])], layout));
  for (const output of kernels.blockSplitLinear(leaf([2, 6, 8]), [leaf([12, 8]), leaf([16, 8])], layout)) both(output!);
  both(kernels.patchEmbedding(leaf([2, 8, 8, 3]), leaf([12, 3, 4, 4]), leaf([12]), leaf([4, 12])));

  for (const loss of [meanSquaredError, l1, huber, binaryCrossEntropyWithLogits]) {
    both(loss(leaf([2, 3, 4]), data([2, 3, 4])));
    both(loss(leaf([2, 3, 4]), data([2, 3, 4]), { valid: ids([2, 3]), dimensions: ids([4]) }));
  }
  for (const reduction of ['perExample', 'perToken'] as const)
    both(kernels.linearCrossEntropy(leaf([2, 3, 8]), leaf([40, 8]), ids([2, 3]), ids([2, 3]), { reduction }));
  both(kernels.linearCrossEntropy(leaf([2, 3, 5]), leaf([5000, 5]), ids([2, 3]), ids([2, 3])));
  for (const width of [8, 5]) both(...Object.values(kernels.lstmCell(leaf([3, 4 * width]), leaf([3, width]))));
  kernels.flowInterpolate(data([2, 3, 4]), data([2, 3, 4]), data([2]));
  both(kernels.eulerStep(leaf([2, 3, 4]), leaf([2, 3, 4]), -0.1));
  kernels.randomUniform([7], ids([4]));
  for (const dtype of ['f32', 'f16', 'bf16'] as const)
    kernels.fillUniform([data([8], dtype)], { seed: 0, step: 0, stream: 0 }, 1);
  kernels.chooseTokens(data([2, 50]), ids([2, 2]));
  kernels.chooseTokens(data([2, 50]), ids([2, 2]), { draws: data([2]), temperature: 2 });
  multiplyAdd(device, 64, 1);
  increment(device, data([1]));
  const [source, target] = [data([2 ** 20]), data([2 ** 20])];
  for (const movement of movements) move(device, movement, dealings[0], { source, target, bytes: 2 ** 22 });
  for (const dtype of ['f32', 'f16', 'bf16'] as const)
    kernels.writeTokens(data([2, 5, 2, 4], dtype), data([2, 3, 2, 4], dtype), 1);
}

async function validateEveryOp(device: Device): Promise<string[]> {
  using set = new ParameterSet(device, [
    { name: 'weight', shape: [5], group: 'all' },
    { name: 'half', shape: [8], group: 'all', dtype: 'bf16' },
  ]);
  device.step(() => {
    runEveryOp(device);
    backward(kernels.sum(kernels.multiply(set.get('weight'), set.get('weight'))));
  });
  for (const moments of ['f32', 'bf16', '8bit'] as const) {
    using optimizer = new kernels.AdamW(set, { maximumNorm: 1, moments, average: 0.9 });
    using numbers = new kernels.FirstNotFinite(device);
    device.step(() => {
      optimizer.checkLosses([zeroTensor(device, [], 'f32', 'loss')]);
      numbers.search(set.get('half'));
      optimizer.step(1e-3);
    });
    optimizer.exchange();
    device.flush();
  }
  await device.finish();
  return device.pipelines.names();
}

/** Every kernel for matrix products that the device can run. */
function runEveryMatmul(device: Device): void {
  const zeros = (...shape: number[]) => zeroTensor(device, shape, 'f32', 'operand');
  for (const sides of [1, 2] as const) {
    const key = { a: 'f32', b: 'f32', transposeA: false, transposeB: true, sides, size: 'small' } as const;
    for (const variant of kernels.matmulVariants(device, key)) {
      kernels.useMatmulVariants(device, [{ ...key, variant }]);
      if (sides === 1) kernels.matmul(zeros(20, 8), zeros(20, 8), { transposeB: true });
      else kernels.gatedMlp(zeros(20, 8), zeros(20, 8), zeros(20, 8), zeros(8, 20));
    }
  }
}

/** Products of f16 by the kernels with subgroup matrices: orientations, epilogues, what is kept for backward, storage of the result. */
function runEveryMatrixProduct(device: Device): void {
  const operand = (shape: number[], dtype: DataType = 'f16') => {
    const made = zeroTensor(device, shape, dtype, 'operand');
    made.wantsGradient = true;
    return made;
  };
  const [x, weight] = [operand([20, 8]), operand([20, 8])];
  for (const variant of ['matrix-64x64', 'matrix-128x128']) {
    for (const transposeA of [false, true])
      for (const transposeB of [false, true]) {
        const choices = ([1, 2] as const).map(
          (sides) => ({ transposeA, transposeB, sides, size: 'small', variant }) as const,
        );
        kernels.useMatmulVariants(
          device,
          choices.map((choice) => ({ a: 'f16', b: 'f16', ...choice })),
        );
        const [a, b] = [operand(transposeA ? [8, 20] : [20, 8]), operand(transposeB ? [20, 8] : [8, 20])];
        for (const bias of [undefined, operand([20])]) kernels.matmul(a, b, { transposeA, transposeB, bias });
        if (transposeA || !transposeB) continue;
        for (const dtype of ['f32', 'f16', 'bf16'] as const)
          for (const activation of ['gelu', 'swish'] as const) {
            const residual = operand([20, 20], dtype);
            kernels.linear(x, weight, null, { activation, residual, dtype });
            kernels.gatedMlp(x, weight, weight, operand([8, 20]), { activation, dtype });
          }
      }
  }
}

/** Every kernel of attention that the device can run, with a user's expressions and without, lists shared and not. */
function runEveryAttention(device: Device, parameters: Parameters): void {
  for (const dtype of ['f32', 'f16', 'bf16'] as const)
    for (const headDimension of [32, 256])
      for (const variant of kernels.attentionVariants(device, { entry: 'forward', dtype, headDimension })) {
        const choices = kernels.attentionEntries.map((entry) => ({ entry, dtype, headDimension, variant }));
        kernels.useAttentionVariants(
          device,
          choices.filter((choice) => kernels.attentionVariants(device, choice).includes(variant)),
        );
        for (const tokens of [40, 140])
          for (const expressions of [undefined, parameters]) {
            const output = attentionOf(device, tokens, headDimension, dtype, expressions);
            backward(output, { gradient: zeroTensor(device, output.shape, 'f32', 'gradient') });
          }
      }
}

describe('WGSL files at the parameters in use', () => {
  /** 'kernel entry' -> every set of parameters that it was compiled with. */
  const used = new Map<string, Record<string, string | number>[]>();
  const note = (pipelines: string[]) => {
    for (const pipeline of pipelines) {
      const [, name, entry, parameters] = /^(\S+) (\S+) (.*)$/.exec(pipeline)!;
      used.set(`${name} ${entry}`, [...(used.get(`${name} ${entry}`) ?? []), JSON.parse(parameters)]);
    }
  };

  test('every op on a device at the default limits and without features', async () => {
    const device = await nullDevice(true);
    note(await validateEveryOp(device));
    device.step(() => runEveryMatmul(device));
    await device.finish();
    note(device.pipelines.names());
    device.close();
  });

  test.each([4, 8, 16])('every op as on a software adapter with subgroups of %i lanes', async (lanes) => {
    const device = Object.assign(await nullDevice(false), { software: true, subgroupSizes: [lanes, lanes] as const });
    note(await validateEveryOp(device));
    device.close();
  });

  test('every product with subgroup matrices', async ({ skip }) => {
    if (!experimental) return skip(noExperiments);
    experimental.step(() => runEveryMatrixProduct(pretendMatrices(experimental)));
    await experimental.finish();
    note(experimental.pipelines.names());
  });

  test.each([true, false])('every kernel of attention, with expressions (software adapter: %s)', async (software) => {
    const device = Object.assign(await nullDevice(false), { software, subgroupSizes: [8, 8] as const });
    const layout = kernels.sequence({ all: 40 });
    await kernels.attentionExpression(device, layout, { mask: 'q >= k' });
    const score = { score: 'score * constant(head)', derivative: 'constant(head)', constants: new Float32Array(8) };
    const mask = { mask: 'q >= k && queryData == keyData', tokenData: new Uint32Array(40) };
    // The numbers that this backend reads back are no derivatives: it compiles the check, and fails it.
    await kernels.attentionExpression(device, layout, { ...mask, ...score }).catch(() => {});
    const registered = await kernels.attentionExpression(device, layout, mask);
    const { parameters } = registered;
    kernels.maskMatrix(device, registered, 40);
    const declared = (name: string, value: string) =>
      `fn ${name}(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32 { return ${value}; }`;
    const scores = {
      score: declared('score', score.score),
      scoreDerivative: declared('scoreDerivative', score.derivative),
    };
    device.step(() => runEveryAttention(device, { ...parameters, ...scores }));
    await device.finish();
    note(device.pipelines.names());
    device.close();
  });

  test('no entry point, no parameter and no alternative is left out', async () => {
    const left: string[] = [];
    for (const path of files) {
      const { name, entryPoints, parameters, alternatives } = await loadKernel(new URL(path, root));
      if (!experimental && name === 'matmul.matrix') continue;
      const sets = entryPoints.map((entry) => used.get(`${name} ${entry}`) ?? []);
      entryPoints.forEach((entry, i) => {
        if (sets[i].length === 0) left.push(`${name} ${entry}`);
      });
      for (const parameter of parameters) {
        const values = new Set(sets.flat().map((set) => set[parameter]));
        for (const alternative of alternatives.get(parameter)?.keys() ?? [])
          if (!values.has(alternative)) left.push(`${name}, alternative ${alternative} of ${parameter}`);
        // Threads and slices have one value; what has alternatives must have been seen in at least two.
        if (!/^[A-Z_]+$/.test(parameter) && values.size < 2) left.push(`${name}, parameter ${parameter}`);
      }
    }
    expect(left).toEqual([]);
  });
});
