import { emptyTensor, formatShape, gradientSum, roundUp, type Tensor } from '../engine/index.ts';
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
import { reshape } from './reshape.ts';
import { concatenateTokens } from './tokens.ts';

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
 * sums and gradients are f32. Throws when the shapes do not fit. A weight may lie in pieces of rows; it takes neither bias nor residual then.
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
  const added = [bias, residual].filter((tensor) => tensor != null);
  sharedDevice('linear', x, weight, ...added);
  if (weight.pieces.length > 1 && added.length > 0)
    throw new Error(
      `linear: weight '${weight.name}' ${formatShape(weight.shape)} lies in pieces of rows; no bias or residual is added then`,
    );
  if (weight.pieces.length > 1) return overPieces(x, weight, options);
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

/** The outputs of each piece of a weight, one beside the other. */
function overPieces(x: Tensor, weight: Tensor, { activation, dtype = x.dtype as FloatType }: LinearOptions): Tensor {
  const { rows, width } = rowsAndWidth('linear', 'x', x);
  const flat = reshape(x, [rows, width]);
  const outputs = weight.pieces.map((piece) => linear(flat, piece, null, { activation, dtype: 'f32' }));
  return cast(reshape(concatenateTokens(outputs), withLastAxis(x.shape, weight.shape[0])), dtype);
}
