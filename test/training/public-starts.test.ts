import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Model } from '../../model/architecture/model.ts';
import { padded } from '../../model/data/index.ts';
import { presetNamed } from '../../model/training/presets.ts';
import { openPublicPolicy } from '../../model/training/public-policy.ts';
import { openPublicStart } from '../../model/training/start.ts';
import { expectClose, normals } from '../support/numbers.ts';
import {
  old,
  parametersOf,
  publishedFolders,
  quiet,
  renamed,
  short,
  vocabulary,
  type Written,
  weightsOf,
} from '../support/published.ts';
import { syntheticDataset } from '../support/synthetic-dataset.ts';
import { trainRun } from '../support/train-run.ts';

const { root, textTokenizer, folderOf, messageOf } = await publishedFolders();

test('a run begins from a published policy, its robot in the first dimensions', async () => {
  const own = weightsOf('pi05');
  const path = await folderOf(own, { 'config.json': { type: 'pi05', chunk_size: 4 } });
  const from = await openPublicStart(path, { textTokenizer });
  const dataset = padded(syntheticDataset(), from.configuration.actionDimension, path);
  expect(dataset).toMatchObject({ actionDimension: 6, stateDimension: 6 });
  const notes: string[] = [];
  const listener = { ...quiet, note: (line: string) => void notes.push(line.replaceAll(root, '')) };
  const preset = { ...from.preset, ...short };
  const { policy } = await trainRun(join(root, 'run.safetensors'), {
    ...{ system: 'pi05', preset, steps: 0, batch: 1, dataset, from, listener },
  });
  using model: Model = policy.model;
  expect(notes.filter((line) => line.startsWith('/policy-'))).toEqual([
    expect.stringMatching(/^\/policy-\d+: (\d+) of \1 tensors begin from it; anew begin none$/),
  ]);
  for (const { name, values } of own)
    expectClose((await model.parameters.get(name).read()) as Float32Array, values, 0, name);
  expect(policy.encoding.settings).toMatchObject({ leastRows: vocabulary, stateBins: 256 });
  expect(policy.encoding.settings.locations).toBeUndefined();
  await from.close();
});

test('a run begins from PaliGemma, in both forms of its names', async () => {
  const own = parametersOf('pi0-fast').map(({ name, shape }, i) => ({
    ...{ name, shape },
    values: normals(
      shape.reduce((a, b) => a * b, 1),
      900 + i,
      0.1,
    ),
  }));
  const inModel = (name: string) => name.replace('paligemma_with_expert.paligemma.', '');
  for (const change of [inModel, (name: string) => inModel(old(name))]) {
    const path = await folderOf(renamed(own, change), { 'config.json': { model_type: 'paligemma' } });
    const from = await openPublicStart(path, { textTokenizer });
    expect(from.actionDimension).toBeNull();
    for (const { name, shape, values } of own) {
      expect(from.shapes.get(name)).toEqual(shape);
      expectClose(await from.read(name), values, 0, name);
    }
    await from.close();
    expect(await messageOf(openPublicPolicy(path, { textTokenizer, rate: 1 }))).toMatch(
      /PaliGemma or SigLIP, no policy: begin from it with insula train --from$/,
    );
  }
});

describe('SigLIP', () => {
  const tower = (root: string) =>
    weightsOf('pi05')
      .filter(({ name }) => name.includes('vision_tower'))
      .map((own) => ({ ...own, name: own.name.replace(/^.*vision_model\./, root) }));
  const unused = (name: string): Written => ({ name, shape: [2, 3], values: normals(6, 1) });
  const whole = () => [
    ...tower('vision_model.'),
    ...['vision_model.head.probe', 'text_model.final_layer_norm.weight', 'logit_scale'].map(unused),
  ];

  test.each([
    ['its tower', () => tower('vision_model.')],
    ['a whole one', whole],
    ['the tower of older transformers', () => tower('vision_tower.vision_model.')],
  ])('a run begins from %s, in a preset of its own', async (name, tensors) => {
    const preset = presetNamed('tiny');
    const from = await openPublicStart(await folderOf(tensors()), { preset });
    const vision = { width: 32, depth: 1, heads: 2, hidden: 40, patch: 14, image: 28 };
    expect(from.preset).toEqual({ ...preset, name: 'tiny-siglip', vision });
    const notes: string[] = [];
    const listener = { ...quiet, note: (line: string) => void notes.push(line.replaceAll(root, '')) };
    const { policy } = await trainRun(join(root, `siglip-${name}.safetensors`), {
      ...{ system: 'knowledge-insulation', preset: { ...from.preset, ...short }, steps: 0, batch: 1 },
      ...{ dataset: syntheticDataset(), from, listener },
    });
    using model: Model = policy.model;
    expect(notes.filter((line) => line.startsWith('/policy-'))).toEqual([
      expect.stringMatching(
        /^\/policy-\d+: 21 of \d+ tensors begin from it; anew begin vision \(2\), backbone \(\d+\), expert/,
      ),
    ]);
    for (const own of weightsOf('pi05').filter(({ name }) => name.includes('vision_tower')))
      expectClose((await model.parameters.get(own.name).read()) as Float32Array, own.values, 0, own.name);
    await from.close();
  });

  test('is no policy, takes no text, and is whole', async () => {
    const path = await folderOf(whole());
    expect(await messageOf(openPublicPolicy(path, { rate: 1 }))).toMatch(
      /no policy: begin from it with insula train --from$/,
    );
    expect(await messageOf(openPublicStart(path, { textTokenizer }))).toMatch(/^--text-tokenizer: .* leave it out$/);
    const less = await folderOf([
      ...whole().filter((_, i) => i !== 1),
      unused('vision_model.embeddings.class_embedding'),
    ]);
    expect(await messageOf(openPublicStart(less, {}))).toMatch(
      /it lacks "[^"]+", and has "[^"]+class_embedding", for which SigLIP has no place; --partial goes on/,
    );
  });
});
