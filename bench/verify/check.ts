/** One op in one variant and storage: its output and every gradient beside float64. */
import {
  backward,
  type Device,
  elementCount,
  parameter,
  randomStream,
  type Shape,
  tensor,
} from '../../engine/index.ts';
import { type ChosenVariants, cast, type FloatType, useVariants } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { opOf, type Problem } from '../kernels/problem.ts';
import { type Comparison, compareTensors, roundingOf } from './compare.ts';

/**
 * The error of an output and of gradients that is allowed, relative to the norm, in roundings of f32 (2^-24): what sums of a few hundred
 * terms, and WGSL's exp and division, add up to.
 */
const DEFAULT_ROUNDINGS: readonly [forward: number, backward: number] = [16, 32];
const exact = [0, 1] as const;
const roundings: Readonly<Record<string, readonly [forward: number, backward: number]>> = {
  ...{ concatenateTokens: exact, sliceTokens: exact, pad: exact, writeTokens: exact, embedding: exact },
  ...{ cast: exact, scale: exact, relu: exact, randomUniform: exact },
  // Terms of either sign cancel.
  ...{ sum: [64, 1], mean: [64, 1], linearCrossEntropy: [32, 64] },
};
/** These keep a result between in the storage of their operands, and backward reads it. */
const keepsRounded = ['linear', 'gatedMlp', 'attention'];
/** Variants that compute in f16 round every step of a sum. */
const ROUNDINGS_OF_F16 = 4;
/** Elements of a gradient that are compared, where the op has few operands and where it has many. */
const [MOST_DIFFERENCES, FEW_DIFFERENCES, MANY_OPERANDS] = [128, 16, 2 ** 14];
/** Longer rows than those of a head are divided, so that their products have about unit variance. */
const LONG_ROW = 256;

/** An op with its variant, and the storage of its operands: one for all, or by name. */
export interface Check {
  readonly problem: Problem;
  readonly variant: string;
  readonly storage: FloatType | Readonly<Record<string, FloatType>>;
  /** The variant for the kernels that have it; without it they take the shipped ones. */
  readonly chosen?: ChosenVariants;
}

const shipped: ChosenVariants = { attention: [], matmul: [] };

/** Normal numbers, the same on every run. */
export function normals(count: number, seed: number, deviation = 1): Float32Array {
  return randomStream(seed, 0, 0)
    .fillNormal(new Float32Array(count))
    .map((value) => value * deviation);
}

export async function runCheck(
  device: Device,
  { problem, variant, storage, chosen = shipped }: Check,
): Promise<Comparison[]> {
  const { name, operands, pair, gradients } = problem;
  const [run, oracle] = pair;
  const op = opOf(problem);
  const given = Object.entries(operands).map(([operand, own], i) => {
    const wanted = !('shape' in own);
    const { shape, ids }: { shape: Shape; ids?: Uint32Array } = 'shape' in own ? own : { shape: own };
    const dtype = !wanted ? 'f32' : typeof storage === 'string' ? storage : (storage[operand] ?? 'f32');
    const row = shape.at(-1) ?? 1;
    const drawn = () => normals(elementCount(shape), i + 1, row > LONG_ROW ? row ** -0.25 : 1);
    const numbers = ids ?? reference.cast(drawn(), dtype);
    const leaf = wanted
      ? parameter(device, numbers, shape, { name: operand })
      : tensor(device, numbers, shape, { dtype: ids ? 'u32' : 'f32' });
    return { operand, wanted, dtype, numbers, leaf };
  });
  const inputs = given.map(({ numbers }) => Float64Array.from(numbers));
  const expected = oracle(...inputs);
  const dOutput = normals(expected.length, 99);
  const subject = (result: string) => ({
    ...{ op, name, variant, tensor: result },
    storage: typeof storage === 'string' ? storage : Object.entries(storage).flat().join(' '),
  });
  const [forward, back] = (roundings[op] ?? DEFAULT_ROUNDINGS).map((count) => count * roundingOf('f32'));
  const many = inputs.reduce((sum, { length }) => sum + length, 0) > MANY_OPERANDS;
  try {
    useVariants(device, chosen);
    using output = device.step(() => {
      const made = run(...given.map(({ leaf, wanted, dtype }) => (wanted ? cast(leaf, dtype) : leaf)));
      if (problem.backward) backward(made, { gradient: tensor(device, dOutput, made.shape) });
      return made;
    });
    const stored = output.dtype as FloatType;
    const rounds = stored === 'f32' || forward === 0 ? 0 : variant.startsWith('f16') ? ROUNDINGS_OF_F16 : 1;
    const allowed = forward + rounds * roundingOf(stored);
    const compared = [compareTensors(subject('output'), await output.read(), expected, allowed, stored)];
    if (!problem.backward) return compared;
    // Gradients are f32, of what was kept in the storage of the output.
    const kept = keepsRounded.includes(op) ? stored : 'f32';
    const allowedBack = back + (kept === 'f32' ? 0 : 2 * roundingOf(kept));
    const byHand = gradients?.(inputs, Float64Array.from(dOutput));
    for (const [which, { operand, wanted, leaf }] of given.entries()) {
      if (!wanted) continue;
      const most = many ? FEW_DIFFERENCES : MOST_DIFFERENCES;
      const stride = byHand ? 1 : reference.strideOf(leaf.size, most);
      const actual = leaf.grad ? await leaf.grad.read() : new Float32Array(leaf.size);
      const exact = byHand?.[which] ?? (await differences((own) => oracle(...own), inputs, which, dOutput, stride));
      const result = subject(`gradient of ${operand}${stride > 1 ? `, 1 of ${stride} elements` : ''}`);
      const some = actual.filter((_, i) => i % stride === 0);
      compared.push(compareTensors(result, some, exact, allowedBack, kept));
    }
    return compared;
  } finally {
    useVariants(device, shipped);
    for (const { leaf } of given) leaf.dispose();
  }
}

/** Milliseconds of float64 after which other work of the thread has its turn: a page draws meanwhile. */
const PIECE_MILLISECONDS = 50;

/** `differentiate` in pieces. */
async function differences(...[f, inputs, which, dOutput, stride = 1]: Parameters<typeof reference.differentiate>) {
  const gradient = new Float64Array(Math.ceil(inputs[which].length / stride));
  let begin = performance.now();
  for (let n = 0; n < gradient.length; n++) {
    gradient[n] = reference.derivativeAt(f, inputs, which, dOutput, n * stride);
    if (performance.now() - begin < PIECE_MILLISECONDS) continue;
    await new Promise((done) => setTimeout(done));
    begin = performance.now();
  }
  return gradient;
}
