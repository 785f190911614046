/** The rows of the benchmark as tasks: attention by a variant of its kernels, or unfused from single operations. */
import { nearest } from '../../engine/files/nearest.ts';
import {
  type Device,
  elementCount,
  InputError,
  quote,
  roundUp,
  type Shape,
  type Tensor,
  tensor,
} from '../../engine/index.ts';
import {
  type AttentionEntry,
  type AttentionExpression,
  type AttentionOptions,
  add,
  attention,
  attentionCost,
  attentionEntries,
  attentionExpression,
  attentionVariant,
  attentionVariants,
  maskMatrix,
  matmul,
  planOf,
  reshape,
  scale,
  softmax,
  useAttentionVariants,
  type VariantChoice,
} from '../../kernels/index.ts';
import { type Direction, taskOf, waves } from '../measure/operation-task.ts';
import { remembered } from '../measure/table.ts';
import { type Timer, Work } from '../measure/work.ts';
import { type Case, DENSE } from './cases.ts';
import { type AttentionShape, tokensOf } from './shapes.ts';

export const storages = ['f32', 'f16', 'bf16'] as const;
export type Storage = (typeof storages)[number];
export const DEFAULT = 'default';
/** softmax(scale Q K^T + mask) V as four operations, in the layout [B, heads, T, D] that suits matmul. */
export const UNFUSED = 'unfused';

/** Bytes of a matrix of scores: unfused operations keep about eight of them. */
const LARGEST_SCORES = 256 * 1024 * 1024;

/** The fields that distinguish rows; `shape` is its name. */
export interface RowKey {
  readonly shape: string;
  readonly mask: string;
  readonly variant: string;
  readonly direction: Direction;
  readonly storage: Storage;
}

export interface Row {
  readonly key: RowKey;
  readonly shape: AttentionShape;
  readonly work: Work;
  /** FLOPs of live work: 2 products for each live pair of tokens forward, up to 5 backward, whatever the variant computes. */
  readonly flops: number;
  /** Bytes read and written if each kernel touches each operand once; null for unfused rows, whose operations say it. */
  readonly bytesMoved: number | null;
  /** Bytes of the operands that persist: q, k, v, and, if there is a backward, the gradient of the output. */
  readonly operandBytes: number;
  /** Milliseconds that the host took for the plan, which a batch makes once and no row's time contains. */
  readonly planMilliseconds: number;
}

/** The kernels that a row of a direction times. */
export const entriesOf = (direction: Direction): AttentionEntry[] =>
  attentionEntries.filter((entry) => direction === 'both' || (entry === 'forward') === (direction === 'forward'));

/** The forward pass of a row on operands that it shares with others; `choose` selects its variant. */
interface Operation {
  readonly operands: readonly Tensor[];
  readonly gradient: Tensor;
  forward(): Tensor;
  choose?(): void;
}

export function keyText({ shape, mask, variant, direction, storage }: RowKey): string {
  return [shape, mask, variant, direction, storage].join(' | ');
}

/** Makes the rows of a device. Rows of one shape and storage share operands. */
export class Rows {
  private readonly tensors = new Map<string, Tensor>();
  private readonly expressions = new Map<Case, Promise<AttentionExpression>>();

  constructor(
    private readonly device: Device,
    /** The choices for rows that name no variant. */
    private readonly tuned: readonly VariantChoice[],
    private readonly timer: Timer,
  ) {}

  /** A row, or the reason why it cannot be measured. */
  async make(key: RowKey, shape: AttentionShape, of: Case): Promise<Row | string> {
    const layoutTokens = tokensOf(shape);
    const unfused = key.variant === UNFUSED;
    const why = unfused && whyNotUnfused(key, of);
    if (why) return why;
    const { batch, heads, kvHeads, headDimension } = shape;
    const largest = 4 * batch * heads * layoutTokens * (unfused ? layoutTokens : headDimension);
    const { maxStorageBufferBindingSize, maxBufferSize } = this.device.limits;
    const limit = Math.min(maxStorageBufferBindingSize, maxBufferSize);
    if (largest > limit) return `a tensor of ${largest} bytes is above this device's limit of ${limit}`;
    if (unfused && largest > LARGEST_SCORES) return `each of its matrices of scores would take ${largest} bytes`;

    const expression = of.source && (await this.expression(of));
    const { table, queries, lossBlocks } = of;
    const masked = { table, queries, lossBlocks, expression };
    const sized = { ...masked, batch, heads, kvHeads, headDimension, dtype: key.storage };
    const begin = performance.now();
    const plan = planOf(sized);
    const planMilliseconds = performance.now() - begin;
    const cost = attentionCost(sized, plan);
    const live = liveProducts(of, expression);
    const products = 2 * headDimension * heads * batch;
    const pick = (ofForward: number, ofBackward: number) =>
      (key.direction === 'backward' ? 0 : ofForward) + (key.direction === 'forward' ? 0 : ofBackward);
    const { operands, gradient, forward, choose } = unfused
      ? this.unfused(shape, of, expression)
      : this.fused(key, shape, masked);
    const held = key.direction === 'forward' ? operands : [...operands, gradient];
    const task = taskOf(this.device, key.direction, forward, gradient, choose);
    return {
      ...{ key, shape },
      operandBytes: held.reduce((sum, { byteLength }) => sum + byteLength, 0),
      work: new Work(this.device, keyText(key), task, this.timer),
      flops: products * pick(live.forward, live.backward),
      bytesMoved: unfused ? null : pick(cost.forward.bytes, cost.backward.bytes),
      planMilliseconds: unfused ? 0 : planMilliseconds,
    };
  }

  private fused(key: RowKey, shape: AttentionShape, masked: AttentionOptions): Operation {
    const { batch, heads, kvHeads, headDimension: size } = shape;
    const blocks = masked.table.layout.blocks.filter(({ name }) => masked.queries?.includes(name) ?? true);
    const rows = blocks.reduce((sum, { length }) => sum + length, 0);
    const [query, key_, value, gradient] = [
      this.operand('query', [batch, rows, heads, size], key.storage),
      this.operand('key', [batch, tokensOf(shape), kvHeads, size], key.storage),
      this.operand('value', [batch, tokensOf(shape), kvHeads, size], key.storage),
      this.operand('gradient', [batch, rows, heads, size], 'f32'),
    ];
    // Kernels that only prepare what a row times stay the default, which is compiled anyway.
    const chosen = { dtype: key.storage, headDimension: size, variant: key.variant };
    const choices =
      key.variant === DEFAULT ? this.tuned : entriesOf(key.direction).map((entry) => ({ ...chosen, entry }));
    const forward = () => attention(query, key_, value, masked);
    const choose = () => useAttentionVariants(this.device, choices);
    return { operands: [query, key_, value], gradient, forward, choose };
  }

  private unfused(shape: AttentionShape, of: Case, expression?: AttentionExpression): Operation {
    const { batch, heads, kvHeads, headDimension: size } = shape;
    // Whole groups of four, so that matmul need not pad; the mask hides the added keys.
    const tokens = roundUp(tokensOf(shape), 4);
    const grouped = [batch * kvHeads, (heads / kvHeads) * tokens, size];
    const [query, key, value, gradient] = [
      this.operand('query', grouped, 'f32'),
      this.operand('key', [batch * kvHeads, tokens, size], 'f32'),
      this.operand('value', [batch * kvHeads, tokens, size], 'f32'),
      this.operand('gradient', grouped, 'f32'),
    ];
    const mask = this.mask(of, tokens, expression);
    const forward = () => {
      const scores = matmul(scale(query, 1 / Math.sqrt(size)), key, { transposeB: true });
      const probabilities = softmax(add(reshape(scores, [batch * heads, tokens, tokens]), mask));
      return matmul(reshape(probabilities, [...grouped.slice(0, 2), tokens]), value);
    };
    return { operands: [query, key, value, mask], gradient, forward };
  }

  private operand(name: string, shape: Shape, dtype: Storage): Tensor {
    return remembered(this.tensors, `${name} ${shape} ${dtype}`, () => {
      const made = tensor(this.device, waves(elementCount(shape), name.length), shape, { dtype });
      made.wantsGradient = name !== 'gradient'; // it is no parameter, so its gradient is computed but not kept
      return made;
    });
  }

  /** The mask as numbers [size, size]: 0 for pairs that the table allows, -1e30 for the others. */
  private mask({ name, table }: Case, size: number, expression?: AttentionExpression): Tensor {
    const { blocks } = table.layout;
    return remembered(this.tensors, `mask ${name} ${blocks.map((block) => block.length)}`, () => {
      // A mask that is an expression stands beside a table in which all see all.
      if (expression) return maskMatrix(this.device, expression, size);
      const numbers = new Float32Array(size * size).fill(-1e30);
      blocks.forEach((from, i) => {
        blocks.forEach((to, j) => {
          const { mask } = table.cells[i][j];
          for (let q = from.start; mask !== 'none' && q < from.start + from.length; q++) {
            const end = mask === 'causal' ? q + 1 : to.start + to.length;
            numbers.fill(0, q * size + to.start, q * size + end);
          }
        });
      });
      return tensor(this.device, numbers, [size, size]);
    });
  }

  private expression(of: Case): Promise<AttentionExpression> {
    return remembered(this.expressions, of, () =>
      attentionExpression(this.device, of.table.layout, of.source!).catch((error: Error) => {
        throw new InputError(`${of.name === DENSE ? '--score' : `--mask ${quote(of.name)}`}: ${error.message}`);
      }),
    );
  }
}

/** The variants that the names in --variant stand for, at one storage and head dimension. */
export function variantsOf(device: Device, names: readonly string[], dtype: Storage, headDimension: number): string[] {
  const all = [
    ...new Set(attentionEntries.flatMap((entry) => attentionVariants(device, { entry, dtype, headDimension }))),
  ];
  return names.flatMap((name) => {
    if (name === 'all') return dtype === 'f32' ? [...all, UNFUSED] : all;
    if (name === DEFAULT || name === UNFUSED || all.includes(name)) return [name];
    throw new InputError(
      `--variant ${name}: no kernel of that name for ${dtype}, head dimension ${headDimension}, on this adapter; ${nearest(name, [DEFAULT, UNFUSED, 'all', ...all])}`,
    );
  });
}

/** The form and the kernels that `default` stands for: those of the tuning file, or the shipped ones. */
export function defaultKernels(
  device: Device,
  tuned: readonly VariantChoice[],
  dtype: Storage,
  headDimension: number,
): string {
  const names = attentionEntries.map(
    (entry) => `${entry} ${attentionVariant(device, { entry, dtype, headDimension }, tuned)}`,
  );
  return `default, ${dtype}, head dimension ${headDimension}: fused, ${names.join(', ')}`;
}

function whyNotUnfused({ storage, direction }: RowKey, { source, table, queries, lossBlocks }: Case): string | null {
  if (storage !== 'f32') return 'matmul and softmax are f32';
  if (source?.score !== undefined) return 'it adds its mask as numbers and has no place for a score expression';
  if (queries) return 'it has a row for every token';
  const stops = lossBlocks || table.cells.flat().some((edge) => edge.keyGradient < 1 || edge.valueGradient < 1);
  return stops && direction !== 'forward' ? 'it cannot cut or scale the gradient of an edge' : null;
}

/**
 * The products of live pairs of tokens in one head of one sample: forward Q K and P V of every pair that the mask allows; backward
 * S, dP and dQ of those with a loss, and dK and dV of those that no stop cuts off.
 */
function liveProducts({ table, queries, lossBlocks }: Case, expression?: AttentionExpression) {
  const { blocks } = table.layout;
  const own = { forward: 0, backward: 0 };
  for (const [i, query] of blocks.entries()) {
    if (queries && !queries.includes(query.name)) continue;
    for (const [j, key] of blocks.entries()) {
      const { mask, keyGradient, valueGradient } = table.cells[i][j];
      const all = { none: 0, full: query.length * key.length, causal: (query.length * (query.length + 1)) / 2 }[mask];
      // A mask that is an expression stands beside a table of one block in which all see all.
      const pairs = expression?.allowedPairs?.reduce((sum, count) => sum + count, 0) ?? all;
      own.forward += 2 * pairs;
      if (lossBlocks?.includes(query.name) ?? true)
        own.backward += (3 + Number(keyGradient > 0) + Number(valueGradient > 0)) * pairs;
    }
  }
  return own;
}
