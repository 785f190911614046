/**
 * The gated MLP of Gemma (f = gelu) and Llama (f = swish, also named SiLU): with z = x gate^T, u = x up^T and f the activation,
 *
 *   h = f(z) u          output = residual + h down^T
 *
 * Forward, one kernel makes both products and h of them (matmul.wgsl with two sides). z and u are kept for backward, h is not.
 * Backward, the epilogue of dh = dOutput down makes
 *
 *   dz = dh u f'(z)     du = dh f(z)     and h again
 *
 * and the rest are products:  dx = dz gate + du up,  dGate = dz^T x,  dUp = du^T x,  dDown = dOutput^T h.
 * Source: Shazeer 2020, arXiv 2002.05202 (GEGLU, SwiGLU).
 */
import { emptyTensor, type GradientSum, gradientSum, record, roundUp, type Tensor } from '../engine/index.ts';
import { cast, type FloatType } from './cast.ts';
import { type Activation, activationFlops, type Epilogue, endingWith } from './epilogue.ts';
import { expectDtype, expectShape, rowsAndWidth, sharedDevice, withLastAxis } from './operand.ts';
import { pad } from './pad.ts';
import { expectStorage, groupStorage, inGroups, multiply } from './product.ts';
import { reshape } from './reshape.ts';

export interface GatedMlpOptions {
  /** The gate's activation: 'gelu' in its tanh form (default), or 'swish', which is SiLU: z / (1 + exp(-z)). */
  activation?: Activation;
  /** [..., width] in the storage of the result, added last. */
  residual?: Tensor;
  /** Storage of the result; default: that of x. */
  dtype?: FloatType;
}

/**
 * residual + (activation(x gate^T) * (x up^T)) down^T.
 *
 * x [..., width], gate and up [hidden, width] of one storage, down [width, hidden] -> [..., width]. f32, f16 or bf16; sums and
 * gradients are f32, what lies between is stored like x. Throws when the shapes do not fit.
 */
export function gatedMlp(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, options: GatedMlpOptions = {}): Tensor {
  const op = 'gatedMlp';
  const { width } = rowsAndWidth(op, 'x', x);
  const storage = expectStorage(op, 'x', x);
  expectStorage(op, 'gate', gate);
  expectShape(op, 'gate', gate, [null, width]);
  const [hidden] = gate.shape;
  expectDtype(op, 'up', up, gate.dtype);
  expectShape(op, 'up', up, [hidden, width]);
  expectStorage(op, 'down', down);
  expectShape(op, 'down', down, [width, hidden]);
  const { residual, dtype = storage } = options;
  if (residual) {
    expectDtype(op, 'residual', residual, dtype);
    expectShape(op, 'residual', residual, x.shape);
  }
  sharedDevice(op, x, gate, up, down, ...(residual ? [residual] : []));
  const [ofGate, ofUp] = inGroups(gate, up).map((weight) => withRows(weight, roundUp(hidden, 4)));
  const output = joined(inGroups(x)[0], ofGate, ofUp, inGroups(down)[0], {
    ...options,
    residual: residual && inGroups(residual)[0],
    dtype: groupStorage(width, dtype),
  });
  return cast(pad(output, width), dtype);
}

/** [rows, width] with zeros below. */
function withRows(weight: Tensor, rows: number): Tensor {
  const [own, width] = weight.shape;
  if (own === rows) return weight;
  return reshape(pad(reshape(cast(weight, 'f32'), [1, own * width]), rows * width), [rows, width]);
}

/** The last axes are whole numbers of groups; so is that of the result. */
function joined(x: Tensor, gate: Tensor, up: Tensor, down: Tensor, options: GatedMlpOptions): Tensor {
  const { activation = 'gelu', residual, dtype = 'f32' } = options;
  const { device } = x;
  const { rows, width } = rowsAndWidth('gatedMlp', 'x', x);
  const [hidden] = gate.shape;
  const columns = down.shape[0];
  const output = emptyTensor(device, withLastAxis(x.shape, roundUp(columns, 4)), dtype, 'gatedMlp');
  const between = (op: string, like: FloatType) => emptyTensor(device, [rows, hidden], like, op);
  const of = (tensor: Tensor) => ({ tensor, rows });
  const storage = expectStorage('gatedMlp', 'x', x);
  let kept: { keepInner: Tensor; keepFactor: Tensor } | null = null;

  const operands = [x, gate, up, down, ...(residual ? [residual] : [])];
  record('gatedMlp', operands, [output], ([dOutput], [wantsX, wantsGate, wantsUp, wantsDown]) => {
    const op = 'gatedMlp backward';
    if (!dOutput) return operands.map(() => null);
    const [dInner, dFactor] = [between(op, 'f32'), between(op, 'f32')];
    const h = between(op, storage);
    const epilogue: Epilogue = {
      finish: `let z = unpackKept(inner[at]); let u = unpackKept(factor[at]); let value = ${activation}(z); dFactor[at] = sum * value; hidden[at] = packKept(value * u); return sum * u * ${activation}Slope(z);`,
      bindings: { inner: kept!.keepInner, factor: kept!.keepFactor, dFactor, hidden: h },
      flops: activationFlops[activation][0] + activationFlops[activation][1] + 3,
    };
    multiply({ a: of(dOutput), b: { tensor: down, rows: columns }, output: of(dInner), depth: columns, epilogue }, op);
    const gradient = (wants: boolean, like: Tensor) => (wants ? gradientSum(like, op) : null);
    const [dx, dGate, dUp, dDown] = [
      gradient(wantsX, x),
      gradient(wantsGate, gate),
      gradient(wantsUp, up),
      gradient(wantsDown, down),
    ];
    const weightGradient = (dWeight: GradientSum | null, left: Tensor, right: Tensor) => {
      if (!dWeight) return;
      const { gradient, accumulate } = dWeight;
      const output = { tensor: gradient, rows: gradient.shape[0] };
      multiply({ a: { ...of(left), transposed: true }, b: of(right), output, depth: rows, accumulate }, op);
    };
    if (dx) {
      const target = { output: of(dx.gradient), depth: hidden };
      multiply({ a: of(dInner), b: { tensor: gate, rows: hidden }, ...target, accumulate: dx.accumulate }, op);
      multiply({ a: of(dFactor), b: { tensor: up, rows: hidden }, ...target, accumulate: true }, op);
    }
    weightGradient(dGate, dInner, x);
    weightGradient(dUp, dFactor, x);
    weightGradient(dDown, dOutput, h);
    const gradients = [dx, dGate, dUp, dDown].map((sum) => sum?.gradient ?? null);
    return [...gradients, ...(residual ? [dOutput] : [])];
  });

  if (output.recorded) kept = { keepInner: between('gatedMlp', storage), keepFactor: between('gatedMlp', storage) };
  const h = between('gatedMlp', storage);
  const keep = kept ? 'keepInner[at] = packKept(sum); keepFactor[at] = packKept(other); ' : '';
  const epilogue: Epilogue = {
    finish: `${keep}return ${activation}(sum) * other;`,
    bindings: { ...kept },
    flops: activationFlops[activation][0] + 1,
  };
  const ofGate = { tensor: gate, rows: hidden, transposed: true };
  multiply({ a: of(x), b: ofGate, up, output: of(h), depth: width, epilogue }, 'gatedMlp');
  const ofDown = { tensor: down, rows: columns, transposed: true };
  const ending = endingWith({ residual });
  multiply({ a: of(h), b: ofDown, output: of(output), depth: hidden, epilogue: ending }, 'gatedMlp');
  device.currentStep('gatedMlp').release(h.buffer);
  return output;
}
