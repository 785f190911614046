import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { backward, readSafetensors, type SafetensorsFile, type Tensor } from '../../engine/index.ts';
import { padIds, type TrainingBatch, tensorsOf } from '../../model/architecture/inputs.ts';
import type { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { act } from '../../model/policy/acting.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { Policy } from '../../model/policy/policy.ts';
import { writePublished } from '../../model/policy/tokenizer-file.ts';
import { writeLeRobotPolicy } from '../../model/training/lerobot-policy.ts';
import { openPublicPolicy } from '../../model/training/public-policy.ts';
import { openPublicStart } from '../../model/training/start.ts';
import { defaultTokenizerJson, FastTokenizer, TextTokenizer } from '../../tokenizers/index.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose, normals, relativeError } from '../support/numbers.ts';

// INSULA_LEROBOT names a Python with LeRobot (pip install "lerobot[pi]"), which judges what is written and read here.
const python = process.env.INSULA_LEROBOT;
const program = fileURLToPath(new URL('lerobot-policies.py', import.meta.url));
const run = (...args: string[]) =>
  promisify(execFile)(python!, [program, ...args], { env: { ...process.env, HF_HUB_OFFLINE: '1' } });

/** Tolerances of f32 sums in another order: forward, and backward through two layers. */
const [FORWARD, BACKWARD] = [2e-5, 1e-4];

const text = TextTokenizer.default();
const INSTRUCTION = 'put the Red cube in the blue bin';

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

/** `ours` and `theirs` mark the real rows of the backbone. */
async function compareResiduals(
  residuals: readonly Readonly<Record<string, Tensor>>[],
  read: Read,
  ours: readonly number[],
  theirs = ours,
): Promise<void> {
  for (const [layer, experts] of residuals.slice(1).entries())
    for (const expert of Object.keys(experts)) {
      const width = expert === 'backbone' ? 64 : 32;
      const real = (numbers: Float32Array, valid: readonly number[]) =>
        numbers.filter((_, i) => expert === 'expert' || valid[Math.floor(i / width)] === 1);
      const own = real((await experts[expert].read()) as Float32Array, ours);
      const other = real(await read(`residual/${layer}/${expert}`), theirs);
      expectClose(own, other, FORWARD, `residual ${layer} of ${expert}`);
    }
}

async function compareGradients(model: Model, file: SafetensorsFile): Promise<void> {
  const read = reader(file);
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
  await compareResiduals(pass.residuals, read, valid);
  const { loss, velocity } = pass.objectives.flow;
  expectClose((await velocity!.read()) as Float32Array, await read('velocity'), FORWARD, 'velocity');
  expectClose((await loss.read()) as Float32Array, await read('loss'), FORWARD, 'loss');
  await compareGradients(model, file);
  const sampled = await act(model, batch, { noise: (await read('noise')) as Float32Array, steps: 4 });
  expectClose(sampled!, await read('sampled'), FORWARD, 'sampled actions');
}

/** As `compare`, for pi0-FAST: residual streams, loss and every gradient of given action ids, and those that greedy decoding chooses. */
async function compareFast(model: Model, file: SafetensorsFile, end: number) {
  const read = reader(file);
  const flow = await batchOf(read);
  const { blocks } = model.configuration;
  const [image, language, target] = blocks.map(({ length }) => length);
  /** Behind LeRobot's 40 tokens of the prompt is room for the begin of sequence, which is among the targets in its training. */
  const prompt = async (last: readonly number[]) => {
    const [given, real] = [await read('ids'), await read('valid')];
    const rows = [0, 1].map((sample) => {
      const own = Array.from(given.slice(40 * sample, 40 * sample + 40));
      return [...own.filter((_, i) => real[40 * sample + i] === 1), ...last];
    });
    return padIds(rows, language);
  };
  const ids = { ids: Int32Array.from(await read('target')), valid: Uint8Array.from(await read('targetValid')) };
  const rows = image + language + target;
  const [lossTarget, lossMask] = [new Int32Array(2 * rows), new Uint8Array(2 * rows)];
  for (const sample of [0, 1])
    for (let i = 1; i < target; i++) {
      const row = sample * rows + image + language + i - 1;
      lossTarget[row] = ids.ids[sample * target + i];
      lossMask[row] = ids.valid[sample * target + i];
    }
  const cameras = Array.from(await read('cameraValid'));
  const given = await prompt([]);
  const batch: TrainingBatch = { ...flow, ids: { language: given, target: ids }, numbers: {}, lossTarget, lossMask };
  const pass = model.device.step(() => {
    const inputs = tensorsOf(model.device, trainingInputs(model.architecture, batch));
    const made = trainingPass(model, inputs, { allRows: true });
    backward(made.loss);
    return made;
  });
  // LeRobot has no row for the begin of sequence behind the prompt.
  const real = (missing: number[]) =>
    [0, 1].flatMap((sample) => [
      ...cameras.slice(2 * sample, 2 * sample + 2).flatMap((seen) => Array<number>(4).fill(seen)),
      ...given.valid.slice(language * sample, language * sample + 40),
      ...missing,
      ...ids.valid.slice(target * sample, target * (sample + 1)),
    ]);
  await compareResiduals(pass.residuals, read, real([0]), real([]));
  expectClose((await pass.objectives.token.loss.read()) as Float32Array, await read('loss'), FORWARD, 'loss');
  await compareGradients(model, file);

  const said: number[][] = [[], []];
  const begun = await prompt([2]);
  await act(
    model,
    { ...batch, ids: { language: begun } },
    {
      writer: { allowed: () => 'all', write: (sample, id) => said[sample].push(id) > 0 && id !== end },
    },
  );
  const greedy = Array.from(await read('greedy'));
  for (const sample of [0, 1]) {
    const theirs = greedy.slice(sample * target, (sample + 1) * target);
    const last = theirs.indexOf(end);
    expect(said[sample]).toEqual(last < 0 ? theirs : theirs.slice(0, last + 1));
  }
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
      const config = {
        tokenizer_class: 'PreTrainedTokenizerFast',
        bos_token: '<bos>',
        eos_token: '<eos>',
        pad_token: '<pad>',
      };
      await writeFile(join(folder, 'tokenizer/tokenizer.json'), JSON.stringify(json));
      await writeFile(join(folder, 'tokenizer/tokenizer_config.json'), JSON.stringify(config));
      const chunks = Array.from({ length: 8 }, (_, i) => ({ data: normals(42, 50 + i, 2), horizon: 6, dimension: 7 }));
      const fitting = { vocabularySize: 350, scale: 4, covers: 8, format: 'published' } as const;
      await writePublished(join(folder, 'fast'), FastTokenizer.fit(chunks, fitting));
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

    test('a run can begin from the SigLIP that transformers writes, whole or its tower', {
      timeout: 300_000,
    }, async () => {
      const path = join(folder, 'siglip');
      await run('siglip', path);
      for (const own of [path, `${path}-vision`]) {
        const start = await openPublicStart(own, {});
        expect(start.preset.vision).toEqual({ width: 32, depth: 2, heads: 2, hidden: 80, patch: 14, image: 28 });
        expect([...start.shapes.keys()].every((name) => name.includes('vision_tower'))).toBe(true);
        await start.close();
      }
    });

    test.each(['pi0', 'pi05', 'pi0_fast'])(
      '%s goes from LeRobot to here and back',
      { timeout: 300_000 },
      async (kind) => {
        const [theirs, ours] = [join(folder, kind), join(folder, `${kind}-back`)];
        const tokenizer = join(folder, 'tokenizer');
        const isFast = kind === 'pi0_fast';
        const options = { rate: 10, textTokenizer: tokenizer, ...(isFast && { tokenizer: join(folder, 'fast') }) };
        await run('write', kind, theirs, tokenizer, ...(isFast ? [join(folder, 'fast')] : []));
        const policy = await openPublicPolicy(theirs, options);
        const reference = await readSafetensors(join(theirs, 'reference.safetensors'));
        using model = await policy.loadModel(await testDevice('normal'));
        if (isFast) await compareFast(model, reference, text.encode('|')[0]);
        else await compare(model, reference);

        const encoding = new Encoding(policy.settings.encoding);
        const read = reader(reference);
        const raw = { state: [0.4, 2.0, 3.1, 1.7, 2.2], instruction: INSTRUCTION, images: {} };
        const seen = encoding.observe([raw], policy.settings.configuration);
        const realOf = (ids: ArrayLike<number>, valid: ArrayLike<number>) => Array.from(ids).filter((_, i) => valid[i]);
        const [ids, theirIds] = [
          realOf(seen.ids.language.ids, seen.ids.language.valid),
          realOf(await read('processed/ids'), await read('processed/valid')),
        ];
        expect(ids).toEqual(isFast ? [...theirIds, text.special.bos] : theirIds);
        if (kind === 'pi0')
          expectClose(seen.numbers!.state.slice(0, 5), await read('processed/state'), 1e-6, 'normalised state');
        const width = isFast ? 7 : 8;
        const chunk = Float32Array.from({ length: 6 * width }, (_, i) =>
          i % width === 7 ? 0 : -1.2 + (2.4 / 41) * (Math.floor(i / width) * 7 + (i % width)),
        );
        const actions = encoding.denormaliseActions(chunk, { state: raw.state });
        expectClose(actions, await read('processed/actions'), 1e-6, 'actions in the units of the robot');
        if (isFast) {
          const demonstrated = Float32Array.from({ length: 42 }, (_, i) => Math.sin(i / 5));
          const tokens = encoding.actionTokens(encoding.normaliseActions(demonstrated, raw), 6);
          expect([text.special.bos, ...tokens, text.special.eos]).toEqual(Array.from(await read('processed/tokens')));
          const black = { width: 28, height: 28, pixels: new Uint8Array(28 * 28 * 3) };
          const complete: boolean[] = [];
          const [acted] = await new Policy(model, encoding).act([{ ...raw, images: { top: black, wrist: black } }], {
            onDecoded: (own) => void complete.push(...own),
          });
          expect(complete).toEqual([true]);
          expectClose(acted, await read('processed/acted'), 1e-5, 'what it does');
          expectClose(acted, demonstrated, 0.2, 'what it learned');
        }

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
      },
    );
  },
);
