import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { ActionChunk } from '../../tokenizers/index.ts';
import { FastTokenizer } from '../../tokenizers/index.ts';

const data = new URL('../../../shared/data/', import.meta.url);

interface Episode {
  values: Float32Array;
  steps: number;
  dimension: number;
}

/** The float32 tensors `EPISODE/field` of a safetensors file. */
function episodes(dataset: string, field: string): Episode[] {
  const file = readFileSync(new URL(`actions/${dataset}.safetensors`, data));
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, start)) as Record<
    string,
    { shape: number[]; data_offsets: number[] }
  >;
  return Object.entries(header)
    .filter(([name]) => name.endsWith(`/${field}`))
    .map(([, { shape, data_offsets }]) => {
      const bytes = Uint8Array.from(file.subarray(start + data_offsets[0], start + data_offsets[1]));
      return { values: new Float32Array(bytes.buffer), steps: shape[0], dimension: shape[1] };
    });
}

/** Quantile normalisation (openpi): the 1st and 99th percentile of each dimension become -1 and 1, nothing is clipped. */
function normaliser(from: Episode[]): (episode: Episode) => Episode {
  const { dimension } = from[0];
  const ranges = Array.from({ length: dimension }, (_, d) => {
    const column = Float64Array.from(
      from.flatMap(({ values }) => [...values.filter((_, i) => i % dimension === d)]),
    ).sort();
    const quantile = (q: number) => {
      const position = q * (column.length - 1);
      const low = Math.floor(position);
      const high = Math.min(low + 1, column.length - 1);
      return column[low] + (position - low) * (column[high] - column[low]);
    };
    return { low: quantile(0.01), width: quantile(0.99) - quantile(0.01) };
  });
  return ({ values, steps }) => ({
    steps,
    dimension,
    values: values.map(
      (value, i) => (2 * (value - ranges[i % dimension].low)) / (ranges[i % dimension].width + 1e-6) - 1,
    ),
  });
}

function chunksOf({ values, steps, dimension }: Episode, horizon: number, stride: number): ActionChunk[] {
  const chunks: ActionChunk[] = [];
  for (let start = 0; start + horizon <= steps; start += stride) {
    chunks.push({ horizon, dimension, data: values.slice(start * dimension, (start + horizon) * dimension) });
  }
  return chunks;
}

/** Mean ids of a held-out chunk, after checking that each comes back within the error that rounding allows. */
function measure(train: ActionChunk[], heldOut: ActionChunk[]): number {
  const tokenizer = FastTokenizer.fit(train);
  let ids = 0;
  let checked = 0;
  for (const chunk of heldOut) {
    const encoded = tokenizer.encode(chunk);
    ids += encoded.length;
    const quantised = tokenizer.coefficients(chunk);
    const inside = quantised.every(
      (value) => value >= tokenizer.minimum && value < tokenizer.minimum + tokenizer.codec.symbols,
    );
    if (!inside) continue;
    checked++;
    const decoded = tokenizer.decode(encoded, chunk);
    // The transform keeps the norm: |error| <= 0.5 / scale * sqrt(number of coefficients).
    const error = Math.hypot(...decoded.map((value, index) => value - chunk.data[index]));
    expect(error).toBeLessThanOrEqual((0.5 / tokenizer.scale) * Math.sqrt(decoded.length) + 1e-4);
  }
  expect(checked).toBeGreaterThan(heldOut.length / 2);
  return ids / heldOut.length;
}

const there = existsSync(data);
describe.skipIf(!there)(there ? 'FAST on robot data' : 'FAST on robot data (skipped: ../shared is not there)', () => {
  // Expected mean ids of a one-second chunk, measured by an independent program; the split of the episodes differs.
  it.each([
    { dataset: 'bridge', field: 'action', rate: 5, expected: 23.5 },
    { dataset: 'droid', field: 'action', rate: 15, expected: 11.1 },
    { dataset: 'droid', field: 'joint_velocity', rate: 15, expected: 18.4 },
    { dataset: 'droid', field: 'cartesian', rate: 15, expected: 10.3 },
  ])('$dataset $field takes about $expected ids a second', ({ dataset, field, rate, expected }) => {
    const all = episodes(dataset, field);
    const isHeldOut = (_: unknown, index: number) => index % 10 === 9;
    const training = all.filter((episode, index) => !isHeldOut(episode, index));
    const normalise = normaliser(training);
    const chunks = (of: Episode[]) => of.flatMap((episode) => chunksOf(normalise(episode), rate, rate));
    const mean = measure(chunks(training), chunks(all.filter(isHeldOut)));
    expect(Math.abs(mean / expected - 1)).toBeLessThan(0.1);
  });

  it('aloha_sim takes about 37.2 ids a second', () => {
    const all = episodes('aloha_sim', 'action');
    const normalise = normaliser(all);
    const heldOut = all.flatMap((episode) =>
      chunksOf(normalise(episode), 50, 50).filter((_, second) => second % 5 === 4),
    );
    // Training chunks overlap each other, but no held-out second (the fifth and the tenth of each episode).
    const training = all.flatMap((episode) =>
      chunksOf(normalise(episode), 50, 5).filter((_, index) =>
        [150, 400].every((s) => 5 * index <= s || 5 * index >= s + 100),
      ),
    );
    const mean = measure(training, heldOut);
    expect(Math.abs(mean / 37.2 - 1)).toBeLessThan(0.1);
  });

  it('quantises the published chunks as two independent encoders do', () => {
    const golden = JSON.parse(readFileSync(new URL('tokenizers/fast-libero-golden.json', data), 'utf8')) as {
      scale: number;
      min_token: number;
      cases: { chunk: number[][]; quantised: number[] }[];
    };
    const tokenizer = FastTokenizer.fromJSON({
      type: 'fast',
      scale: golden.scale,
      minimum: golden.min_token,
      symbols: 200,
      merges: [],
    });
    expect(golden.cases).toHaveLength(16);
    for (const { chunk, quantised } of golden.cases) {
      const given = { horizon: 50, dimension: 7, data: Float32Array.from(chunk.flat()) };
      expect(Array.from(tokenizer.coefficients(given), (value) => value + 0)).toEqual(quantised.flat());
    }
  });
});
