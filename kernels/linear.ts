import { emptyTensor, gradientSum, roundUp, type Tensor } from '../engine/index.ts';
import { cast, type FloatType } from './cast.ts';
import { type Activation, epilogueOf, throughActivation } from './epilogue.ts';
import {
  expectFactor,
  expectLike,
  expectShape,
  recordOne,
  rowsAndWidth,
  sharedDevice,
  withLastAxis,
} from './operand.ts';
import { applyEpilogue, encodeProduct, expectStorage, weightGradient, withWholeGroups } from './product.ts';
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
 * x [..., in], weight [out, in] (as in the checkpoints), bias [out] in the weight's storage or f32 -> [..., out]. f32, f16 or bf16;
 * sums and gradients are f32. Throws when the shapes do not fit.
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor | null, options: LinearOptions = {}): Tensor {
  const { width } = rowsAndWidth('linear', 'x', x);
  const storage = expectStorage('linear', 'x', x);
  expectStorage('linear', 'weight', weight);
  expectShape('linear', 'weight', weight, [null, width]);
  const [outputs] = weight.shape;
  const { activation, residual, dtype = storage } = options;
  expectFactor('linear', 'bias', bias, weight, outputs);
  expectLike('linear', 'residual', residual, dtype, withLastAxis(x.shape, outputs));
  sharedDevice('linear', x, weight, ...[bias, residual].filter((tensor) => tensor != null));
  const lists = [[x], [weight], [bias], [residual]] as const;
  const [output] = withWholeGroups(
    lists,
    [{ width: outputs, dtype }],
    ([[x], [weight], [given], [residual]], [dtype]) => {
      const bias = given && cast(given, 'f32');
      const { rows, width: depth } = rowsAndWidth('linear', 'x', x);
      const output = emptyTensor(x.device, withLastAxis(x.shape, roundUp(outputs, 4)), dtype, 'linear');
      const ofWeight = { tensor: weight, rows: outputs };
      const ofX = { tensor: x, rows };
      const operands = [x, weight, bias, residual].filter((tensor) => tensor != null);
      let preActivation: Tensor | null = null;
      recordOne('linear', operands, output, (dOutput, wants) => {
        const op = 'linear backward';
        const wanted = (operand: Tensor) => wants[operands.indexOf(operand)];
        const dSums = preActivation
          ? applyEpilogue(dOutput, throughActivation(activation!, preActivation), op)
          : dOutput;
        const ofSums = { tensor: dSums, rows };
        const dx = wanted(x) ? gradientSum(x, op) : null;
        if (dx) {
          const target = { output: { tensor: dx.gradient, rows }, accumulate: dx.accumulate };
          encodeProduct({ a: ofSums, b: ofWeight, depth: outputs, ...target }, op);
        }
        const dWeight = wanted(weight) ? weightGradient([[ofSums, ofX]], weight, op) : null;
        const dBias = bias && wanted(bias) ? sumOfRows(op, dSums, rows, gradientSum(bias, op)) : null;
        return [dx?.gradient ?? null, dWeight, ...(bias ? [dBias] : []), ...(residual ? [dOutput] : [])];
      });
      if (activation && output.recorded) preActivation = emptyTensor(x.device, output.shape, output.dtype, 'linear');
      const epilogue = epilogueOf({ bias, activation, preActivation, residual });
      const b = { ...ofWeight, transposed: true };
      encodeProduct({ a: ofX, b, output: { tensor: output, rows }, depth, epilogue }, 'linear');
      return [output];
    },
  );
  return output;
}
