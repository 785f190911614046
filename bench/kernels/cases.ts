/** The ops of a step at the sizes of a model, which `insula bench kernels` measures and the test of cost models counts. */
import {
  type DataType,
  type Device,
  elementCount,
  ParameterSet,
  type Shape,
  type Tensor,
  tensor,
} from '../../engine/index.ts';
import * as kernels from '../../kernels/index.ts';
import { waves } from '../measure/operation-task.ts';
import type { ModelShape } from './shapes.ts';

export interface KernelCase {
  /** The op and its place in a model. */
  readonly name: string;
  /** Makes the operands, outside of any step. */
  make(device: Device): Operands;
}

/** Operands, and the op that runs on them inside a step. */
export interface Operands extends Disposable {
  /** Runs the op; returns the output that `gradient` belongs to, or null if there is none. */
  forward(): Tensor | null;
  /** Gradient of the output; null if the op has no backward. */
  readonly gradient: Tensor | null;
  readonly bytes: number;
}

/** An operand that waves fill and that wants a gradient, by its shape; or the function that makes one that does not. */
type Operand = Shape | ((device: Device) => Tensor);
type Run = (operands: readonly Tensor[]) => Tensor | null;

/** Every case of a model. Float operands hold waves of about unit variance, divided by the square root of their last axis. */
export function kernelCases(model: ModelShape): KernelCase[] {
  const { batch: B, prefix, fast, action, width: W, hidden, expertWidth: E, expertHidden, heads, kvHeads } = model;
  const { headDimension: D, vocabulary: V, image, patch } = model;
  const backbone = prefix + fast;
  const all = backbone + action;
  const owners = [
    { input: 0, length: backbone },
    { input: 1, length: action },
  ];
  const layout = kernels.sequence({ prefix, fast, action });
  const { full, causal, insulated } = kernels;
  const table = kernels.attentionTable(layout, {
    prefix: { prefix: full },
    fast: { prefix: full, fast: causal },
    action: { prefix: insulated, action: full },
  });
  const ids = (count: number, below: number) => Uint32Array.from({ length: count }, (_, i) => (i * 7919 + 13) % below);
  const u32 = (numbers: Uint32Array, shape: Shape) => (device: Device) =>
    tensor(device, numbers, shape, { dtype: 'u32' });
  const constant = (shape: Shape) => (device: Device) => tensor(device, waves(elementCount(shape)), shape);
  const patches = (image / patch) ** 2;

  const of = (name: string, shapes: Operand[], run: Run, backward = true): KernelCase => ({
    name,
    make: (device) => operandsOf(device, shapes, run, backward),
  });
  const { gelu, swish, rmsNorm, layerNorm, adaptiveRmsNorm, gatedResidual, gatedMlp, linear } = kernels;
  const attention: Run = ([query, key, value]) => kernels.attention(query, key, value, { table });
  const mlp: Run = ([x, gate, up, down]) => gatedMlp(x, gate, up, down);
  const inner = heads * D;
  // Tokens of the backbone and of the expert.
  const x = [B, backbone, W];
  const y = [B, action, E];
  const token = [B, fast, W];
  const keys = [B, all, kvHeads, D];
  const modulation = [B, 3 * E];
  const up = [hidden, W];
  const upExpert = [expertHidden, E];
  const targets = [u32(ids(B * fast, V), [B, fast]), u32(new Uint32Array(B * fast).fill(1), [B, fast])];
  return [
    of(`linear, ${backbone} x ${W} to ${W}`, [x, [W, W]], ([x, w]) => linear(x, w)),
    of(`linear, ${B} x ${E} to ${3 * E}, bias`, [[B, E], [3 * E, E], [3 * E]], ([x, w, bias]) => linear(x, w, bias)),
    of(`blockLinear, joint queries of ${all} x ${inner}`, [x, y, [inner, W], [inner, E]], ([x, y, a, b]) =>
      kernels.blockLinear([x, y], [a, b], owners),
    ),
    of(
      `blockSplitLinear, joint output of ${all} x ${inner}`,
      [
        [B, all, inner],
        [W, inner],
        [E, inner],
      ],
      ([x, a, b]) => kernels.blockSplitLinear(x, [a, b], owners)[0],
    ),
    of(`gatedMlp, backbone, ${backbone} x ${W}, hidden ${hidden}`, [x, up, up, [W, hidden]], mlp),
    of(`gatedMlp, expert, ${action} x ${E}, hidden ${expertHidden}`, [y, upExpert, upExpert, [E, expertHidden]], mlp),
    of(
      `attention, knowledge insulation, ${prefix}+${fast}+${action}, ${heads}/${kvHeads} heads of ${D}`,
      [[B, all, heads, D], keys, keys],
      attention,
    ),
    of(
      `matmul, ${all} x ${all} x ${D}, ${heads} matrices`,
      [
        [heads, all, all],
        [heads, all, D],
      ],
      ([a, b]) => kernels.matmul(a, b),
    ),
    of(`softmax, ${heads * all} x ${all}`, [[heads * all, all]], ([x]) => kernels.softmax(x)),
    of(`rmsNorm, ${backbone} x ${W}`, [x, [W]], ([x, w]) => rmsNorm(x, w)),
    of(`adaptiveRmsNorm, ${action} x ${E}`, [y, modulation], ([x, m]) => adaptiveRmsNorm(x, m)),
    of(`gatedResidual, ${action} x ${E}`, [y, y, modulation], ([x, y, m]) => gatedResidual(x, y, m)),
    of(`layerNorm, ${backbone} x ${W}`, [x, [W], [W]], ([x, w, b]) => layerNorm(x, w, b)),
    of(`gelu, ${backbone} x ${hidden}`, [[B, backbone, hidden]], ([x]) => gelu(x)),
    of(`swish, ${action} x ${E}`, [y], ([x]) => swish(x)),
    of(`add, ${backbone} x ${W}`, [x, x], ([a, b]) => kernels.add(a, b)),
    of(`multiply, ${backbone} x ${W} by ${W}`, [x, [W]], ([a, b]) => kernels.multiply(a, b)),
    of(`scale, ${backbone} x ${W}`, [x], ([x]) => kernels.scale(x, 0.5)),
    of(`cast to bf16, ${backbone} x ${W}`, [x], ([x]) => kernels.cast(x, 'bf16')),
    of(`rotary, ${all} x ${heads} x ${D}`, [[B, all, heads, D], constant([B, all, D / 2, 2])], ([x, angles]) =>
      kernels.rotary(x, angles),
    ),
    of(`embedding, ${backbone} of ${V} x ${W}`, [u32(ids(B * backbone, V), [B, backbone]), [V, W]], ([tokens, rows]) =>
      kernels.embedding(tokens, rows),
    ),
    of(
      `patchEmbedding, ${image} x ${image}, patch ${patch}`,
      [[B, image, image, 3], [W, 3, patch, patch], [W], [patches, W]],
      ([images, w, bias, position]) => kernels.patchEmbedding(images, w, bias, position),
    ),
    of(`concatenateTokens, ${prefix} + ${fast} x ${W}`, [[B, prefix, W], token], (parts) =>
      kernels.concatenateTokens(parts),
    ),
    of(`sliceTokens, ${fast} of ${backbone} x ${W}`, [x], ([x]) => kernels.sliceTokens(x, prefix, fast)),
    of(`linearCrossEntropy, ${fast} x ${W}, vocabulary ${V}`, [token, [V, W], ...targets], ([x, rows, ids, mask]) =>
      kernels.linearCrossEntropy(x, rows, ids, mask),
    ),
    of(`meanSquaredError, ${action} x ${E}`, [y, y], ([a, b]) => kernels.meanSquaredError(a, b)),
    of(`eulerStep, ${action} x ${E}`, [y, y], ([x, v]) => kernels.eulerStep(x, v, -0.1)),
    of(
      `flowInterpolate, ${action} x ${E}`,
      [constant(y), constant(y), constant([B])],
      ([x, noise, time]) => kernels.flowInterpolate(x, noise, time).noisy,
      false,
    ),
    of(
      `randomUniform, ${backbone} x ${W}`,
      [u32(kernels.randomAddress({ seed: 1, step: 2, stream: 3 }), [4])],
      ([address]) => kernels.randomUniform([backbone * W], address),
      false,
    ),
    of(`sum, ${backbone} x ${W}`, [x], ([x]) => kernels.sum(x)),
    adamwCase(model, 'f32'),
    adamwCase(model, '8bit'),
  ];
}

function operandsOf(device: Device, shapes: readonly Operand[], run: Run, backward: boolean): Operands {
  const made = shapes.map((shape, i) => (typeof shape === 'function' ? shape(device) : operand(device, shape, i)));
  // The shape of the gradient is known after one run.
  const gradient = backward ? device.step(() => [...run(made)!.shape]) : null;
  const dOutput = gradient && operand(device, gradient, shapes.length);
  const held = dOutput ? [...made, dOutput] : made;
  return {
    forward: () => run(made),
    gradient: dOutput,
    bytes: held.reduce((sum, { byteLength }) => sum + byteLength, 0),
    [Symbol.dispose]: () => {
      for (const each of held) each.dispose();
    },
  };
}

function operand(device: Device, shape: Shape, seed: number, dtype: DataType = 'f32'): Tensor {
  const made = tensor(device, waves(elementCount(shape), seed, shape.at(-1)), shape, { dtype });
  made.wantsGradient = true; // it is no parameter, so its gradient is computed but not kept
  return made;
}

/** AdamW on all parameters of one gated MLP, with clipping by group. */
function adamwCase({ width, hidden }: ModelShape, moments: 'f32' | '8bit'): KernelCase {
  const size = 3 * width * hidden;
  return {
    name: `AdamW, moments in ${moments}, ${size} parameters`,
    make(device) {
      const shape = [hidden, width];
      const names = ['gate', 'up', 'down'];
      const set = new ParameterSet(
        device,
        names.map((name) => ({ name, shape, group: 'backbone' })),
      );
      const optimizer = new kernels.AdamW(set, { maximumNorm: 1, moments });
      const numbers = optimizer.nextSchedule(1e-4);
      const schedule = tensor(device, numbers, [numbers.length]);
      return {
        forward: () => {
          optimizer.step(schedule);
          return null;
        },
        gradient: null,
        bytes: 16 * size,
        [Symbol.dispose]: () => {
          schedule.dispose();
          optimizer[Symbol.dispose]();
          set[Symbol.dispose]();
        },
      };
    },
  };
}
