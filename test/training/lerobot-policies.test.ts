import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { backward, readSafetensors, type SafetensorsFile } from '../../engine/index.ts';
import { type TrainingBatch, tensorsOf } from '../../model/architecture/inputs.ts';
import type { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { act } from '../../model/policy/acting.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { writeLeRobotPolicy } from '../../model/training/lerobot-policy.ts';
import { openPublicPolicy } from '../../model/training/public-policy.ts';
import { openPublicStart } from '../../model/training/start.ts';
import { defaultTokenizerJson } from '../../tokenizers/index.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose, relativeError } from '../support/numbers.ts';

// INSULA_LEROBOT names a Python with LeRobot (pip install "lerobot[pi]"), which judges what is written and read here.
const python = process.env.INSULA_LEROBOT;
const program = fileURLToPath(new URL('lerobot-policies.py', import.meta.url));
const run = (...args: string[]) =>
  promisify(execFile)(python!, [program, ...args], { env: { ...process.env, HF_HUB_OFFLINE: '1' } });

/** Tolerances of f32 sums in another order: forward, and backward through two layers. */
const [FORWARD, BACKWARD] = [2e-5, 1e-4];

type Read = (name: string) => Promise<Float32Array>;
const reader = (file: SafetensorsFile): Read => {
  return async (name) => {
    const { dtype } = file.entry(name);
    return dtype === 'I32' ? Float32Array.from(await file.read(name, dtype)) : file.readFinite(name);
  };
};

async function batchOf(read: Read): Promise<TrainingBatch> {
  return {
    batch: 2,
    images: await read('images'),
    cameraValid: await read('cameraValid'),
    ids: { language: { ids: await read('ids'), valid: await read('valid') } },
    numbers: { state: await read('state') },
    actions: await read('actions'),
    noise: await read('noise'),
    time: await read('time'),
    actionValid: null,
    realDimensions: Uint8Array.from({ length: 8 }, (_, i) => (i < 7 ? 1 : 0)),
    lossTarget: null,
    lossMask: null,
  };
}

/** Compares a model with what LeRobot made of the same inputs: residual streams, velocity, loss, every gradient, and actions. */
async function compare(model: Model, file: SafetensorsFile) {
  const read = reader(file);
  const batch = await batchOf(read);
  const pass = model.device.step(() => {
    const made = trainingPass(model, tensorsOf(model.device, trainingInputs(model.architecture, batch)), {
      allRows: true,
    });
    backward(made.loss);
    return made;
  });
  const language = Array.from(await read('valid'));
  const cameras = Array.from(await read('cameraValid'));
  const valid = [0, 1].flatMap((sample) => [
    ...cameras.slice(2 * sample, 2 * sample + 2).flatMap((own) => Array<number>(4).fill(own)),
    ...language.slice(40 * sample, 40 * sample + 40),
  ]);
  for (let layer = 0; layer < 2; layer++)
    for (const expert of ['backbone', 'expert']) {
      const theirs = await read(`residual/${layer}/${expert}`);
      const ours = (await pass.residuals[layer + 1][expert].read()) as Float32Array;
      const width = expert === 'backbone' ? 64 : 32;
      const real = (_: number, i: number) => expert === 'expert' || valid[Math.floor(i / width)] === 1;
      expectClose(ours.filter(real), theirs.filter(real), FORWARD, `residual ${layer} of ${expert}`);
    }
  const { loss, velocity } = pass.objectives.flow;
  expectClose((await velocity!.read()) as Float32Array, await read('velocity'), FORWARD, 'velocity');
  expectClose((await loss.read()) as Float32Array, await read('loss'), FORWARD, 'loss');
  let compared = 0;
  // The softmax does not depend on a bias of all keys, so that its gradient is zero but for rounding.
  const vanishes = (name: string) => name.includes('vision_tower') && name.endsWith('k_proj.bias');
  for (const { name, grad, size } of model.parameters) {
    const stored = `gradient/model.${name}`;
    const own = grad ? ((await grad.read()) as Float32Array) : new Float32Array(size);
    if (!file.has(stored)) expect(relativeError(own, new Float32Array(size)), name).toBe(0);
    else if (vanishes(name)) expect(relativeError(own, new Float32Array(size)), name).toBeLessThan(1e-5);
    else expectClose(own, await read(stored), BACKWARD, `gradient of ${name}`);
    compared += file.has(stored) ? 1 : 0;
  }
  expect(compared).toBeGreaterThan([...model.parameters].length - 12);
  const sampled = await act(model, batch, { noise: (await read('noise')) as Float32Array, steps: 4 });
  expectClose(sampled!, await read('sampled'), FORWARD, 'sampled actions');
}

describe.skipIf(!python)(
  `LeRobot itself as the judge of policies${python ? '' : ' (skipped: INSULA_LEROBOT names no Python)'}`,
  () => {
    let folder: string;
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'insula-policies-'));
      await mkdir(join(folder, 'tokenizer'));
      const json = {
        ...defaultTokenizerJson(),
        post_processor: {
          type: 'TemplateProcessing',
          single: [{ SpecialToken: { id: '<bos>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
          pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
          special_tokens: { '<bos>': { id: '<bos>', ids: [2], tokens: ['<bos>'] } },
        },
      };
      const config = { tokenizer_class: 'PreTrainedTokenizerFast', bos_token: '<bos>', pad_token: '<pad>' };
      await writeFile(join(folder, 'tokenizer/tokenizer.json'), JSON.stringify(json));
      await writeFile(join(folder, 'tokenizer/tokenizer_config.json'), JSON.stringify(config));
    });
    afterAll(() => rm(folder, { recursive: true }));

    test('a run can begin from the PaliGemma that transformers writes', { timeout: 300_000 }, async () => {
      const path = join(folder, 'base');
      await run('base', path);
      expect((await readdir(path)).filter((name) => name.endsWith('.safetensors')).length).toBeGreaterThan(1);
      const start = await openPublicStart(path, { textTokenizer: join(folder, 'tokenizer') });
      expect(start.configuration).toMatchObject({ vocabulary: 800, depth: 2, heads: 8, vision: { imageHeight: 28 } });
      expect((await start.read([...start.shapes.keys()][0])).length).toBeGreaterThan(0);
      await start.close();
    });

    test.each(['pi0', 'pi05'])('%s goes from LeRobot to here and back', { timeout: 300_000 }, async (kind) => {
      const [theirs, ours] = [join(folder, kind), join(folder, `${kind}-back`)];
      const tokenizer = join(folder, 'tokenizer');
      await run('write', kind, theirs, tokenizer);
      const policy = await openPublicPolicy(theirs, { rate: 10, textTokenizer: tokenizer });
      const reference = await readSafetensors(join(theirs, 'reference.safetensors'));
      using model = await policy.loadModel(await testDevice('normal'));
      await compare(model, reference);

      const encoding = new Encoding(policy.settings.encoding);
      const read = reader(reference);
      const raw = { state: [0.4, 2.0, 3.1, 1.7, 2.2], instruction: 'put the red cube in the blue bin', images: {} };
      const seen = encoding.observe([raw], policy.settings.configuration);
      const ids = { ids: Float32Array.from(seen.ids.language.ids), valid: Float32Array.from(seen.ids.language.valid) };
      expect(ids).toEqual({ ids: await read('processed/ids'), valid: await read('processed/valid') });
      if (kind === 'pi0')
        expectClose(seen.numbers!.state.slice(0, 5), await read('processed/state'), 1e-6, 'normalised state');
      const chunk = Float32Array.from({ length: 48 }, (_, i) =>
        i % 8 === 7 ? 0 : -1.2 + (2.4 / 41) * (Math.floor(i / 8) * 7 + (i % 8)),
      );
      const actions = encoding.denormaliseActions(chunk, { state: raw.state });
      expectClose(actions, await read('processed/actions'), 1e-6, 'actions in the units of the robot');

      await writeLeRobotPolicy(ours, model, policy.settings, true);
      const back = join(folder, `${kind}-back.safetensors`);
      await run('read', kind, ours, join(theirs, 'reference.safetensors'), back);
      const again = await readSafetensors(back);
      for (const [name, { dtype }] of again.tensors) {
        const [own, other] = [await reader(again)(name), await read(name)];
        // The rounding of statistics to f32 moves no id, and actions by an ULP.
        if (dtype === 'I32') expect(own, name).toEqual(other);
        else expectClose(own, other, name.startsWith('processed/') ? 1e-6 : 0, name);
      }
      await again.close();
      await reference.close();
      await policy.close();
    });
  },
);
