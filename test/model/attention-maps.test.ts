import { expect, test } from 'vitest';
import { withoutTape } from '../../engine/index.ts';
import type { AttentionRun } from '../../model/architecture/cross-attention.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import {
  attentionMaps,
  mapsAt,
  patchMaps,
  picturesOf,
  sharesOf,
  tokenTexts,
} from '../../model/inspect/attention-maps.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { testDevice } from '../support/devices.ts';
import { tinySizes } from '../support/tiny-sizes.ts';
import { seeingEncoding } from '../support/vision-language.ts';

/** Values of a tensor [batch, rows, heads, width] of one sample. */
const rowOf = (
  data: Float32Array,
  [, rows, heads, width]: readonly number[],
  sample: number,
  row: number,
  head: number,
) => data.subarray(((sample * rows + row) * heads + head) * width).subarray(0, width);

test.each(['knowledge-insulation', 'robovlms-flamingo'])(
  "%s: the values in the shares of the maps are the output of the model's own attention",
  async (system) => {
    const device = await testDevice('normal');
    const configuration = configurationOf(systemNamed(system), tinySizes);
    using model = new Model(device, configuration);
    model.initialise(1);
    const inputs = trainingInputs(model.architecture, randomBatch(configuration, 2, 3));
    const runs: (AttentionRun & { layer: number; numbers: Float32Array[] })[] = [];
    await device.step(async () => {
      withoutTape(device, () =>
        trainingPass(model, tensorsOf(device, inputs), {
          allRows: true,
          onAttention: (layer, run) => runs.push({ layer, ...run, numbers: [] }),
        }),
      );
      for (const { numbers, output, value } of runs) numbers.push(await output.read(), await value.read());
    });
    const { heads, kvHeads, depth } = configuration;
    const memory = runs.some(({ table }) => table.layout.blocks.some(({ keys }) => !keys));
    expect([runs.length >= depth, memory]).toEqual([true, system === 'robovlms-flamingo']);
    let compared = 0;
    for (const { layer, table, queries, output, value, numbers } of runs) {
      let first = 0;
      for (const name of queries as string[]) {
        const { length } = table.layout.blocks.find((block) => block.name === name)!;
        const row = length >> 1;
        const maps = await attentionMaps(model, inputs, { sequence: 1, rows: { [name]: row } });
        for (let head = 0; head < heads; head++) {
          const map = mapsAt(maps, layer, head)[name];
          const sum = new Float64Array(numbers[0].length / (output.shape[0] * output.shape[1] * heads));
          let keyRow = 0;
          for (const block of table.layout.blocks.filter(({ keys }) => keys)) {
            map?.[block.name]?.forEach((probability, i) => {
              const kv = Math.floor((head * kvHeads) / heads);
              rowOf(numbers[1], value.shape, 1, keyRow + i, kv).forEach((own, d) => {
                sum[d] += probability * own;
              });
            });
            keyRow += block.length;
          }
          rowOf(numbers[0], output.shape, 1, first + row, head).forEach((own, d) => {
            expect(sum[d]).toBeCloseTo(own, 5);
            if (own !== 0) compared++;
          });
        }
        first += length;
      }
    }
    expect(compared).toBeGreaterThan(100);
  },
);

test('shares of a query block sum to 1, and follow the table; what is not there is refused', async () => {
  const device = await testDevice('normal');
  const configuration = configurationOf(systemNamed('knowledge-insulation'), tinySizes);
  using model = new Model(device, configuration);
  model.initialise(1);
  const batch = randomBatch(configuration, 2, 3);
  const inputs = trainingInputs(model.architecture, batch);
  const maps = await attentionMaps(model, inputs);
  const mean = mapsAt(maps, 1);
  for (const [query, shares] of Object.entries(sharesOf(mean))) {
    const seen = configuration.edges.filter((own) => own.query === query).map(({ key }) => key);
    expect(Object.keys(shares).sort()).toEqual(seen.sort());
    expect(Object.values(shares).reduce((sum, share) => sum + share)).toBeCloseTo(1, 12);
  }
  const image = mean.action.image;
  const [only] = patchMaps(configuration, image);
  expect([only.down, only.across, only.values]).toEqual([2, 2, image]);
  const [picture] = picturesOf(configuration, batch, 1);
  const slot = 16 * 16 * 3;
  expect(picture!.pixels[5]).toBeCloseTo(127.5 * (1 + Math.min(1, Math.max(-1, batch.images![slot + 5]))), -0.5);
  await expect(attentionMaps(model, inputs, { rows: { action: 4 } })).rejects.toThrow(
    "block 'action' has rows 0 to 3, and no row 4",
  );
  await expect(attentionMaps(model, inputs, { rows: { hand: 0 } })).rejects.toThrow("no block 'hand'");
  expect(() => mapsAt(maps, 2)).toThrow('there is no layer 2: the model has layers 0 to 1');
  expect(() => mapsAt(maps, 1, 2)).toThrow('there is no head 2: the model has heads 0 to 1');
});

test('the words beside a map are the text of the tokens', () => {
  const encoding = new Encoding(seeingEncoding);
  const ids = encoding.text.encode('put the red cube', { bos: true });
  const padded = { ids: [...ids, 0, 0], valid: [...ids.map(() => 1), 0, 0] };
  const [begin, ...words] = tokenTexts(encoding, padded, 1, 0);
  expect([begin, words.join('')]).toEqual(['<bos>', 'put the red cube']);
});
