import { emptyTensor, record, roundUp, type Tensor } from '../engine/index.ts';
import { columnSums } from './column-sums.ts';
import { expectDtype, expectShape, rowsAndWidth, sharedDevice, withLastAxis } from './operand.ts';
import { pad } from './pad.ts';
import { multiply } from './product.ts';

/**
 * output = x weight^T + bias.
 *
 * x [..., in], weight [out, in] (as in the checkpoints), bias [out] -> [..., out]. f32. Throws when the shapes do not fit.
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const { width } = rowsAndWidth('linear', 'x', x);
  expectDtype('linear', 'x', x, 'f32');
  expectDtype('linear', 'weight', weight, 'f32');
  expectShape('linear', 'weight', weight, [null, width]);
  const [outputs] = weight.shape;
  if (bias) {
    expectDtype('linear', 'bias', bias, 'f32');
    expectShape('linear', 'bias', bias, [outputs]);
  }
  sharedDevice('linear', x, weight, ...(bias ? [bias] : []));
  const [inputWidth, outputWidth] = [roundUp(width, 4), roundUp(outputs, 4)];
  const padded = projected(pad(x, inputWidth), pad(weight, inputWidth), bias && pad(bias, outputWidth));
  return pad(padded, outputs);
}

/** The last axis of x, weight and bias is a whole number of groups; so is that of the result. */
function projected(x: Tensor, weight: Tensor, bias: Tensor | undefined): Tensor {
  const { device } = x;
  const { rows, width: depth } = rowsAndWidth('linear', 'x', x);
  const outputs = weight.shape[0];
  const output = emptyTensor(device, withLastAxis(x.shape, roundUp(outputs, 4)), 'f32', 'linear');
  const ofWeight = { tensor: weight, rows: outputs };
  multiply(
    { a: { tensor: x, rows }, b: { ...ofWeight, transposed: true }, output: { tensor: output, rows }, depth, bias },
    'linear',
  );

  record('linear', bias ? [x, weight, bias] : [x, weight], [output], ([dOutput], [wantsX, wantsWeight, wantsBias]) => {
    const op = 'linear backward';
    if (!dOutput) return bias ? [null, null, null] : [null, null];
    const ofOutput = { tensor: dOutput, rows };
    const dx = wantsX ? emptyTensor(device, x.shape, 'f32', op) : null;
    if (dx) multiply({ a: ofOutput, b: ofWeight, output: { tensor: dx, rows }, depth: outputs }, op);
    const dWeight = wantsWeight ? emptyTensor(device, weight.shape, 'f32', op) : null;
    if (dWeight)
      multiply(
        {
          a: { ...ofOutput, transposed: true },
          b: { tensor: x, rows },
          output: { tensor: dWeight, rows: outputs },
          depth: rows,
        },
        op,
      );
    if (!bias) return [dx, dWeight];
    return [dx, dWeight, wantsBias ? columnSums(dOutput, [ofOutput], op) : null];
  });
  return output;
}
