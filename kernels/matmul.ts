import {
  elementCount,
  emptyTensor,
  formatShape,
  gradientSum,
  record,
  roundUp,
  type Shape,
  type Tensor,
} from '../engine/index.ts';
import { cast, type FloatType } from './cast.ts';
import { endingWith } from './epilogue.ts';
import { expectDtype, expectShape, sharedDevice } from './operand.ts';
import { pad } from './pad.ts';
import { expectStorage, groupStorage, inGroups, type Matrix, multiply } from './product.ts';
import { sumOfRows } from './reduce.ts';

export interface MatmulOptions {
  /** `a` is stored [..., K, M]. */
  transposeA?: boolean;
  /** `b` is stored [..., N, K]. */
  transposeB?: boolean;
  /** [N] in the storage of b, added to every row. */
  bias?: Tensor;
  /** Storage of the result; default: that of a. */
  dtype?: FloatType;
}

/**
 * output[..., m, n] = sum_k a[..., m, k] b[..., k, n] + bias[n].
 *
 * a [..., M, K] and b [..., K, N] (or transposed, see the options) have the same leading axes, or b has none and is shared by
 * all of a's matrices. f32, f16 or bf16; sums and gradients are f32. Throws when the shapes do not fit.
 */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  const { transposeA = false, transposeB = false, bias } = options;
  const operands = bias ? [a, b, bias] : [a, b];
  const storage = expectStorage('matmul', 'a', a);
  expectStorage('matmul', 'b', b);
  if (bias) expectDtype('matmul', 'bias', bias, b.dtype);
  const { rows: m, columns: k } = matrixOf('a', a, transposeA);
  const { rows: bDepth, columns: n } = matrixOf('b', b, transposeB);
  const leading = a.shape.slice(0, -2);
  const shared = b.shape.length === 2;
  const sameBatch = b.shape.length === a.shape.length && leading.every((size, i) => size === b.shape[i]);
  if (bDepth !== k || !(shared || sameBatch)) {
    const wanted = transposeB ? ['*', k] : [k, '*'];
    const alternatives = leading.length > 0 ? `[${wanted.join(', ')}] or ` : '';
    throw new Error(
      `matmul: b has shape ${formatShape(b.shape)}; expected ${alternatives}[${[...leading, ...wanted].join(', ')}] for a ${formatShape(a.shape)}${transposeA ? ' transposed' : ''}`,
    );
  }
  if (bias) expectShape('matmul', 'bias', bias, [n]);
  sharedDevice('matmul', ...operands);

  const batches = elementCount(leading);
  // Matrices that meet one shared b, one below the other, are one tall matrix.
  const sizes = shared && !transposeA ? { batches: 1, m: batches * m, n, k } : { batches, m, n, k };
  const dtype = options.dtype ?? storage;
  const shape = [...leading, m, roundUp(n, 4)];
  const padded = [...inGroups(a), ...(bias ? inGroups(b, bias) : inGroups(b))];
  const output = multiplied(padded, { ...sizes, shared, transposeA, transposeB, shape, dtype: groupStorage(n, dtype) });
  return cast(pad(output, n), dtype);
}

interface Sizes {
  batches: number;
  m: number;
  n: number;
  k: number;
  /** One b for all batches. */
  shared: boolean;
  transposeA: boolean;
  transposeB: boolean;
  /** The shape of the output, padded. */
  shape: Shape;
  dtype: FloatType;
}

/** The last axis of every operand is a whole number of groups; `sizes` are the true ones. */
function multiplied([a, b, bias]: Tensor[], sizes: Sizes): Tensor {
  const { batches, m, n, k, shared, transposeA, transposeB } = sizes;
  const { device } = a;
  const output = emptyTensor(device, sizes.shape, sizes.dtype, 'matmul');
  const matrix = (tensor: Tensor, rows: number, one = false): Matrix => ({ tensor, rows, batchRows: one ? 0 : rows });
  const ofA = matrix(a, transposeA ? k : m);
  const ofB = matrix(b, transposeB ? n : k, shared);
  multiply(
    {
      a: { ...ofA, transposed: transposeA },
      b: { ...ofB, transposed: transposeB },
      output: matrix(output, m),
      depth: k,
      batches,
      epilogue: endingWith({ bias }),
    },
    'matmul',
  );

  record('matmul', bias ? [a, b, bias] : [a, b], [output], ([dOutput], [wantsA, wantsB, wantsBias]) => {
    if (!dOutput) return [null, null, null];
    const ofOutput = matrix(dOutput, m);
    const gradients: (Tensor | null)[] = [null, null, null];
    if (wantsA) {
      const { gradient, accumulate } = gradientSum(a, 'matmul backward');
      gradients[0] = gradient;
      const left = { ...ofOutput, transposed: false };
      const right = { ...ofB, transposed: !transposeB };
      // dA = dOutput B^T; where A is stored transposed, dA^T = B dOutput^T.
      const factors = transposeA
        ? { a: { ...right, transposed: transposeB }, b: { ...left, transposed: true } }
        : { a: left, b: right };
      multiply({ ...factors, output: matrix(gradient, ofA.rows), depth: n, batches, accumulate }, 'matmul backward');
    }
    if (wantsB) {
      const { gradient, accumulate } = gradientSum(b, 'matmul backward');
      gradients[1] = gradient;
      const left = { ...ofA, transposed: !transposeA };
      const right = { ...ofOutput, transposed: false };
      // dB = A^T dOutput; where B is stored transposed, dB^T = dOutput^T A.
      const factors = transposeB
        ? { a: { ...right, transposed: true }, b: { ...left, transposed: transposeA } }
        : { a: left, b: right };
      const target = matrix(gradient, ofB.rows, shared);
      // A shared b gets the sum over the batches, one after the other.
      if (!shared) multiply({ ...factors, output: target, depth: m, batches, accumulate }, 'matmul backward');
      else
        for (let batch = 0; batch < batches; batch++) {
          const at = <M extends Matrix>(all: M): M => ({
            ...all,
            map: { length: Math.max(all.rows, 1), stride: 0, offset: batch * all.rows },
          });
          multiply(
            { a: at(factors.a), b: at(factors.b), output: target, depth: m, accumulate: accumulate || batch > 0 },
            'matmul backward',
          );
        }
    }
    if (wantsBias)
      gradients[2] = sumOfRows('matmul backward', dOutput, batches * m, gradientSum(bias!, 'matmul backward'));
    return gradients.slice(0, bias ? 3 : 2);
  });
  return output;
}

function matrixOf(argument: string, tensor: Tensor, transposed: boolean): { rows: number; columns: number } {
  const [rows, columns] = tensor.shape.slice(-2);
  if (columns === undefined || tensor.shape.at(-1) === 0)
    throw new Error(
      `matmul: ${argument} has shape ${formatShape(tensor.shape)}; expected two axes or more, the last of them not empty`,
    );
  return transposed ? { rows: columns, columns: rows } : { rows, columns };
}
