import { describe, expect, type TestContext, test } from 'vitest';
import { backward, loadKernel, parameter, parseKernel, type Tensor, tensor, zeroTensor } from '../../engine/index.ts';
import {
  type AttentionTable,
  attention,
  attentionTable,
  attentionVariants,
  causal,
  type Edge,
  edge,
  fillPlan,
  full,
  insulated,
  planForm,
  sequence,
  tilesOf,
  useAttentionVariants,
} from '../../kernels/index.ts';
import { testDevice } from '../support/devices.ts';
import { longTest } from '../support/long.ts';
import { normals } from '../support/numbers.ts';

const layout = sequence({ image: 70, language: 9, fast: 45, action: 40 });
const table = attentionTable(layout, {
  image: { image: full, language: full },
  language: { image: full, language: full },
  fast: { image: full, language: edge({ mask: 'full', stopKey: true }), fast: edge({ mask: 'causal', window: 20 }) },
  action: { image: insulated, language: edge({ mask: 'full', stopValue: true, keyGradient: 0.3 }), action: full },
});
const everything = { query: true, key: true, value: true };
const all = [0, 1, 2, 3];

/** Token pairs in tile pairs with at least one live pair, counted pair by pair from the table: what a plan may cost and no more. */
function livePairs(
  of: AttentionTable,
  validity: ArrayLike<number>,
  wanted: (queryBlock: number, keyBlock: number) => boolean,
): number {
  const { blocks } = of.layout;
  const tiles = tilesOf(blocks);
  let count = 0;
  for (const query of tiles)
    for (const key of tiles) {
      const cell = of.cells[query.block][key.block];
      let live = false;
      for (let i = query.firstToken; i < query.firstToken + query.rows; i++)
        for (let j = key.firstToken; j < key.firstToken + key.rows; j++) {
          const near = cell.mask === 'full' || (j <= i && i - j < (cell.window ?? Number.POSITIVE_INFINITY));
          live ||= cell.mask !== 'none' && near && validity[i] === 1 && validity[j] === 1;
        }
      if (live && wanted(query.block, key.block)) count += query.rows * key.rows;
    }
  return count;
}

const padded = Uint8Array.from({ length: 164 }, (_, token) => (token >= 40 && token < 75 ? 0 : 1));

describe('attention plan', () => {
  test('its lists hold the live pairs and no others', () => {
    const cells = table.cells;
    for (const lossBlocks of [all, [3], [2]]) {
      const carries = (block: number) => lossBlocks.includes(block);
      for (const wants of [everything, { ...everything, key: false }, { query: false, key: true, value: false }]) {
        const { work } = fillPlan(planForm(table, 1), { validity: padded, lossBlocks, wants });
        const toKey = (q: number, k: number) => carries(q) && wants.key && cells[q][k].keyGradient > 0;
        const toValue = (q: number, k: number) => carries(q) && wants.value && cells[q][k].valueGradient > 0;
        expect(work).toEqual({
          forward: livePairs(table, padded, () => true),
          dQuery: livePairs(table, padded, (q) => wants.query && carries(q)),
          dKeyValue: livePairs(table, padded, (q, k) => toKey(q, k) || toValue(q, k)),
          dKey: livePairs(table, padded, toKey),
          dValue: livePairs(table, padded, toValue),
        });
      }
    }
  });

  test('a batch rewrites what a plan holds, never where it lies', () => {
    const form = planForm(table, 2);
    const request = { lossBlocks: all, wants: everything };
    const real = fillPlan(form, { ...request, validity: null });
    const half = fillPlan(form, { ...request, validity: new Uint8Array([...padded, ...padded]) });
    expect(half.words.length).toBe(real.words.length);
    expect(half.work.forward).toBeLessThan(real.work.forward);
    const starts = (words: Uint32Array) =>
      Array.from(words.subarray(form.places.forwardAt, form.places.dataAt)).filter((_, i) => i % 2 === 0);
    expect(starts(half.words)).toEqual(starts(real.words));
  });

  test('its words grow with live tiles: 32,768 tokens with a window take half a megabyte a sample', () => {
    const form = (tokens: number, window?: number, batch = 1) =>
      planForm(attentionTable(sequence({ text: tokens }), { text: { text: edge({ mask: 'causal', window }) } }), batch);
    // A query tile sees keys up to 511 tokens back, of 17 tiles; the first 16 query tiles see all before them.
    const pairs = 17 * 1024 - (16 * 17) / 2;
    const words = (samples: number) => samples * (3 * 2 * pairs + (2 * 4 + 3 * 2) * 1024) + 2;
    for (const batch of [1, 3]) expect(form(32_768, 512, batch).words).toBe(words(batch));
    expect(4 * words(1)).toBeLessThan(4e6 / 8);
    expect(form(32_768).words).toBeGreaterThan(25 * words(1));
    expect(form(65_536, 512).words).toBeLessThan(2.1 * words(1));
  });

  test('has no room for gradients that the table stops', () => {
    const layout = sequence({ prefix: 320, action: 64 });
    const words = (prefix: Edge) => planForm(attentionTable(layout, { action: { prefix, action: full } }), 1).words;
    expect(words(full) - words(insulated)).toBe(2 * 2 * 10);
    expect(words(edge({ mask: 'full', stopKey: true }))).toBe(words(full));
  });

  test('a table that it has no room for is refused in one line', async () => {
    const dense = (tokens: number) => attentionTable(sequence({ text: tokens }), { text: { text: full } });
    expect(() => planForm(dense(32 * 2 ** 16 + 1), 1)).toThrow(
      'attention: the table has 65537 tiles of at most 32 tokens; a plan has room for 65536',
    );
    expect(() => planForm(dense(32 * 2 ** 16), 1)).toThrow(
      'attention: a batch of 1 has 4294967296 pairs of tiles in this table; a plan has room for 536870912: use a smaller batch, or a window',
    );
    const device = await testDevice('floor');
    const { maxStorageBufferBindingSize: most } = device.limits;
    const batch = Math.ceil(most / (3 * 8 * 1024 ** 2));
    device.step(() => {
      const operand = zeroTensor(device, [batch, 32_768, 1, 4], 'f32', 'operand');
      expect(() => attention(operand, operand, operand, { table: dense(32_768) })).toThrow(
        `bytes for a batch of ${batch}; this device binds ${most}: use a smaller batch, or a window`,
      );
    });
  });

  test('tiles with the most keys come first', () => {
    const long = sequence({ text: 200 });
    const { queryTiles, keyTiles } = planForm(attentionTable(long, { text: { text: causal } }), 1);
    expect(queryTiles.map(({ firstToken }) => firstToken)).toEqual([192, 160, 128, 96, 64, 32, 0]);
    expect(keyTiles.map(({ firstToken }) => firstToken)).toEqual([0, 32, 64, 96, 128, 160, 192]);
  });
});

describe('attention tables compiled', () => {
  test('calls of a step with one table share its plan; another batch, other rows and an equal table have their own', async () => {
    const device = await testDevice('normal');
    const small = sequence({ first: 40, second: 8 });
    const rows = { first: { first: full }, second: { first: full, second: causal } };
    const [one, other] = [attentionTable(small, rows), attentionTable(small, rows)];
    const plans: unknown[] = [];
    const dispatch = device.dispatch;
    device.dispatch = (given) => {
      if (given.bindings.plan) plans.push(given.bindings.plan);
      dispatch.call(device, given);
    };
    const run = (of: AttentionTable, batch: number, queries = ['first', 'second']) => {
      const operand = (tokens: number, seed: number) =>
        tensor(device, normals(batch * tokens * 16, seed), [batch, tokens, 1, 16]);
      const queryRows = queries.length === 1 ? 8 : 48;
      return attention(operand(queryRows, 1), operand(48, 2), operand(48, 3), { table: of, queries });
    };
    try {
      const outputs = device.step(() => [
        run(one, 1),
        run(one, 1),
        run(one, 2),
        run(one, 1, ['second']),
        run(other, 1),
      ]);
      expect(plans.map((plan) => plans.indexOf(plan))).toEqual([0, 0, 2, 3, 4]);
      const [first, again, , , equal] = await Promise.all(outputs.map((output) => output.read()));
      expect(again).toEqual(first);
      expect(equal).toEqual(first);
      for (const output of outputs) output.dispose();
    } finally {
      device.dispatch = dispatch;
    }
  });
});

/** A kernel file whose results are counts: in every row of the output and of dq the keys, of dk and dv the query rows, that were visited for it. */
async function counting(name: 'attention' | 'attention.software') {
  const { source } = await loadKernel(new URL(`../../kernels/${name}.wgsl`, import.meta.url));
  // Behind the file: its directives have to stay in front of all declarations.
  let text = `${source}\nvar<private> keysVisited: f32;\nvar<private> toKey: f32;\nvar<private> toValue: f32;\n`;
  const replace = (what: string, by: string, times: number) => {
    expect(text.split(what).length - 1, what).toBe(times);
    text = text.replaceAll(what, by);
  };
  const visited = (tile: string) => `\n  keysVisited += f32(${tile}.rows);`;
  if (name === 'attention') {
    for (const tile of ['values', 'weighted']) {
      const made = `let ${tile} = keyItem(work, first + tile).tile;`;
      replace(made, `${made}${visited(tile)}`, 1);
    }
    const output = 'packOutput(select(vec4f(), mean, seesKeys))';
    replace(output, 'vec4f(keysVisited)', 1);
    replace('= shape.scale * sums[4u * c + i];', '= vec4f(keysVisited);', 1);
    const item = 'let weighted = queryItem(work, first + tile);';
    const reached = (stop: string, count: string) => ` if (!weighted.pair.${stop}) { ${count} += f32(weighted.rows); }`;
    replace(item, `${item}${reached('stopKey', 'toKey')}${reached('stopValue', 'toValue')}`, 1);
    replace('dKey[at + group] = sums[4u * c + i];', 'dKey[at + group] = vec4f(toKey);', 1);
    replace('dValue[at + group] = sums[4u * c + i];', 'dValue[at + group] = vec4f(toValue);', 1);
  } else {
    replace(
      'let keys = keyTile(sample, pair.tile, lane);',
      `let keys = keyTile(sample, pair.tile, lane);${visited('keys')}`,
      2,
    );
    // The computed value stays, times zero: a binding that nothing reads would be gone from the layout.
    const filled = (count: string) => `mat4x4f(${Array(4).fill(`vec4f(${count})`).join(', ')})`;
    const output = 'combine(scaled, &scores, fetchValue(keysAt + group))';
    replace(`${output});`, `${filled('keysVisited')} + 0.0 * ${output});`, 1);
    // A workgroup of backward takes several batches of query rows, and adds theirs to dk and dv.
    replace('let at = rows.statisticsAt;', 'let at = rows.statisticsAt; keysVisited = 0.0;', 1);
    const gradient = 'sums = combine(sums, &weights, passing);';
    const batch = 'f32(min(queries.rows * headsPerKv - first, BATCH))';
    const counted = `if (product == 2u) { sums = ${filled('keysVisited')}; } else { sums = before + ${filled(batch)}; }`;
    replace(gradient, `let before = sums; ${gradient} let made = sums; ${counted} sums += 0.0 * made;`, 1);
  }
  return parseKernel(`${name}-counting`, text);
}

describe('attention counted', () => {
  const visits = (variant: string) => `${variant} visits exactly the pairs of its plan`;
  for (const variant of ['base-128', 'software']) test(visits(variant), (context) => countVisits(variant, context));
  longTest(visits('base-256'), (context) => countVisits('base-256', context));

  async function countVisits(variant: string, { skip }: TestContext) {
    const device = await testDevice('normal');
    const key = { dtype: 'f32', headDimension: 16 } as const;
    if (!attentionVariants(device, { ...key, entry: 'forward' }).includes(variant)) skip('not on this adapter');
    const entries = ['forward', 'backwardQuery', 'backwardKeyValue'] as const;
    useAttentionVariants(
      device,
      entries.map((entry) => ({ ...key, entry, variant })),
    );
    const counter = await counting(variant === 'software' ? 'attention.software' : 'attention');
    const dispatch = device.dispatch;
    device.dispatch = (given) =>
      dispatch.call(
        device,
        given.kernel.name === counter.name.replace('-counting', '') ? { ...given, kernel: counter } : given,
      );
    const [batch, heads] = [4, 6]; // enough work that no list is shared
    const validity = new Uint8Array(batch * 164).fill(1);
    validity.set(padded, 164);
    const operand = (count: number, seed: number) =>
      parameter(device, normals(batch * 164 * count * 16, seed), [batch, 164, count, 16], { name: `operand ${seed}` });
    const operands = [operand(heads, 1), operand(2, 2), operand(2, 3)] as const;
    try {
      const output = device.step(() => {
        const result = attention(...operands, { table, validity, lossBlocks: ['fast', 'action'] });
        backward(result, { gradient: tensor(device, normals(result.size, 4), result.shape) });
        return result;
      });
      // One element of every row: its count.
      const sum = async (counts: Tensor) =>
        (await counts.read()).reduce((total, value, index) => (index % 16 === 0 ? total + value : total), 0);
      const { work } = fillPlan(planForm(table, batch), { validity, lossBlocks: [2, 3], wants: everything });
      expect(await sum(output)).toBe(heads * work.forward);
      expect(await sum(operands[0].grad!)).toBe(heads * work.dQuery);
      expect(await sum(operands[1].grad!)).toBe(heads * work.dKey);
      expect(await sum(operands[2].grad!)).toBe(heads * work.dValue);
      output.dispose();
    } finally {
      device.dispatch = dispatch;
      for (const leaf of operands) leaf.dispose();
      useAttentionVariants(device, []);
    }
  }
});
