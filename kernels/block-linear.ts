/** Linear maps between a joint sequence and the sequences of its owners: the mixture of experts without concatenation. */
import { emptyTensor, gradientSum, record, roundUp, type Tensor } from '../engine/index.ts';
import { cast, type FloatType } from './cast.ts';
import { endingWith } from './epilogue.ts';
import { expectDtype, expectShape, sharedDevice } from './operand.ts';
import { pad } from './pad.ts';
import { expectStorage, groupStorage, inGroups, type Matrix, multiply } from './product.ts';
import { sumOfRows } from './reduce.ts';
import { concatenateTokens, sliceTokens } from './tokens.ts';

/**
 * The blocks of a joint sequence in order; `input` is the index of the owner of its rows. blockLinear leaves out those
 * that are not `joined`: their owner has rows for them, the joint sequence has none.
 */
export type BlockLayout = readonly { readonly input: number; readonly length: number; readonly joined?: boolean }[];

type Absent = null | undefined;

/** Adjacent blocks of one owner: so many rows of each sample, from `offset` of the joint sequence and `ownOffset` of the owner's. */
interface Segment {
  readonly length: number;
  readonly offset: number;
  readonly ownOffset: number;
}

/** The rows of one owner. */
interface Share {
  readonly segments: readonly Segment[];
  /** Rows of a sample. */
  readonly length: number;
}

/**
 * Every input through its own weight, into the rows of one joint sequence that are its own.
 *
 * inputs[i] [B, T_i, in_i], its blocks in the order of the layout; weights[i] [out, in_i], biases[i] [out] in its storage -> [B, T,
 * out] with T the sum of all lengths, stored like the first input unless `dtype` says otherwise. f32, f16 or bf16; sums and gradients
 * are f32. An input without blocks in the layout is null. Throws when shapes or layout do not fit.
 */
export function blockLinear(
  inputs: readonly (Tensor | Absent)[],
  weights: readonly (Tensor | Absent)[],
  layout: BlockLayout,
  biases: readonly (Tensor | Absent)[] = [],
  options: { dtype?: FloatType } = {},
): Tensor {
  const op = 'blockLinear';
  const { shares, length } = sharesOf(op, layout, Math.max(inputs.length, weights.length));
  const owners = [...shares.keys()].filter((i) => shares[i].segments.length > 0);
  const surplus = inputs.findIndex((input, i) => input && shares[i].length === 0);
  if (surplus >= 0) throw new Error(`${op}: inputs[${surplus}] has no rows in the layout; pass null`);
  const terms = owners.map((i) => {
    const x = required(op, `inputs[${i}]`, inputs[i]);
    const weight = required(op, `weights[${i}]`, weights[i]);
    const bias = biases[i];
    const first = { x: required(op, 'inputs', inputs[owners[0]]), weight: required(op, 'weights', weights[owners[0]]) };
    expectShape(op, `inputs[${i}]`, x, [first.x.shape[0], shares[i].length, null]);
    expectShape(op, `weights[${i}]`, weight, [first.weight.shape[0], x.shape[2]]);
    if (bias) expectDtype(op, `biases[${i}]`, bias, weight.dtype);
    if (bias) expectShape(op, `biases[${i}]`, bias, [first.weight.shape[0]]);
    return { x, weight, bias: bias ?? null, share: shares[i] };
  });
  if (terms.length === 0) throw new Error(`${op}: the layout has no rows`);
  sharedDevice(op, ...terms.flatMap(({ x, weight, bias }) => (bias ? [x, weight, bias] : [x, weight])));
  const outputs = terms[0].weight.shape[0];
  const dtype = options.dtype ?? expectStorage(op, 'inputs', terms[0].x);
  const padded = terms.map(({ x, weight, bias, share }) => {
    const [ofWeight, ofBias = null] = bias ? inGroups(weight, bias) : inGroups(weight);
    return { x: inGroups(x)[0], weight: ofWeight, bias: ofBias, share };
  });
  return cast(pad(joined(padded, length, groupStorage(outputs, dtype)), outputs), dtype);
}

interface Term {
  x: Tensor;
  weight: Tensor;
  bias: Tensor | null;
  share: Share;
}

/** Last axes are whole numbers of groups. */
function joined(terms: readonly Term[], length: number, dtype: FloatType): Tensor {
  const { device, shape } = terms[0].x;
  const batch = shape[0];
  const outputs = terms[0].weight.shape[0];
  const output = emptyTensor(device, [batch, length, roundUp(outputs, 4)], dtype, 'blockLinear');
  for (const { x, weight, bias, share } of terms)
    for (const segment of share.segments)
      multiply(
        {
          a: ownRows(x, segment, share),
          b: { tensor: weight, rows: outputs, transposed: true },
          output: jointRows(output, segment),
          depth: weight.shape[1],
          epilogue: endingWith({ bias }),
        },
        'blockLinear',
      );

  const operands = terms.flatMap(({ x, weight, bias }) => (bias ? [x, weight, bias] : [x, weight]));
  record('blockLinear', operands, [output], ([dOutput], wants) => {
    if (!dOutput) return operands.map(() => null);
    const wanted = new Map(operands.map((operand, i) => [operand, wants[i]]));
    return terms.flatMap((term) => {
      const { x, weight, bias, share } = term;
      const dx = wanted.get(x) ? inputGradient(dOutput, term) : null;
      const dWeight = wanted.get(weight) ? weightGradient(dOutput, term) : null;
      if (!bias) return [dx, dWeight];
      return [dx, dWeight, wanted.get(bias) ? biasGradient(dOutput, bias, share) : null];
    });
  });
  return output;
}

function inputGradient(dOutput: Tensor, { x, weight, share }: Term): Tensor {
  const op = 'blockLinear backward';
  const { gradient, accumulate } = gradientSum(x, op);
  const outputs = weight.shape[0];
  const leftOut = share.segments.reduce((rows, segment) => rows - segment.length, share.length);
  if (!accumulate && leftOut > 0) x.device.clear(gradient);
  for (const segment of share.segments)
    multiply(
      {
        a: jointRows(dOutput, segment),
        b: { tensor: weight, rows: outputs },
        output: ownRows(gradient, segment, share),
        depth: outputs,
        accumulate,
      },
      op,
    );
  return gradient;
}

function weightGradient(dOutput: Tensor, { x, weight, share }: Term): Tensor {
  const op = 'blockLinear backward';
  const { gradient, accumulate } = gradientSum(weight, op);
  share.segments.forEach((segment, i) => {
    const a = jointRows(dOutput, segment);
    multiply(
      {
        a: { ...a, transposed: true },
        b: ownRows(x, segment, share),
        output: { tensor: gradient, rows: weight.shape[0] },
        depth: a.rows,
        accumulate: accumulate || i > 0,
      },
      op,
    );
  });
  return gradient;
}

function biasGradient(dOutput: Tensor, bias: Tensor, { segments, length }: Share): Tensor {
  const op = 'blockLinear backward';
  const own = concatenateTokens(segments.map((segment) => sliceTokens(dOutput, segment.offset, segment.length)));
  return sumOfRows(op, own, dOutput.shape[0] * length, gradientSum(bias, op));
}

/**
 * The other direction: the rows of a joint sequence, each through the weight of its owner.
 *
 * joint [B, T, in], weights[i] [out_i, in], residuals[i] [B, T_i, out_i] -> outputs[i] = residuals[i] + product [B, T_i, out_i],
 * stored like the joint sequence unless `dtype` says otherwise; null where a weight is null or owns no rows. Rows of the joint
 * gradient whose output has no gradient are zero. f32, f16 or bf16; sums and gradients are f32. Throws when shapes or layout do not
 * fit.
 */
export function blockSplitLinear(
  joint: Tensor,
  weights: readonly (Tensor | Absent)[],
  layout: BlockLayout,
  options: { residuals?: readonly (Tensor | Absent)[]; dtype?: FloatType } = {},
): (Tensor | null)[] {
  const op = 'blockSplitLinear';
  const { shares, length } = sharesOf(op, layout, weights.length);
  const leftOut = layout.findIndex(({ joined }) => joined === false);
  if (leftOut >= 0)
    throw new Error(`${op}: layout[${leftOut}] is not joined; every row of an owner comes from the joint`);
  const storage = expectStorage(op, 'joint', joint);
  const { residuals = [], dtype = storage } = options;
  expectShape(op, 'joint', joint, [null, length, null]);
  const width = joint.shape[2];
  const owners = [...shares.keys()].filter((i) => shares[i].length > 0 && weights[i]);
  const present = owners.map((i) => required(op, `weights[${i}]`, weights[i]));
  const branches = present.map((weight, k): Branch => {
    const i = owners[k];
    expectShape(op, `weights[${i}]`, weight, [null, width]);
    const rows = weight.shape[0];
    const residual = residuals[i];
    if (residual) {
      expectDtype(op, `residuals[${i}]`, residual, dtype);
      expectShape(op, `residuals[${i}]`, residual, [joint.shape[0], shares[i].length, rows]);
    }
    const padded = { weight: inGroups(weight)[0], residual: residual ? inGroups(residual)[0] : null };
    return { ...padded, share: shares[i], dtype: groupStorage(rows, dtype) };
  });
  sharedDevice(op, joint, ...branches.flatMap(({ weight, residual }) => (residual ? [weight, residual] : [weight])));
  const outputs = separated(inGroups(joint)[0], branches);
  return shares.map((_, i) => {
    const k = owners.indexOf(i);
    return k < 0 ? null : cast(pad(outputs[k], present[k].shape[0]), dtype);
  });
}

interface Branch {
  weight: Tensor;
  residual: Tensor | null;
  share: Share;
  dtype: FloatType;
}

/** Last axes are whole numbers of groups. */
function separated(joint: Tensor, branches: readonly Branch[]): Tensor[] {
  const { device, shape } = joint;
  const [batch, length, width] = shape;
  const outputs = branches.map(({ weight, residual, share, dtype }) => {
    const rows = weight.shape[0];
    const output = emptyTensor(device, [batch, share.length, roundUp(rows, 4)], dtype, 'blockSplitLinear');
    for (const segment of share.segments)
      multiply(
        {
          a: jointRows(joint, segment),
          b: { tensor: weight, rows, transposed: true },
          output: ownRows(output, segment, share),
          depth: width,
          epilogue: endingWith({ residual }),
        },
        'blockSplitLinear',
      );
    return output;
  });
  if (outputs.length === 0) return outputs;

  const operands = [joint, ...branches.flatMap(({ weight, residual }) => (residual ? [weight, residual] : [weight]))];
  record('blockSplitLinear', operands, outputs, (gradients, wants) => {
    const op = 'blockSplitLinear backward';
    const dJoint = wants[0] ? gradientSum(joint, op) : null;
    const covered = branches.reduce((rows, { share }, i) => rows + (gradients[i] ? share.length : 0), 0);
    if (dJoint && !dJoint.accumulate && covered < length) device.clear(dJoint.gradient);
    const ofBranches = branches.flatMap(({ weight, residual, share }, i) => {
      const dOutput = gradients[i];
      const dResidual = residual ? [dOutput] : [];
      if (!dOutput) return [null, ...dResidual];
      const b = { tensor: weight, rows: weight.shape[0] };
      for (const segment of dJoint ? share.segments : []) {
        const { gradient, accumulate } = dJoint!;
        const a = ownRows(dOutput, segment, share);
        multiply({ a, b, output: jointRows(gradient, segment), depth: b.rows, accumulate }, op);
      }
      if (!wants[operands.indexOf(weight)]) return [null, ...dResidual];
      const dWeight = gradientSum(weight, op);
      share.segments.forEach((segment, s) => {
        const a = { ...ownRows(dOutput, segment, share), transposed: true };
        const output = { tensor: dWeight.gradient, rows: b.rows };
        const accumulate = dWeight.accumulate || s > 0;
        multiply({ a, b: jointRows(joint, segment), output, depth: a.rows, accumulate }, op);
      });
      return [dWeight.gradient, ...dResidual];
    });
    return [dJoint?.gradient ?? null, ...ofBranches];
  });
  return outputs;
}

/** The rows of a segment in the joint sequence [B, T, width]. */
function jointRows(tensor: Tensor, { length, offset }: Segment): Matrix {
  return { tensor, rows: tensor.shape[0] * length, map: { length, stride: tensor.shape[1], offset } };
}

/** The rows of a segment in its owner's sequence [B, T_i, width]. */
function ownRows(tensor: Tensor, { length, ownOffset }: Segment, share: Share): Matrix {
  return { tensor, rows: tensor.shape[0] * length, map: { length, stride: share.length, offset: ownOffset } };
}

function sharesOf(op: string, layout: BlockLayout, owners: number): { shares: Share[]; length: number } {
  const shares = Array.from({ length: owners }, () => ({ segments: [] as Segment[], length: 0 }));
  let offset = 0;
  layout.forEach(({ input, length, joined = true }, i) => {
    if (!shares[input] || !Number.isInteger(length) || length < 0)
      throw new Error(
        `${op}: layout[${i}] is { input: ${input}, length: ${length} }; input is an index below ${owners}, length an integer from 0`,
      );
    if (length === 0) return;
    const share = shares[input];
    const last = share.segments.at(-1);
    if (joined) {
      if (last && last.offset + last.length === offset && last.ownOffset + last.length === share.length)
        share.segments[share.segments.length - 1] = { ...last, length: last.length + length };
      else share.segments.push({ length, offset, ownOffset: share.length });
      offset += length;
    }
    share.length += length;
  });
  return { shares, length: offset };
}

function required(op: string, argument: string, tensor: Tensor | Absent): Tensor {
  if (!tensor) throw new Error(`${op}: ${argument} is missing, and the layout has rows of it`);
  expectStorage(op, argument, tensor);
  return tensor;
}
