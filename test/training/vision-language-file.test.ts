import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readSafetensors, type TensorToWrite, writeSafetensors } from '../../engine/index.ts';
import { Model } from '../../model/architecture/model.ts';
import { Encoding, type EncodingSettings } from '../../model/policy/encoding.ts';
import { Policy } from '../../model/policy/policy.ts';
import { configurationOf, packedQuestions } from '../../model/systems/index.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { openVisionLanguageModel, saveVisionLanguageModel } from '../../model/training/vision-language-file.ts';
import { testDevice } from '../support/devices.ts';
import { trainRun } from '../support/train-run.ts';
import { made, seeingEncoding, seeingModel } from '../support/vision-language.ts';

let folder = '';
const path = () => join(folder, 'seeing.safetensors');
let model: Model;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-vision-language-'));
  model = seeingModel(await testDevice('normal'));
  await saveVisionLanguageModel(path(), model, seeingEncoding, made);
});
afterAll(async () => {
  model.dispose();
  await rm(folder, { recursive: true, force: true });
});

const image = (seed: number) => ({
  ...{ width: 16, height: 16 },
  pixels: Uint8Array.from({ length: 768 }, (_, i) => (i * 37 * seed) % 256),
});
const questions = [1, 2, 3].map((seed) => ({
  ...{ images: { front: image(seed) }, state: null, request: 'answer' as const },
  instruction: `point to thing ${seed}`,
}));

test('a model comes back as it was written, in 16 bits and without auxiliary heads', async () => {
  const device = await testDevice('normal');
  const file = await openVisionLanguageModel(path());
  expect(file.made).toEqual(made);
  expect(file.encoding).toEqual(seeingEncoding);
  expect(file.configuration.objectives.map(({ name }) => name)).toEqual(['token']);
  expect(file.configuration.blocks.map(({ name, length }) => [name, length])).toEqual([
    ['image', 4],
    ['language', 24],
    ['target', 8],
  ]);
  using opened = await file.loadModel(device);
  await file.close();
  const own = [...opened.parameters];
  expect(own).toHaveLength([...model.parameters].length - 1);
  let largest = 0;
  for (const parameter of own) {
    const [values, written] = [await parameter.read(), await model.parameters.get(parameter.name).read()];
    values.forEach((value, i) => {
      largest = Math.max(largest, Math.abs(value - written[i]) / Math.max(2 ** -14, Math.abs(written[i])));
    });
  }
  expect(largest).toBeGreaterThan(0);
  expect(largest).toBeLessThanOrEqual(2 ** -11);
  const numbers = own.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  expect((await stat(path())).size).toBeGreaterThan(2 * numbers);

  // The model that was written, rounded alike, gives the same answers.
  for (const parameter of own) model.parameters.get(parameter.name).write(await parameter.read());
  const answers = await new Policy(opened, new Encoding(file.encoding)).generateText(questions);
  expect(await new Policy(model, new Encoding(seeingEncoding)).generateText(questions)).toEqual(answers);
  expect(answers.some((answer) => answer.length > 0)).toBe(true);
});

test('a model that learned from packed questions is asked one at a time', async () => {
  const lengths = [
    { prompt: 9, answer: 5 },
    { prompt: 7, answer: 11 },
  ];
  const { vocabulary, vision, experts, depth, heads, kvHeads, headDimension } = model.configuration;
  const configuration = configurationOf(packedQuestions(lengths, { kinds: 4, colours: 3 }, depth), {
    ...{ vocabulary, depth, heads, kvHeads, headDimension, backbone: experts.backbone, expert: experts.backbone },
    vision: { ...vision!, ...vision!.towers.vision },
    ...{ promptTokens: 0, targetTokens: 0, horizon: 1, actionDimension: 1, stateDimension: 0 },
  });
  using packed = new Model(model.device, configuration);
  packed.initialise(1);
  const target = join(folder, 'packed.safetensors');
  await saveVisionLanguageModel(target, packed, seeingEncoding, made);
  const file = await openVisionLanguageModel(target);
  expect(file.configuration.blocks.map(({ length }) => length)).toEqual([4, 9, 11]);
  expect(file.configuration.objectives).toHaveLength(1);
  using opened = await file.loadModel(model.device);
  await file.close();
  expect(await new Policy(opened, new Encoding(file.encoding)).generateText(questions)).toHaveLength(3);
});

test('bytes in memory are opened like a file', async () => {
  const file = await openVisionLanguageModel(new Uint8Array(await readFile(path())));
  const [name, shape] = [...file.shapes][0];
  expect(await file.read(name)).toHaveLength(shape.reduce((product, size) => product * size, 1));
  await file.close();
});

test('a model with other parameters is not written', async () => {
  const { configuration } = model;
  const state = { name: 'state', input: 'numbers', length: 1, dimension: 2, weights: 'backbone', after: [] } as const;
  using other = new Model(model.device, { ...configuration, blocks: [...configuration.blocks, state] });
  const target = join(folder, 'other.safetensors');
  await expect(saveVisionLanguageModel(target, other, seeingEncoding, made)).rejects.toThrow(
    /other\.safetensors: the model has state\S+, which a vision-language model does not use$/,
  );
  await expect(stat(target)).rejects.toThrow(/ENOENT/);
  using blind = new Model(model.device, {
    ...{ ...configuration, vision: null, objectives: configuration.objectives.slice(0, 1) },
    blocks: configuration.blocks
      .slice(1)
      .map((block) => ({ ...block, after: block.after.filter((name) => name !== 'image') })),
    edges: configuration.edges.filter(({ query, key }) => query !== 'image' && key !== 'image'),
  });
  await expect(saveVisionLanguageModel(target, blind, seeingEncoding, made)).rejects.toThrow(/needs images/);
});

type Contents = { format?: unknown; encoding: EncodingSettings; configuration: { depth: unknown; blocks: unknown[] } };

/** Opens the file with changed metadata. */
async function changed(change: (contents: Contents) => unknown): Promise<string> {
  const file = await readSafetensors(path());
  const tensors: TensorToWrite[] = [];
  for (const { name, dtype, shape } of file.tensors.values())
    tensors.push({ name, dtype, shape, data: await file.read(name, dtype) });
  const contents: Contents = JSON.parse(file.metadata.get('insula')!);
  await file.close();
  change(contents);
  const target = join(folder, 'changed.safetensors');
  await writeSafetensors(target, tensors, { metadata: { insula: JSON.stringify(contents) } });
  return target;
}

test.each<[string, (contents: Contents) => unknown, RegExp]>([
  [
    'a newer format',
    (own) => (own.format = 'insula vision-language model 2'),
    /format "insula vision-language model 2"; this/,
  ],
  [
    'another format',
    (own) => (own.format = 4),
    /: a checkpoint of insula train or pretrain, not a vision-language model: name one .*$/,
  ],
  ['no format', (own) => delete own.format, /its format is null$/],
  [
    'a wrong field',
    (own) => (own.configuration.depth = 'two'),
    /damaged: .*metadata: "configuration\.depth": expected/,
  ],
  ['a missing block', (own) => own.configuration.blocks.pop(), /damaged: the .*metadata: "configuration": /],
  ['other sizes', (own) => (own.configuration.depth = 3), /tensor ".*" is not in the file/],
  ['another encoding', (own) => Object.assign(own.encoding, { locations: false }), /"encoding": a vocabulary of/],
  ['action tokens', (own) => Object.assign(own.encoding, { actions: {} }), /"encoding": /],
  ['two cameras', (own) => Object.assign(own.encoding, { cameras: ['a', 'b'] }), /"encoding": cameras has 2 names/],
])('%s is refused in one line', async (_, change, message) => {
  const error = await openVisionLanguageModel(await changed(change)).catch((error: Error) => error);
  expect(String(error)).toMatch(message);
  expect(String(error)).not.toMatch(/\n/);
});

test('other files are refused in one line', async () => {
  const cut = join(folder, 'cut.safetensors');
  await writeFile(cut, (await readFile(path())).subarray(0, -10));
  await expect(openVisionLanguageModel(cut)).rejects.toThrow(/cut\.safetensors: tensor ".*" is cut off/);
  await expect(openCheckpoint(path())).rejects.toThrow(/seeing\.safetensors: a vision-language model, which answers/);
  const policy = join(folder, 'policy.safetensors');
  const run = await trainRun(policy, { steps: 1 });
  run.policy.model.dispose();
  await expect(openVisionLanguageModel(policy)).rejects.toThrow(
    /: a checkpoint of insula train or pretrain, not a vision-language model: /,
  );
});
