import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { writeSafetensors } from '../../engine/files/safetensors-writer.ts';
import { backward, readSafetensors } from '../../engine/index.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { writePaliGemma } from '../../model/training/paligemma-folder.ts';
import { presetNamed } from '../../model/training/presets.ts';
import { openPublicStart, openStart } from '../../model/training/start.ts';
import { targetTokens } from '../../model/training/targets.ts';
import type { VisionLanguageFile } from '../../model/training/vision-language-file.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose, normals } from '../support/numbers.ts';

// INSULA_LEROBOT names a Python with transformers, which judges the folder.
const python = process.env.INSULA_LEROBOT;
const ROOT = 'paligemma_with_expert.paligemma.';

let folder: string;
let file: VisionLanguageFile;
let model: Model;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-paligemma-'));
  file = await openStart('tiny');
  model = await file.loadModel(await testDevice('normal'));
  await writePaliGemma(folder, model, file.encoding);
});
afterAll(async () => {
  model.dispose();
  await file.close();
  await rm(folder, { recursive: true });
});

test('a run begins from the folder as from the model itself', async () => {
  const start = await openPublicStart(folder, {});
  const { depth, heads, kvHeads, headDimension, vocabulary, experts, vision } = file.configuration;
  expect(start.configuration).toMatchObject({ depth, heads, kvHeads, headDimension, vocabulary, experts });
  expect(start.configuration.vision).toMatchObject(vision!);
  expect([...start.shapes.keys()].sort()).toEqual([...file.shapes.keys()].sort());
  for (const name of file.shapes.keys()) expectClose(await start.read(name), await file.read(name), 0, name);
  await start.close();
});

test('places and the picture have tokens behind those of the text', async () => {
  const { added_tokens: added } = JSON.parse(await readFile(join(folder, 'tokenizer.json'), 'utf8'));
  const idOf = (content: string) => added.find((token: { content: string }) => token.content === content)?.id;
  const { vocabularySize } = new Encoding(file.encoding).text;
  expect([idOf('<loc0000>'), idOf('<loc1023>')]).toEqual([vocabularySize, vocabularySize + 1023]);
  const { image_token_index: image } = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
  expect([idOf('<image>'), image]).toEqual([file.configuration.vocabulary, file.configuration.vocabulary]);
});

test('another model is refused, and nothing is written', async () => {
  const { vision, ...preset } = presetNamed('nano');
  const own = configurationOf(systemNamed('openvla'), {
    ...{ ...preset, vocabulary: 800, promptTokens: 8, targetTokens: 4, horizon: 1, actionDimension: 4 },
    vision: { ...vision, imageHeight: vision.image, imageWidth: vision.image, cameras: 1 },
    stateDimension: 0,
  });
  using other = new Model(await testDevice('normal'), own);
  const elsewhere = join(folder, 'refused');
  const refused = writePaliGemma(elsewhere, other, file.encoding);
  await expect(refused).rejects.toThrow('PaliGemma is another model: this one has 2 vision towers');
  await expect(readFile(elsewhere)).rejects.toThrow('ENOENT');
});

test.skipIf(!python)(
  `transformers has the same loss and gradients${python ? '' : ' (skipped: INSULA_LEROBOT names no Python)'}`,
  { timeout: 300_000 },
  async () => {
    const { configuration } = file;
    const encoding = new Encoding(file.encoding);
    const image = normals(64 * 64 * 3, 3);
    const asked = { instruction: 'point to the red cube', state: null, request: 'answer' as const };
    const observation = encoding.observe([{ ...asked, images: {} }], configuration);
    const answer = [700, 1300].map((place) => encoding.text.vocabularySize + (place % 1024));
    const target = { block: configuration.blocks[2], examples: [{ ids: answer }] };
    const tokens = targetTokens(configuration, encoding.endOfSequence, observation, [target]);
    const batch = {
      ...observation,
      images: image,
      cameraValid: [1],
      ...tokens,
      actions: null,
      noise: null,
      time: null,
      actionValid: null,
    };
    const pass = model.device.step(() => {
      const inputs = trainingInputs(model.architecture, { ...batch, realDimensions: null });
      const made = trainingPass(model, tensorsOf(model.device, inputs));
      backward(made.loss);
      return made;
    });
    const inputs = join(folder, 'inputs.safetensors');
    const ids = [encoding.promptIds(asked), Int32Array.from([...answer, encoding.endOfSequence])];
    await writeSafetensors(inputs, [
      { name: 'image', dtype: 'F32', shape: [64, 64, 3], data: image },
      { name: 'prompt', dtype: 'I32', shape: [ids[0].length], data: ids[0] },
      { name: 'answer', dtype: 'I32', shape: [ids[1].length], data: ids[1] },
    ]);
    const out = join(folder, 'out.safetensors');
    const program = fileURLToPath(new URL('paligemma-folder.py', import.meta.url));
    const env = { ...process.env, HF_HUB_OFFLINE: '1' };
    const { stdout } = await promisify(execFile)(python!, [program, folder, inputs, out], { env });
    expect(stdout.trim()).toBe('<loc0700><loc0276><eos>');
    const theirs = await readSafetensors(out);
    expectClose((await pass.loss.read()) as Float32Array, await theirs.readFinite('loss'), 2e-5, 'loss');
    for (const { name, grad } of model.parameters) {
      const stored = `gradient/${name.slice(ROOT.length)}`;
      // The softmax does not depend on a bias of all keys, so that its gradient is zero but for rounding.
      if (name.includes('vision_tower') && name.endsWith('k_proj.bias')) continue;
      expectClose((await grad!.read()) as Float32Array, await theirs.readFinite(stored), 1e-4, name);
    }
    await theirs.close();
  },
);
