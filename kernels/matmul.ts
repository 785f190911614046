import { elementCount, emptyTensor, formatShape, gradientSum, roundUp, type Tensor } from '../engine/index.ts';
import { cast, type FloatType } from './cast.ts';
import { epilogueOf } from './epilogue.ts';
import { expectFactor, recordOne, sharedDevice } from './operand.ts';
import { encodeProduct, expectStorage, type Matrix, withWholeGroups } from './product.ts';
import { sumOfRows } from './reduce.ts';

export interface MatmulOptions {
  /** `a` is stored [..., K, M]. */
  transposeA?: boolean;
  /** `b` is stored [..., N, K]. */
  transposeB?: boolean;
  /** [N] in the storage of b or f32, added to every row. */
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
  expectFactor('matmul', 'bias', bias, b, n);
  sharedDevice('matmul', ...operands);

  const dtype = options.dtype ?? storage;
  const [output] = withWholeGroups([[a], [b], [bias]], [{ width: n, dtype }], ([[a], [b], [given]], [dtype]) => {
    const bias = given && cast(given, 'f32');
    const shape = [...leading, m, roundUp(n, 4)];
    const output = emptyTensor(a.device, shape, dtype, 'matmul');
    // Matrices that meet one shared b, one below the other, are one tall matrix.
    const tall = shared && !transposeA;
    const batches = tall ? 1 : elementCount(leading);
    const rows = tall ? elementCount(leading) * m : m;
    const matrix = (tensor: Tensor, rows: number, one = false): Matrix => ({ tensor, rows, batchRows: one ? 0 : rows });
    const ofA = matrix(a, transposeA ? k : rows);
    const ofB = matrix(b, transposeB ? n : k, shared);
    const factors = { a: { ...ofA, transposed: transposeA }, b: { ...ofB, transposed: transposeB } };
    const epilogue = epilogueOf({ bias });
    encodeProduct({ ...factors, output: matrix(output, rows), depth: k, batches, epilogue }, 'matmul');

    recordOne('matmul', bias ? [a, b, bias] : [a, b], output, (dOutput, [wantsA, wantsB, wantsBias]) => {
      const op = 'matmul backward';
      const ofOutput = matrix(dOutput, rows);
      const gradients: (Tensor | null)[] = [null, null, null];
      if (wantsA) {
        const { gradient, accumulate } = gradientSum(a, op);
        gradients[0] = gradient;
        // dA = dOutput B^T; where A is stored transposed, dA^T = B dOutput^T.
        const factors = transposeA
          ? { a: { ...ofB, transposed: transposeB }, b: { ...ofOutput, transposed: true } }
          : { a: ofOutput, b: { ...ofB, transposed: !transposeB } };
        encodeProduct({ ...factors, output: matrix(gradient, ofA.rows), depth: n, batches, accumulate }, op);
      }
      if (wantsB) {
        const { gradient, accumulate } = gradientSum(b, op);
        gradients[1] = gradient;
        // dB = A^T dOutput; where B is stored transposed, dB^T = dOutput^T A.
        const factors = transposeB
          ? { a: { ...ofOutput, transposed: true }, b: { ...ofA, transposed: transposeA } }
          : { a: { ...ofA, transposed: !transposeA }, b: ofOutput };
        const target = { output: matrix(gradient, ofB.rows, shared), depth: rows };
        // A shared b gets the sum over the batches, one after the other.
        if (!shared) encodeProduct({ ...factors, ...target, batches, accumulate }, op);
        else
          for (let batch = 0; batch < batches; batch++) {
            const at = <M extends Matrix>(all: M): M => ({
              ...all,
              map: { length: Math.max(all.rows, 1), stride: 0, offset: batch * all.rows },
            });
            const own = { a: at(factors.a), b: at(factors.b), accumulate: accumulate || batch > 0 };
            encodeProduct({ ...own, ...target }, op);
          }
      }
      if (bias && wantsBias) gradients[2] = sumOfRows(op, dOutput, batches * rows, gradientSum(bias, op));
      return gradients.slice(0, bias ? 3 : 2);
    });
    return [output];
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
