import { emptyTensor, gradientSum, record, type Tensor } from '../engine/index.ts';
import { cast, type FloatType } from './cast.ts';
import { type Activation, endingWith, throughActivation } from './epilogue.ts';
import { expectDtype, expectShape, rowsAndWidth, sharedDevice, withLastAxis } from './operand.ts';
import { pad } from './pad.ts';
import { expectStorage, finish, groupStorage, inGroups, multiply } from './product.ts';
import { sumOfRows } from './reduce.ts';

export interface LinearOptions {
  activation?: Activation;
  /** [..., out] in the storage of the result, added last. */
  residual?: Tensor;
  /** Storage of the result; default: that of x. */
  dtype?: FloatType;
}

/**
 * output = residual + activation(x weight^T + bias).
 *
 * x [..., in], weight [out, in] (as in the checkpoints), bias [out] in the weight's storage -> [..., out]. f32, f16 or bf16; sums
 * and gradients are f32. Throws when the shapes do not fit.
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor | null, options: LinearOptions = {}): Tensor {
  const { width } = rowsAndWidth('linear', 'x', x);
  const storage = expectStorage('linear', 'x', x);
  expectStorage('linear', 'weight', weight);
  expectShape('linear', 'weight', weight, [null, width]);
  const [outputs] = weight.shape;
  const { residual, dtype = storage } = options;
  if (bias) {
    expectDtype('linear', 'bias', bias, weight.dtype);
    expectShape('linear', 'bias', bias, [outputs]);
  }
  if (residual) {
    expectDtype('linear', 'residual', residual, dtype);
    expectShape('linear', 'residual', residual, withLastAxis(x.shape, outputs));
  }
  sharedDevice('linear', x, weight, ...[bias, residual].filter((tensor) => tensor != null));
  const [ofWeight, ofBias] = bias ? inGroups(weight, bias) : inGroups(weight);
  const ofResidual = residual && inGroups(residual)[0];
  const stored = groupStorage(outputs, dtype);
  const output = projected(inGroups(x)[0], ofWeight, ofBias, { ...options, residual: ofResidual, dtype: stored });
  return cast(pad(output, outputs), dtype);
}

/** The last axes are whole numbers of groups; so is that of the result. */
function projected(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | undefined,
  { activation, residual, dtype }: LinearOptions,
): Tensor {
  const { device } = x;
  const { rows, width: depth } = rowsAndWidth('linear', 'x', x);
  const outputs = weight.shape[0];
  const output = emptyTensor(device, withLastAxis(x.shape, Math.ceil(outputs / 4) * 4), dtype ?? 'f32', 'linear');
  const ofWeight = { tensor: weight, rows: outputs };

  const operands = [x, weight, bias, residual].filter((tensor) => tensor !== undefined);
  let keepInner: Tensor | null = null;
  record('linear', operands, [output], ([dOutput], wants) => {
    const op = 'linear backward';
    if (!dOutput) return operands.map(() => null);
    const wanted = (operand: Tensor | undefined) => operand !== undefined && wants[operands.indexOf(operand)];
    const dSums = keepInner ? finish(dOutput, throughActivation(activation!, keepInner), op) : dOutput;
    const ofOutput = { tensor: dSums, rows };
    const dx = wanted(x) ? gradientSum(x, op) : null;
    if (dx)
      multiply(
        { a: ofOutput, b: ofWeight, output: { tensor: dx.gradient, rows }, depth: outputs, accumulate: dx.accumulate },
        op,
      );
    const dWeight = wanted(weight) ? gradientSum(weight, op) : null;
    if (dWeight)
      multiply(
        {
          a: { ...ofOutput, transposed: true },
          b: { tensor: x, rows },
          output: { tensor: dWeight.gradient, rows: outputs },
          depth: rows,
          accumulate: dWeight.accumulate,
        },
        op,
      );
    const dBias = wanted(bias) ? sumOfRows(op, dSums, rows, gradientSum(bias!, op)) : null;
    return [dx?.gradient ?? null, dWeight?.gradient ?? null, ...(bias ? [dBias] : []), ...(residual ? [dOutput] : [])];
  });
  if (activation && output.recorded) keepInner = emptyTensor(device, output.shape, output.dtype, 'linear');
  multiply(
    {
      a: { tensor: x, rows },
      b: { ...ofWeight, transposed: true },
      output: { tensor: output, rows },
      depth,
      epilogue: endingWith({ bias, activation, keepInner, residual }),
    },
    'linear',
  );
  return output;
}
