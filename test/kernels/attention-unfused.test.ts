import { expect, test } from 'vitest';
import { backward, parameter, stopGradient, type Tensor, tensor, zeroGradients } from '../../engine/index.ts';
import {
  type AttentionTable,
  add,
  attention,
  attentionTable,
  causal,
  concatenateTokens,
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
import { expectClose, expectZero, normals } from '../support/numbers.ts';

const D = 32;
const layout = sequence({ image: 37, language: 20, fast: 1, action: 41 });
const { blocks, length: tokens } = layout;
const everyStop = attentionTable(layout, {
  image: { image: full, language: full },
  language: { image: full, language: causal },
  fast: { language: edge({ mask: 'full', stopValue: true }), fast: full },
  action: {
    image: insulated,
    language: edge({ mask: 'full', stopKey: true }),
    action: edge({ mask: 'causal', window: 7 }),
  },
});
const insulatedOnly = attentionTable(layout, {
  image: { image: insulated },
  language: { image: insulated, language: full },
  fast: { language: full, fast: full },
  action: { image: insulated, action: full },
});

/** The three operands [1, rows of a block, D] of every block. */
type Operands = Record<'query' | 'key' | 'value', Tensor[]>;

function fused({ query, key, value }: Operands, table: AttentionTable): Tensor {
  const whole = (parts: Tensor[]) => reshape(concatenateTokens(parts), [1, tokens, 1, D]);
  return reshape(attention(whole(query), whole(key), whole(value), { table }), [1, tokens, D]);
}

/** One graph for each query block, with its keys and values behind the stops of its edges, and scores for all pairs. */
function unfused({ query, key, value }: Operands, table: AttentionTable): Tensor {
  const rows = query.map((ofBlock, row) => {
    const cells = table.cells[row];
    const keys = concatenateTokens(key.map((k, i) => (cells[i].stopKey ? stopGradient(k) : k)));
    const values = concatenateTokens(value.map((v, i) => (cells[i].stopValue ? stopGradient(v) : v)));
    const bias = blocks.flatMap(({ start, length }, i) => {
      const { mask, window = tokens } = cells[i];
      return Array.from({ length }, (_, at) => (q: number) => {
        const back = q - (start + at);
        return mask === 'full' || (mask === 'causal' && back >= 0 && back < window) ? 0 : -1e30;
      });
    });
    const { start, length } = blocks[row];
    const biases = Array.from({ length }, (_, q) => bias.map((of) => of(start + q))).flat();
    const scores = scale(matmul(ofBlock, keys, { transposeB: true }), 1 / Math.sqrt(D));
    return matmul(softmax(add(scores, tensor(query[0].device, biases, [length, tokens]))), values);
  });
  return concatenateTokens(rows);
}

describeOnDevices('attention and the same graph of single operations', (opened) => {
  test.each([
    ['every kind of edge', everyStop],
    ['an image behind stop-gradients alone', insulatedOnly],
  ])('%s: output and all gradients', async (_, table) => {
    const device = await opened();
    const operand = (name: string, seed: number) =>
      blocks.map((block, i) =>
        parameter(device, normals(block.length * D, seed + i), [1, block.length, D], {
          name: `${name} of ${block.name}`,
        }),
      );
    const operands: Operands = { query: operand('query', 10), key: operand('key', 20), value: operand('value', 30) };
    const leaves = Object.values(operands).flat();
    const dOutput = normals(tokens * D, 1);
    const run = async (graph: typeof fused) => {
      const output = device.step(() => {
        zeroGradients(leaves);
        const result = graph(operands, table);
        backward(result, { gradient: tensor(device, dOutput, result.shape) });
        return result;
      });
      const numbers = await output.read();
      output.dispose();
      const gradients = await Promise.all(
        leaves.map(async ({ grad, size }) => (grad ? grad.read() : new Float32Array(size))),
      );
      return { numbers, gradients };
    };
    const expected = await run(unfused);
    const actual = await run(fused);
    expectClose(actual.numbers, expected.numbers, 2e-6, 'output');
    leaves.forEach(({ name }, i) => {
      expectClose(actual.gradients[i], expected.gradients[i], 2e-6, `gradient of the ${name}`);
      if (table === insulatedOnly && /(key|value) of image/.test(name)) expectZero(actual.gradients[i], name);
      else expect(expected.gradients[i].filter((element) => element !== 0).length, name).toBeGreaterThan(0);
    });
    for (const leaf of leaves) leaf.dispose();
  });
});
