/** Linear maps between a joint sequence and the sequences of its owners: the mixture of experts without concatenation. */
import { emptyTensor, gradientSum, record, roundUp, type Tensor } from '../engine/index.ts';
import { cast, type FloatType } from './cast.ts';
import { epilogueOf } from './epilogue.ts';
import { expectFactor, expectLike, expectShape, recordOne, sharedDevice } from './operand.ts';
import { encodeProduct, expectStorage, type Matrix, weightGradient, withWholeGroups } from './product.ts';
import { sumOfRows } from './reduce.ts';
import { stacked, stackedGradients } from './stacked.ts';
import { concatenateTokens, sliceTokens } from './tokens.ts';

/**
 * The blocks of a joint sequence in order; `input` is the index of the owner of its rows. blockLinear leaves out those
 * that are not `joined`: their owner has rows for them, the joint sequence has none.
 */
export type BlockLayout = readonly { readonly input: number; readonly length: number; readonly joined?: boolean }[];

type Absent = null | undefined;

/** Adjacent blocks of one owner: so many rows of each sample, from `offset` of the joint sequence and `ownOffset` of the owner's. */
type Segment = Readonly<Record<'length' | 'offset' | 'ownOffset', number>>;

/** The rows of one owner. */
interface Share {
  readonly segments: readonly Segment[];
  readonly length: number;
}

/**
 * Every input through its own weight, into the rows of one joint sequence that are its own.
 *
 * inputs[i] [B, T_i, in_i], its blocks in the order of the layout; weights[i] [out, in_i], or matrices that make it one below the
 * other; biases[i] [out] in its storage or f32 -> [B, T, out] with T the sum of all lengths, stored like the first input unless `dtype` says
 * otherwise. f32, f16 or bf16; sums and gradients are f32. An input without blocks in the layout is null. Throws when shapes or layout
 * do not fit.
 */
export function blockLinear(
  inputs: readonly (Tensor | Absent)[],
  weights: readonly (Tensor | readonly Tensor[] | Absent)[],
  layout: BlockLayout,
  biases: readonly (Tensor | Absent)[] = [],
  options: { dtype?: FloatType } = {},
): Tensor {
  const op = 'blockLinear';
  const { shares, length } = sharesOf(op, layout, Math.max(inputs.length, weights.length));
  const owners = [...shares.keys()].filter((i) => shares[i].segments.length > 0);
  const surplus = inputs.findIndex((input, i) => input && shares[i].length === 0);
  if (surplus >= 0) throw new Error(`${op}: inputs[${surplus}] has no rows in the layout; pass null`);
  const inputOf = (i: number) => required(op, `inputs[${i}]`, inputs[i]);
  const matricesOf = (i: number) => {
    const given = weights[i];
    if (!Array.isArray(given)) return [required(op, `weights[${i}]`, given as Tensor | Absent)];
    return given.map((matrix, part) => required(op, `weights[${i}][${part}]`, matrix));
  };
  if (owners.length === 0) throw new Error(`${op}: the layout has no rows`);
  const [first] = owners;
  const rowsOf = matricesOf(first).map(({ shape }) => shape[0]);
  const outputs = rowsOf.reduce((sum, rows) => sum + rows, 0);
  const terms = owners.map((i) => {
    const x = inputOf(i);
    const matrices = matricesOf(i);
    const bias = biases[i] ?? null;
    expectShape(op, `inputs[${i}]`, x, [inputOf(first).shape[0], shares[i].length, null]);
    if (matrices.length !== rowsOf.length)
      throw new Error(
        `${op}: weights[${i}] has ${matrices.length} matrices; expected ${rowsOf.length}, as the first has`,
      );
    matrices.forEach((matrix, part) => {
      const name = matrices.length === 1 ? `weights[${i}]` : `weights[${i}][${part}]`;
      expectLike(op, name, matrix, matrices[0].dtype, [rowsOf[part], x.shape[2]]);
    });
    expectFactor(op, `biases[${i}]`, bias, matrices[0], outputs);
    return { x, matrices, bias, share: shares[i] };
  });
  sharedDevice(op, ...terms.flatMap(({ x, matrices, bias }) => [x, ...matrices, ...(bias ? [bias] : [])]));
  const dtype = options.dtype ?? expectStorage(op, 'inputs', terms[0].x);
  const lists = terms.flatMap(({ x, matrices, bias }) => [[x], matrices, [bias]]);
  const [output] = withWholeGroups(lists, [{ width: outputs, dtype }], (padded, [dtype]) => {
    const output = emptyTensor(terms[0].x.device, [terms[0].x.shape[0], length, roundUp(outputs, 4)], dtype, op);
    const whole = terms.map(({ share }, i) => {
      const [[x], matrices, [bias]] = padded.slice(3 * i) as [[Tensor], Tensor[], [Tensor | null]];
      return { x, weight: stacked(matrices), bias: bias && cast(bias, 'f32'), share };
    });
    for (const { x, weight, bias, share } of whole)
      for (const segment of share.segments) {
        const rows = { a: ownRows(x, segment, share), output: jointRows(output, segment), depth: x.shape[2] };
        const b = { tensor: weight.whole, rows: outputs, transposed: true };
        encodeProduct({ ...rows, b, epilogue: epilogueOf({ bias }) }, op);
      }

    const operands = whole.flatMap(({ x, weight, bias }) => [x, ...weight.parts, ...(bias ? [bias] : [])]);
    recordOne(op, operands, output, (dOutput, wants) => {
      const op = 'blockLinear backward';
      const wanted = new Map(operands.map((operand, i) => [operand, wants[i]]));
      return whole.flatMap(({ x, weight, bias, share }) => {
        const dx = wanted.get(x) ? gradientSum(x, op) : null;
        const joined = share.segments.reduce((rows, { length }) => rows + length, 0);
        if (dx && !dx.accumulate && joined < share.length) x.device.clear(dx.gradient);
        for (const segment of dx ? share.segments : []) {
          const rows = { a: jointRows(dOutput, segment), output: ownRows(dx!.gradient, segment, share) };
          const b = { tensor: weight.whole, rows: outputs };
          encodeProduct({ ...rows, b, depth: outputs, accumulate: dx!.accumulate }, op);
        }
        const pairs = share.segments.map((own) => [jointRows(dOutput, own), ownRows(x, own, share)] as const);
        const wantsParts = weight.parts.map((part) => wanted.get(part)!);
        const dParts = stackedGradients(weight, wantsParts, op, (sum) => weightGradient(pairs, weight.whole, op, sum));
        if (!bias) return [dx?.gradient ?? null, ...dParts];
        return [dx?.gradient ?? null, ...dParts, wanted.get(bias) ? biasGradient(dOutput, bias, share) : null];
      });
    });
    return [output];
  });
  return output;
}

function biasGradient(dOutput: Tensor, bias: Tensor, { segments }: Share): Tensor {
  const op = 'blockLinear backward';
  const own = concatenateTokens(segments.map((segment) => sliceTokens(dOutput, segment.offset, segment.length)));
  return sumOfRows(op, own, own.shape[0] * own.shape[1], gradientSum(bias, op));
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
  const branches = present.map((weight, k) => {
    const i = owners[k];
    expectShape(op, `weights[${i}]`, weight, [null, width]);
    const [rows] = weight.shape;
    const residual = residuals[i] ?? null;
    expectLike(op, `residuals[${i}]`, residual, dtype, [joint.shape[0], shares[i].length, rows]);
    return { weight, residual, rows, share: shares[i] };
  });
  sharedDevice(op, joint, ...branches.flatMap(({ weight, residual }) => (residual ? [weight, residual] : [weight])));
  const lists = [[joint], ...branches.flatMap(({ weight, residual }) => [[weight], [residual]])];
  const results = branches.map(({ rows }) => ({ width: rows, dtype }));
  const outputs = withWholeGroups(lists, results, ([[whole], ...padded], dtypes) => {
    const joint = whole as Tensor;
    const parts = branches.map(({ rows, share }, i) => {
      const [[weight], [residual]] = padded.slice(2 * i) as [[Tensor], [Tensor | null]];
      return { weight, residual, share, ofWeight: { tensor: weight, rows } };
    });
    const outputs = parts.map(({ residual, share, ofWeight }, i) => {
      const shape = [joint.shape[0], share.length, roundUp(ofWeight.rows, 4)];
      const output = emptyTensor(joint.device, shape, dtypes[i], op);
      for (const segment of share.segments) {
        const rows = { a: jointRows(joint, segment), output: ownRows(output, segment, share), depth: joint.shape[2] };
        encodeProduct({ ...rows, b: { ...ofWeight, transposed: true }, epilogue: epilogueOf({ residual }) }, op);
      }
      return output;
    });
    if (outputs.length === 0) return outputs;

    const operands = [joint, ...parts.flatMap(({ weight, residual }) => (residual ? [weight, residual] : [weight]))];
    record(op, operands, outputs, (gradients, wants) => {
      const op = 'blockSplitLinear backward';
      const dJoint = wants[0] ? gradientSum(joint, op) : null;
      const covered = parts.reduce((rows, { share }, i) => rows + (gradients[i] ? share.length : 0), 0);
      if (dJoint && !dJoint.accumulate && covered < length) joint.device.clear(dJoint.gradient);
      const ofParts = parts.flatMap(({ weight, residual, share, ofWeight }, i) => {
        const dOutput = gradients[i];
        const dResidual = residual ? [dOutput] : [];
        if (!dOutput) return [null, ...dResidual];
        for (const segment of dJoint ? share.segments : []) {
          const rows = { a: ownRows(dOutput, segment, share), output: jointRows(dJoint!.gradient, segment) };
          encodeProduct({ ...rows, b: ofWeight, depth: ofWeight.rows, accumulate: dJoint!.accumulate }, op);
        }
        const pairs = share.segments.map((own) => [ownRows(dOutput, own, share), jointRows(joint, own)] as const);
        return [wants[operands.indexOf(weight)] ? weightGradient(pairs, weight, op) : null, ...dResidual];
      });
      return [dJoint?.gradient ?? null, ...ofParts];
    });
    return outputs;
  });
  return shares.map((_, i) => outputs[owners.indexOf(i)] ?? null);
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
