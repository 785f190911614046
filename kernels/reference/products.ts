/** Matrix products, and the layers that are one. */
import { activations, add } from './elementwise.ts';
import { type Many, make, type Numbers, sum } from './numbers.ts';

/** Output [batch, m, n], depth k. A transposed operand is stored as [k, m] or [n, k]; a shared b is one matrix for all samples. */
export interface ProductSizes extends Readonly<Record<'m' | 'n' | 'k', number>> {
  readonly batch?: number;
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  readonly shared?: boolean;
}

export function matmul(a: Numbers, b: Numbers, sizes: ProductSizes, bias?: Numbers | null): Float64Array {
  const { m, n, k, batch = 1, transposeA, transposeB, shared = batch === 1 } = sizes;
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
  readonly bias?: Numbers | null;
  readonly activation?: 'gelu' | 'swish';
  readonly residual?: Numbers | null;
}

/** y = activation(x weight^T + bias) + residual, with x [rows, inputs] and weight [outputs, inputs] */
export function linear(x: Numbers, weight: Numbers, inputs: number, added: Added = {}): Float64Array {
  const sizes = { m: x.length / inputs, n: weight.length / inputs, k: inputs, transposeB: true };
  const z = matmul(x, weight, sizes, added.bias);
  const y = added.activation ? z.map(activations[added.activation]) : z;
  return added.residual ? add(y, added.residual) : y;
}

/** `linear` with the matrix weight + scale up down, made whole: weight [outputs, inputs], down [rank, inputs], up [outputs, rank] */
export function lowRank([x, weight, down, up]: Many, inputs: number, scale: number, added: Added = {}): Float64Array {
  const product = matmul(up, down, { m: weight.length / inputs, n: inputs, k: down.length / inputs });
  const whole = add(
    weight,
    product.map((value) => scale * value),
  );
  return linear(x, whole, inputs, added);
}

/** y = (activation(x gate^T) * x up^T) down^T + residual */
export function gatedMlp([x, gate, up, down]: Many, width: number, { activation = 'gelu', residual }: Added = {}) {
  const lifted = linear(x, up, width);
  const hidden = linear(x, gate, width, { activation }).map((value, i) => value * lifted[i]);
  return linear(hidden, down, down.length / width, { residual });
}

type Pixels = Readonly<Record<'height' | 'width' | 'patch', number>>;

/** A convolution with a stride of its kernel's size: images [count, height, width, 3], weight [out, 3, patch, patch], position [patches, out]. */
export function patchEmbedding([images, weight, bias, position]: Many, { height, width, patch }: Pixels) {
  const [out, rows, columns] = [bias.length, height / patch, width / patch];
  const count = images.length / (height * width * 3);
  return make(count * rows * columns * out, (at) => {
    const [place, o] = [Math.floor(at / out), at % out];
    const token = place % (rows * columns);
    const [image, row, column] = [Math.floor(place / (rows * columns)), Math.floor(token / columns), token % columns];
    const product = sum(3 * patch * patch, (term) => {
      const [c, i, j] = [Math.floor(term / patch / patch), Math.floor(term / patch) % patch, term % patch];
      const pixel = (image * height + row * patch + i) * width + column * patch + j;
      return images[pixel * 3 + c] * weight[o * 3 * patch * patch + term];
    });
    return bias[o] + position[token * out + o] + product;
  });
}

/** Runs of rows of a joint sequence, each with the place of its owner. */
export type Blocks = readonly { readonly input: number; readonly length: number }[];

/** For every row of a joint sample: its owner, its row there, and how many the owner has. */
export function ownersOf(blocks: Blocks): { owner: number; row: number; of: number }[] {
  const owners = blocks.flatMap(({ input, length }) => Array<number>(length).fill(input));
  const count = (among: readonly number[], owner: number) => among.filter((each) => each === owner).length;
  return owners.map((owner, at) => ({ owner, row: count(owners.slice(0, at), owner), of: count(owners, owner) }));
}

/** The rows of one owner in a sample. */
export const rowsOwned = (blocks: Blocks, owner: number): number =>
  ownersOf(blocks).filter((row) => row.owner === owner).length;

/** The rows of each owner through its own weight, and bias if there are any, as rows of one joint tensor. */
export function blockLinear(inputs: Many, weights: Many, blocks: Blocks, batch: number, biases: Many = []) {
  const owners = ownersOf(blocks);
  const results = inputs.map((x, i) =>
    linear(x, weights[i], x.length / (batch * rowsOwned(blocks, i)), { bias: biases[i] }),
  );
  const width = results[owners[0].owner].length / (batch * owners[0].of);
  return make(batch * owners.length * width, (at) => {
    const place = Math.floor(at / width);
    const { owner, row, of } = owners[place % owners.length];
    return results[owner][(Math.floor(place / owners.length) * of + row) * width + (at % width)];
  });
}

/** The rows of a joint tensor through the weight of their owner, a result for each owner. */
export function blockSplitLinear(joint: Numbers, weights: Many, blocks: Blocks, batch: number, added: Many<null> = []) {
  const owners = ownersOf(blocks);
  const width = joint.length / (batch * owners.length);
  return weights.map((weight, own) => {
    const places = owners.flatMap(({ owner }, place) => (owner === own ? [place] : []));
    const x = make(batch * places.length * width, (at) => {
      const row = Math.floor(at / width);
      const place = Math.floor(row / places.length) * owners.length + places[row % places.length];
      return joint[place * width + (at % width)];
    });
    return linear(x, weight, width, { residual: added[own] });
  });
}
