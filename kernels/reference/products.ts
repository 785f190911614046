/** Matrix products, and the layers that are one. */
import { activations, add } from './elementwise.ts';
import { make, type Numbers } from './numbers.ts';

/** Output [batch, m, n], depth k. A transposed operand is stored as [k, m] or [n, k]; a shared b is one matrix for all samples. */
export interface ProductSizes {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batch?: number;
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  readonly shared?: boolean;
}

export function matmul(
  a: Numbers,
  b: Numbers,
  { m, n, k, batch = 1, transposeA, transposeB, shared = batch === 1 }: ProductSizes,
  bias?: Numbers | null,
): Float64Array {
  return make(batch * m * n, (at) => {
    const [z, i, j] = [Math.floor(at / n / m), Math.floor(at / n) % m, at % n];
    const [ofA, ofB] = [z * m * k, shared ? 0 : z * k * n];
    let total = bias ? bias[j] : 0;
    for (let l = 0; l < k; l++)
      total += a[ofA + (transposeA ? l * m + i : i * k + l)] * b[ofB + (transposeB ? j * k + l : l * n + j)];
    return total;
  });
}

interface Added {
  readonly activation?: 'gelu' | 'swish';
  readonly residual?: Numbers | null;
}

/** y = activation(x weight^T + bias) + residual, with x [rows, inputs] and weight [outputs, inputs] */
export function linear(
  x: Numbers,
  weight: Numbers,
  inputs: number,
  { bias, activation, residual }: Added & { readonly bias?: Numbers | null } = {},
): Float64Array {
  const sizes = { m: x.length / inputs, n: weight.length / inputs, k: inputs, transposeB: true };
  const z = matmul(x, weight, sizes, bias);
  const y = activation ? z.map(activations[activation]) : z;
  return residual ? add(y, residual) : y;
}

/** y = (activation(x gate^T) * x up^T) down^T + residual */
export function gatedMlp(
  [x, gate, up, down]: readonly Numbers[],
  width: number,
  { activation = 'gelu', residual }: Added = {},
): Float64Array {
  const lifted = linear(x, up, width);
  const hidden = linear(x, gate, width, { activation }).map((value, i) => value * lifted[i]);
  return linear(hidden, down, down.length / width, { residual });
}

/** A convolution with a stride of its kernel's size: images [count, height, width, 3], weight [out, 3, patch, patch], position [patches, out]. */
export function patchEmbedding(
  [images, weight, bias, position]: readonly Numbers[],
  { height, width, patch }: { readonly height: number; readonly width: number; readonly patch: number },
): Float64Array {
  const [out, rows, columns] = [bias.length, height / patch, width / patch];
  const count = images.length / (height * width * 3);
  return make(count * rows * columns * out, (at) => {
    const [place, o] = [Math.floor(at / out), at % out];
    const token = place % (rows * columns);
    const [image, row, column] = [Math.floor(place / (rows * columns)), Math.floor(token / columns), token % columns];
    let total = bias[o] + position[token * out + o];
    for (let c = 0; c < 3; c++)
      for (let i = 0; i < patch; i++)
        for (let j = 0; j < patch; j++) {
          const pixel = (image * height + row * patch + i) * width + column * patch + j;
          total += images[pixel * 3 + c] * weight[((o * 3 + c) * patch + i) * patch + j];
        }
    return total;
  });
}

/** Runs of rows of a joint sequence, each with the place of its owner. */
export type Blocks = readonly { readonly input: number; readonly length: number }[];

/** The rows of one owner in a sample. */
export const rowsOwned = (blocks: Blocks, owner: number): number =>
  blocks.reduce((total, { input, length }) => total + (input === owner ? length : 0), 0);

/** For every row of a joint sample: its owner, and its row there. */
export function ownersOf(blocks: Blocks): { owner: number; row: number }[] {
  const used = new Map<number, number>();
  return blocks.flatMap(({ input: owner, length }) =>
    Array.from({ length }, () => {
      const row = used.get(owner) ?? 0;
      used.set(owner, row + 1);
      return { owner, row };
    }),
  );
}

/** Calls `visit` for every joint row, with its place and that of the same row among its owner's. */
function eachRow(blocks: Blocks, batch: number, visit: (owner: number, own: number, joint: number) => void): void {
  const owners = ownersOf(blocks);
  for (let sample = 0; sample < batch; sample++)
    owners.forEach(({ owner, row }, place) => {
      visit(owner, sample * rowsOwned(blocks, owner) + row, sample * owners.length + place);
    });
}

/** The rows of each owner through its own weight, and bias if there are any, as rows of one joint tensor. */
export function blockLinear(
  inputs: readonly Numbers[],
  weights: readonly Numbers[],
  blocks: Blocks,
  batch: number,
  biases: readonly Numbers[] = [],
): Float64Array {
  const results = inputs.map((x, i) =>
    linear(x, weights[i], x.length / (batch * rowsOwned(blocks, i)), { bias: biases[i] }),
  );
  const joint = new Float64Array(results.reduce((total, { length }) => total + length, 0));
  const width = joint.length / (batch * ownersOf(blocks).length);
  eachRow(blocks, batch, (owner, own, place) => {
    joint.set(results[owner].subarray(own * width, (own + 1) * width), place * width);
  });
  return joint;
}

/** The rows of a joint tensor through the weight of their owner, a result for each owner. */
export function blockSplitLinear(
  joint: Numbers,
  weights: readonly Numbers[],
  blocks: Blocks,
  batch: number,
  residuals: readonly (Numbers | null)[] = [],
): Float64Array[] {
  const width = joint.length / (batch * ownersOf(blocks).length);
  const parts = weights.map((_, owner) => new Float64Array(batch * rowsOwned(blocks, owner) * width));
  eachRow(blocks, batch, (owner, own, place) => {
    for (let i = 0; i < width; i++) if (parts[owner]) parts[owner][own * width + i] = joint[place * width + i];
  });
  return weights.map((weight, owner) => linear(parts[owner], weight, width, { residual: residuals[owner] }));
}
