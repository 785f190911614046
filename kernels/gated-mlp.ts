/**
 * The gated MLP of Gemma (f = gelu) and Llama (f = swish, also named SiLU): with z = x gate^T, u = x up^T and f the activation,
 *
 *   h = f(z) u          output = residual + h down^T
 *
 * Forward, one kernel makes both products and h of them (the dual product of matmul.wgsl). z and u are kept for backward; h is
 * kept on a software adapter only, where a store costs more than the memory.
 * Backward, the epilogue of dh = dOutput down makes
 *
 *   dz = dh u f'(z)     du = dh f(z)     and, unless it was kept, h again
 *
 * and the rest are products:  dx = dz gate + du up,  dGate = dz^T x,  dUp = du^T x,  dDown = dOutput^T h.
 * Source: Shazeer 2020, arXiv 2002.05202 (GEGLU, SwiGLU).
 */
import { bytesPerElement, emptyTensor, gradientSum, roundUp, type Tensor, viewTensor } from '../engine/index.ts';
import { activationFlops } from './activation.ts';
import { cast, type FloatType } from './cast.ts';
import { type Epilogue, epilogueOf } from './epilogue.ts';
import type { LinearOptions } from './linear.ts';
import { expectLike, expectShape, recordOne, rowsAndWidth, sharedDevice, withLastAxis } from './operand.ts';
import { pad } from './pad.ts';
import { encodeProduct, expectStorage, weightGradient, withWholeGroups } from './product.ts';
import { reshape } from './reshape.ts';
import { stackedGradients, stackedInPlace } from './stacked.ts';

/**
 * residual + (activation(x gate^T) * (x up^T)) down^T, with the activation 'gelu' in its tanh form (default) or 'swish'.
 *
 * x [..., width], gate and up [hidden, width] of one storage, down [width, hidden] -> [..., width]. f32, f16 or bf16; sums and
 * gradients are f32, what lies between is stored like x. Throws when the shapes do not fit.
 */
export function gatedMlp(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, options: LinearOptions = {}): Tensor {
  const op = 'gatedMlp';
  const { width } = rowsAndWidth(op, 'x', x);
  const storage = expectStorage(op, 'x', x);
  expectStorage(op, 'gate', gate);
  expectShape(op, 'gate', gate, [null, width]);
  const [hidden] = gate.shape;
  expectLike(op, 'up', up, gate.dtype, [hidden, width]);
  expectStorage(op, 'down', down);
  expectShape(op, 'down', down, [width, hidden]);
  const { activation = 'gelu', residual, dtype = storage } = options;
  expectLike(op, 'residual', residual, dtype, x.shape);
  sharedDevice(op, x, gate, up, down, ...(residual ? [residual] : []));
  const hiddenRows = roundUp(hidden, 4);
  const lists = [[x], [withRows(gate, hiddenRows), withRows(up, hiddenRows)], [down], [residual]] as const;
  const [output] = withWholeGroups(lists, [{ width, dtype }], ([[x], [gate, up], [down], [residual]], [dtype]) => {
    const { device } = x;
    const { rows, width: stored } = rowsAndWidth(op, 'x', x);
    const output = emptyTensor(device, withLastAxis(x.shape, roundUp(width, 4)), dtype, op);
    const between = (op: string, like: FloatType) => emptyTensor(device, [rows, hiddenRows], like, op);
    const of = (tensor: Tensor) => ({ tensor, rows });
    const [ofGate, ofUp] = [gate, up].map((tensor) => ({ tensor, rows: hiddenRows }));
    const ofDown = { tensor: down, rows: width };
    const storage = expectStorage(op, 'x', x);
    let kept: { preActivation: Tensor; upOutput: Tensor } | null = null;
    let keptHidden: Tensor | null = null;

    const operands = [x, gate, up, down, ...(residual ? [residual] : [])];
    recordOne(op, operands, output, (dOutput, [wantsX, wantsGate, wantsUp, wantsDown]) => {
      const op = 'gatedMlp backward';
      // Both in one tensor, the second at a multiple of 256 bytes: the gradients of gate and up are then one product, if it can be bound.
      const batchRows = roundUp(rows, 16);
      const sideBytes = batchRows * hiddenRows * bytesPerElement.f32;
      const fits = 2 * sideBytes <= device.limits.maxStorageBufferBindingSize;
      const sides = fits ? emptyTensor(device, [2 * batchRows, hiddenRows], 'f32', op) : null;
      const [dPreActivation, dUpOutput] = [0, 1].map((side) =>
        sides ? viewTensor(sides, [rows, hiddenRows], side * sideBytes, op) : between(op, 'f32'),
      );
      const { preActivation: forwardPreActivation, upOutput: forwardUpOutput } = kept!;
      const h = keptHidden ?? between(op, storage);
      const epilogue: Epilogue = {
        parameters: {
          ...{ epilogue: 'gatedBackward', activated: activation, activationSlope: activation },
          ...(!keptHidden && { keep: 'hidden' }),
        },
        bindings: { forwardPreActivation, forwardUpOutput, dUpOutput, ...(!keptHidden && { hidden: h }) },
        flops: activationFlops[activation][0] + activationFlops[activation][1] + 2,
      };
      encodeProduct({ a: of(dOutput), b: ofDown, output: of(dPreActivation), depth: width, epilogue }, op);
      const dx = wantsX ? gradientSum(x, op) : null;
      if (dx) {
        const target = { output: of(dx.gradient), depth: hiddenRows };
        encodeProduct({ a: of(dPreActivation), b: ofGate, ...target, accumulate: dx.accumulate }, op);
        encodeProduct({ a: of(dUpOutput), b: ofUp, ...target, accumulate: true }, op);
      }
      const ofBoth = sides && wantsGate && wantsUp ? stackedInPlace([gate, up]) : null;
      const [dGate, dUp] = ofBoth
        ? stackedGradients(ofBoth, [true, true], op, ({ gradient, accumulate }) => {
            const a = { tensor: sides!, rows, batchRows, transposed: true };
            const output = { tensor: gradient, rows: hiddenRows, batchRows: hiddenRows };
            encodeProduct({ a, b: of(x), output, depth: rows, batches: 2, accumulate }, op);
          })
        : [
            wantsGate ? weightGradient([[of(dPreActivation), of(x)]], gate, op) : null,
            wantsUp ? weightGradient([[of(dUpOutput), of(x)]], up, op) : null,
          ];
      const dDown = wantsDown ? weightGradient([[of(dOutput), of(h)]], down, op) : null;
      return [dx?.gradient ?? null, dGate, dUp, dDown, ...(residual ? [dOutput] : [])];
    });

    if (output.recorded) kept = { preActivation: between(op, storage), upOutput: between(op, storage) };
    const h = between(op, storage);
    const epilogue: Epilogue = {
      parameters: { epilogue: 'gated', activated: activation, ...(kept && { keep: 'both' }) },
      bindings: { ...kept },
      flops: activationFlops[activation][0] + 1,
    };
    const dual = { b: { ...ofGate, transposed: true }, up };
    encodeProduct({ a: of(x), ...dual, output: of(h), depth: stored, epilogue }, op);
    const b = { ...ofDown, transposed: true };
    encodeProduct({ a: of(h), b, output: of(output), depth: hiddenRows, epilogue: epilogueOf({ residual }) }, op);
    if (kept && device.software) keptHidden = h;
    else device.currentStep(op).release(h.buffer);
    return [output];
  });
  return output;
}

/** [rows, width] with zeros below. */
function withRows(weight: Tensor, rows: number): Tensor {
  const [own, width] = weight.shape;
  if (own === rows) return weight;
  return reshape(pad(reshape(cast(weight, 'f32'), [1, own * width]), rows * width), [rows, width]);
}
