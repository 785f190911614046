/** One op in one variant and storage: its output and every gradient beside float64. */
import {
  backward,
  type Device,
  elementCount,
  parameter,
  randomStream,
  type Tensor,
  tensor,
} from '../../engine/index.ts';
import { type ChosenVariants, cast, type FloatType, useVariants } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import type { Problem } from '../kernels/problems.ts';
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

export const opOf = (name: string): string => name.split(/[ ,]/)[0];

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
  const { name, operands, run, oracle, gradients } = problem;
  const op = opOf(name);
  const storageOf = (operand: string) => (typeof storage === 'string' ? storage : (storage[operand] ?? 'f32'));
  const given = Object.entries(operands).map(([operand, own], i) => {
    const shape = 'shape' in own ? own.shape : own;
    const ids = 'shape' in own ? own.ids : undefined;
    const row = shape.at(-1) ?? 1;
    const drawn = normals(elementCount(shape), i + 1, row > LONG_ROW ? row ** -0.25 : 1);
    const numbers = ids ?? reference.cast(drawn, 'shape' in own ? 'f32' : storageOf(operand));
    return { operand, shape, ids, numbers, wanted: !('shape' in own) };
  });
  const numbers = Object.fromEntries(given.map(({ operand, numbers }) => [operand, Float64Array.from(numbers)]));
  const expected = oracle(numbers);
  const dOutput = normals(expected.length, 99);
  const leaves = Object.fromEntries(
    given.map(({ operand, shape, ids, numbers, wanted }) => [
      operand,
      ids
        ? tensor(device, ids, shape, { dtype: 'u32' })
        : wanted
          ? parameter(device, numbers, shape, { name: operand })
          : tensor(device, numbers, shape),
    ]),
  );
  const subject = (result: string) => ({
    ...{ op, name, variant, tensor: result },
    storage: typeof storage === 'string' ? storage : Object.entries(storage).flat().join(' '),
  });
  const [forward, back] = (roundings[op] ?? DEFAULT_ROUNDINGS).map((count) => count * roundingOf('f32'));
  const most =
    given.reduce((sum, { numbers }) => sum + numbers.length, 0) > MANY_OPERANDS ? FEW_DIFFERENCES : MOST_DIFFERENCES;
  try {
    useVariants(device, chosen);
    const output = device.step(() => {
      const typed = given.map(({ operand, wanted }): [string, Tensor] => [
        operand,
        wanted ? cast(leaves[operand], storageOf(operand)) : leaves[operand],
      ]);
      const made = run(Object.fromEntries(typed));
      if (problem.backward) backward(made, { gradient: tensor(device, dOutput, made.shape) });
      return made;
    });
    const stored = output.dtype as FloatType;
    const rounds = stored === 'f32' || forward === 0 ? 0 : variant.startsWith('f16') ? ROUNDINGS_OF_F16 : 1;
    const allowed = forward + rounds * roundingOf(stored);
    const compared = [compareTensors(subject('output'), await output.read(), expected, allowed, stored)];
    output.dispose();
    // Gradients are f32, of what was kept in the storage of the output.
    const kept = keepsRounded.includes(op) ? stored : 'f32';
    const allowedBack = back + (kept === 'f32' ? 0 : 2 * roundingOf(kept));
    if (!problem.backward) return compared;
    const byHand = gradients?.(numbers, Float64Array.from(dOutput));
    for (const { operand, wanted } of given) {
      if (!wanted) continue;
      const stride = byHand ? 1 : reference.strideOf(numbers[operand].length, most);
      const which = given.findIndex((own) => own.operand === operand);
      const derivative = () =>
        reference.differentiate(
          (inputs) => oracle(Object.fromEntries(given.map((own, i) => [own.operand, inputs[i]]))),
          given.map((own) => numbers[own.operand]),
          which,
          dOutput,
          stride,
        );
      const { grad, size } = leaves[operand];
      const actual = grad ? await grad.read() : new Float32Array(size);
      compared.push(
        compareTensors(
          subject(`gradient of ${operand}${stride > 1 ? `, 1 of ${stride} elements` : ''}`),
          actual.filter((_, i) => i % stride === 0),
          byHand?.[operand] ?? derivative(),
          allowedBack,
          kept,
        ),
      );
    }
    return compared;
  } finally {
    useVariants(device, shipped);
    for (const leaf of Object.values(leaves)) leaf.dispose();
  }
}
