import { describe, expect, test } from 'vitest';
import { persistentTensor, tensor, withoutTape } from '../../engine/index.ts';
import {
  attention,
  attentionExpression,
  attentionTable,
  cast,
  causal,
  full,
  insulated,
  masks,
  sequence,
  writeTokens,
} from '../../kernels/index.ts';
import { describeOnDevices, testDevice } from '../support/devices.ts';
import { expectClose, normals } from '../support/numbers.ts';

const [batch, heads, kvHeads, headDimension] = [2, 4, 2, 32];
const rowsAt = (numbers: Float32Array, tokens: number, perToken: number, first: number, count: number) =>
  Float32Array.from({ length: batch * count * perToken }, (_, i) => {
    const sample = Math.floor(i / (count * perToken));
    return numbers[(sample * tokens + first) * perToken + (i % (count * perToken))];
  });

/** Queries, keys and values of a sequence. */
function operands(tokens: number, seed: number) {
  return {
    query: normals(batch * tokens * heads * headDimension, seed),
    key: normals(batch * tokens * kvHeads * headDimension, seed + 1),
    value: normals(batch * tokens * kvHeads * headDimension, seed + 2),
  };
}

describeOnDevices('attention over a key/value cache', (open) => {
  test('one row after another, each reads what was written before: the rows of one causal call', async () => {
    const device = await open();
    const [prompt, steps] = [37, 6];
    const tokens = prompt + steps;
    const table = attentionTable(sequence({ prompt, text: steps }), {
      prompt: { prompt: full },
      text: { prompt: full, text: causal },
    });
    const { query, key, value } = operands(tokens, 1);
    for (const dtype of ['f32', 'bf16'] as const) {
      const shape = (count: number, rows: number) => [batch, rows, count, headDimension];
      const stored = (numbers: Float32Array, count: number, rows: number) =>
        cast(tensor(device, numbers, shape(count, rows)), dtype);
      const whole = withoutTape(device, () =>
        device.step(() =>
          attention(stored(query, heads, tokens), stored(key, kvHeads, tokens), stored(value, kvHeads, tokens), {
            table,
          }),
        ),
      );
      const expected = await whole.read();
      whole.dispose();
      using keys = persistentTensor(device, shape(kvHeads, tokens), dtype, 'keys');
      using values = persistentTensor(device, shape(kvHeads, tokens), dtype, 'values');
      const write = (first: number, rows: number) => {
        writeTokens(keys, stored(rowsAt(key, tokens, kvHeads * headDimension, first, rows), kvHeads, rows), first);
        writeTokens(values, stored(rowsAt(value, tokens, kvHeads * headDimension, first, rows), kvHeads, rows), first);
      };
      device.step(() => write(0, prompt));
      for (let step = 0; step < steps; step++) {
        const row = withoutTape(device, () =>
          device.step(() => {
            write(prompt + step, 1);
            const own = stored(rowsAt(query, tokens, heads * headDimension, prompt + step, 1), heads, 1);
            return attention(own, keys, values, { table, queries: [{ block: 'text', first: step, rows: 1 }] });
          }),
        );
        const wanted = rowsAt(expected, tokens, heads * headDimension, prompt + step, 1);
        expectClose(await row.read(), wanted, dtype === 'f32' ? 1e-6 : 2 ** -8, `row ${step}`);
        row.dispose();
      }
    }
  });

  test('a suffix run again and again over a prefix that is computed once', async () => {
    const device = await open();
    const [prefix, suffix] = [70, 50];
    const tokens = prefix + suffix;
    const table = attentionTable(sequence({ prefix, suffix }), {
      prefix: { prefix: full },
      suffix: { prefix: insulated, suffix: full },
    });
    const shape = (count: number, rows: number) => [batch, rows, count, headDimension];
    using keys = persistentTensor(device, shape(kvHeads, tokens), 'f32', 'keys');
    using values = persistentTensor(device, shape(kvHeads, tokens), 'f32', 'values');
    const first = operands(tokens, 10);
    for (let round = 0; round < 3; round++) {
      const now = operands(tokens, 10 + 10 * round);
      const part = (numbers: Float32Array, count: number, start: number, rows: number) =>
        rowsAt(numbers, tokens, count * headDimension, start, rows);
      const run = () =>
        device.step(() => {
          const write = (start: number, rows: number, from: typeof now) => {
            writeTokens(keys, tensor(device, part(from.key, kvHeads, start, rows), shape(kvHeads, rows)), start);
            writeTokens(values, tensor(device, part(from.value, kvHeads, start, rows), shape(kvHeads, rows)), start);
          };
          if (round === 0) write(0, prefix, first);
          write(prefix, suffix, now);
          const query = tensor(device, part(now.query, heads, prefix, suffix), shape(heads, suffix));
          return attention(query, keys, values, { table, queries: ['suffix'] });
        });
      const cached = withoutTape(device, run);
      const joined = (own: Float32Array, old: Float32Array) =>
        own.map((number, i) => {
          const token = Math.floor(i / (kvHeads * headDimension)) % tokens;
          return token < prefix ? old[i] : number;
        });
      const whole = device.step(() =>
        attention(
          tensor(device, now.query, shape(heads, tokens)),
          tensor(device, joined(now.key, first.key), shape(kvHeads, tokens)),
          tensor(device, joined(now.value, first.value), shape(kvHeads, tokens)),
          { table },
        ),
      );
      expectClose(await cached.read(), part(await whole.read(), heads, prefix, suffix), 1e-6, `round ${round}`);
      cached.dispose();
      whole.dispose();
    }
  });
});

describe('rows of a block', () => {
  test('a mask of the user applies to rows that are part of a tile, or of two', async () => {
    const device = await testDevice('normal');
    const tokens = 80;
    const layout = sequence({ text: tokens });
    const table = attentionTable(layout, { text: { text: full } });
    const expression = await attentionExpression(device, layout, masks.slidingWindow(20));
    const { query, key, value } = operands(tokens, 40);
    const shape = (count: number, rows: number) => [batch, rows, count, headDimension];
    const run = (first: number, rows: number) =>
      device.step(() =>
        attention(
          tensor(device, rowsAt(query, tokens, heads * headDimension, first, rows), shape(heads, rows)),
          tensor(device, key, shape(kvHeads, tokens)),
          tensor(device, value, shape(kvHeads, tokens)),
          { table, expression, queries: [{ block: 'text', first, rows }] },
        ),
      );
    const whole = run(0, tokens);
    const expected = await whole.read();
    whole.dispose();
    for (const [first, rows] of [
      [5, 1],
      [30, 40],
      [79, 1],
    ]) {
      const part = run(first, rows);
      const wanted = rowsAt(expected, tokens, heads * headDimension, first, rows);
      expectClose(await part.read(), wanted, 1e-6, `${rows} rows from ${first}`);
      part.dispose();
    }
    expect(() => run(79, 2)).toThrow("attention: queries wants 2 rows of 'text' from 79; it has 80");
  });
});
