import { test } from 'vitest';
import {
  backward,
  type Device,
  parameter,
  stopGradient,
  type Tensor,
  tensor,
  zeroGradients,
} from '../../engine/index.ts';
import {
  type AttentionTable,
  add,
  attention,
  attentionTable,
  causal,
  concatenateTokens,
  type Edge,
  edge,
  full,
  insulated,
  matmul,
  reshape,
  scale,
  sequence,
  softmax,
} from '../../kernels/index.ts';
import { describeOnDevices } from '../support/devices.ts';
import { longTest } from '../support/long.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';

const soft = edge({ mask: 'full', keyGradient: 0.3, valueGradient: 0.7 });

interface Problem {
  readonly table: AttentionTable;
  readonly batch: number;
  /** Query heads, on one kv head. */
  readonly heads: number;
  readonly headDimension: number;
}

/** The three operands of every block: query [batch, rows, heads * D], key and value [batch, rows, D]. */
type Operands = Record<'query' | 'key' | 'value', Tensor[]>;

function fused({ query, key, value }: Operands, { table, batch, heads, headDimension }: Problem): Tensor {
  const whole = (parts: Tensor[], count: number) =>
    reshape(concatenateTokens(parts), [batch, table.layout.length, count, headDimension]);
  const output = attention(whole(query, heads), whole(key, 1), whole(value, 1), { table });
  return reshape(output, [batch, table.layout.length, heads * headDimension]);
}

/** s of the gradient of a tensor. */
function passing(x: Tensor, s: number): Tensor {
  if (s === 1) return x;
  return s === 0 ? stopGradient(x) : add(scale(x, s), scale(stopGradient(x), 1 - s));
}

/** One graph for each query block, with its keys and values behind the factors of its edges, and scores for all pairs. */
function unfused({ query, key, value }: Operands, { table, batch, heads, headDimension }: Problem): Tensor {
  const { blocks, length: tokens } = table.layout;
  const rows = query.map((ofBlock, row) => {
    const cells = table.cells[row];
    const keys = concatenateTokens(key.map((k, i) => passing(k, cells[i].keyGradient)));
    const values = concatenateTokens(value.map((v, i) => passing(v, cells[i].valueGradient)));
    const { start, length } = blocks[row];
    const bias = new Float32Array(length * heads * tokens);
    for (let q = 0; q < length * heads; q++)
      blocks.forEach((block, i) => {
        const { mask, window = tokens } = cells[i];
        for (let k = block.start; k < block.start + block.length; k++) {
          const back = start + Math.floor(q / heads) - k;
          const sees = mask === 'full' || (mask === 'causal' && back >= 0 && back < window);
          bias[q * tokens + k] = sees ? 0 : -1e30;
        }
      });
    const queries = reshape(ofBlock, [batch, length * heads, headDimension]);
    const scores = scale(matmul(queries, keys, { transposeB: true }), 1 / Math.sqrt(headDimension));
    const weights = softmax(add(scores, tensor(ofBlock.device, bias, [length * heads, tokens])));
    return reshape(matmul(weights, values), [batch, length, heads * headDimension]);
  });
  return concatenateTokens(rows);
}

/** Runs both; `silent` are the blocks with keys and values that get a gradient of exactly zero. */
async function compare(device: Device, problem: Problem, silent: readonly string[] = []): Promise<void> {
  const { table, batch, heads, headDimension } = problem;
  const { blocks, length: tokens } = table.layout;
  const make = (name: string, seed: number, width: number) =>
    blocks.map((block, i) =>
      parameter(device, normals(batch * block.length * width, seed + i), [batch, block.length, width], {
        name: `${name} of ${block.name}`,
      }),
    );
  const operands = {
    query: make('query', 10, heads * headDimension),
    key: make('key', 20, headDimension),
    value: make('value', 30, headDimension),
  };
  const leaves = Object.values(operands).flat();
  const dOutput = normals(batch * tokens * heads * headDimension, 1);
  const run = async (graph: typeof fused) => {
    const output = device.step(() => {
      zeroGradients(leaves);
      const result = graph(operands, problem);
      backward(result, { gradient: tensor(device, dOutput, result.shape) });
      return result;
    });
    const numbers = await output.read();
    output.dispose();
    const read = leaves.map(async ({ grad, size }) => (grad ? grad.read() : new Float32Array(size)));
    return { numbers, gradients: await Promise.all(read) };
  };
  const expected = await run(unfused);
  const actual = await run(fused);
  expectClose(actual.numbers, expected.numbers, 2e-6, 'output');
  leaves.forEach(({ name }, i) => {
    if (silent.some((block) => name === `key of ${block}` || name === `value of ${block}`))
      expectZero(actual.gradients[i], name);
    else expectClose(actual.gradients[i], expected.gradients[i], 2e-6, `gradient of the ${name}`);
  });
  for (const leaf of leaves) leaf.dispose();
}

const layout = sequence({ image: 37, language: 20, fast: 1, action: 41 });
const everyEdge = attentionTable(layout, {
  image: { image: full, language: full },
  language: { image: full, language: causal },
  fast: { image: soft, language: edge({ mask: 'full', stopValue: true }), fast: full },
  action: {
    image: insulated,
    language: edge({ mask: 'full', stopKey: true, valueGradient: 0.5 }),
    action: edge({ mask: 'causal', window: 7, keyGradient: 0.25 }),
  },
});
const insulatedOnly = attentionTable(layout, {
  image: { image: insulated },
  language: { image: insulated, language: full },
  fast: { language: full, fast: full },
  action: { image: insulated, action: full },
});

/** A prefix that sees itself, and as many tokens again, or fewer, that read it by one kind of edge. */
function tableOf(length: number, own: Edge, across: Edge): AttentionTable {
  const after = Math.floor(length / 3);
  if (after === 0) return attentionTable(sequence({ prefix: length }), { prefix: { prefix: own } });
  return attentionTable(sequence({ prefix: length - after, action: after }), {
    prefix: { prefix: own },
    action: { prefix: across, action: causal },
  });
}

describeOnDevices('attention and the same mask run densely', (opened, kind) => {
  test('every kind of edge: output and all gradients', async () => {
    await compare(await opened(), { table: everyEdge, batch: 1, heads: 1, headDimension: 32 });
  });

  test('an image behind stop-gradients alone', async () => {
    await compare(await opened(), { table: insulatedOnly, batch: 1, heads: 1, headDimension: 32 }, ['image']);
  });

  const sizes = (headDimension: number) => `sizes beside those of tiles, head dimension ${headDimension}`;
  for (const headDimension of [72, 104, 256]) {
    // Where the base file is used, its three kernels compile for seconds at a head dimension that no other test has.
    if (kind === 'floor' && headDimension === 104) longTest(sizes(104), () => checkSizes(104));
    else test(sizes(headDimension), () => checkSizes(headDimension));
  }

  async function checkSizes(headDimension: number) {
    const device = await opened();
    const across = [insulated, soft, full, edge({ mask: 'full', stopKey: true }), soft, insulated];
    const own = [full, causal, edge({ mask: 'causal', window: 5, valueGradient: 0.1 })];
    for (const [i, length] of [1, 2, 3, 17, 129, 257].entries())
      await compare(device, {
        table: tableOf(length, own[(i + headDimension / 8) % 3], across[i]),
        batch: 1 + (i % 3),
        heads: 1 + (i % 2),
        headDimension,
      });
  }
});
