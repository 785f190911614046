/** Runs with low-rank adaptation: what lies in which file, how they go on, and how their parts become one again. */
import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { convert } from '../../cli/convert.ts';
import { readSafetensors, type TensorToWrite, writeSafetensors } from '../../engine/index.ts';
import { Architecture } from '../../model/architecture/model.ts';
import { evaluationSamples, wholeEpisodes } from '../../model/data/index.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { Policy } from '../../model/policy/policy.ts';
import { observationAt } from '../../model/training/batches.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { memoryPlan } from '../../model/training/memory-plan.ts';
import { recommendedSettings } from '../../model/training/recommended.ts';
import { openVisionLanguageModel } from '../../model/training/vision-language-file.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose } from '../support/numbers.ts';
import { runCommand } from '../support/run-command.ts';
import { minutePreset, quietListener, syntheticDataset } from '../support/synthetic-dataset.ts';
import { type TestRun, trainRun } from '../support/train-run.ts';
import { writeSeeing } from '../support/vision-language.ts';

const RUN: TestRun = { system: 'knowledge-insulation', lora: 2, ema: 0.5 };
let folder = '';
const at = (...parts: string[]) => join(folder, ...parts);
const WHOLE = 'whole/checkpoint.safetensors';
let base = '';

/** Trains into a folder of its own, and frees the model. */
async function train(path: string, options: TestRun = {}) {
  await mkdir(dirname(path), { recursive: true });
  const result = await trainRun(path, { ...RUN, ...options });
  result.policy.model.dispose();
  return result;
}

const namesIn = async (path: string) => {
  const file = await readSafetensors(path);
  const names = [...file.tensors.keys()];
  await file.close();
  return names.sort();
};

/** Another copy of the whole run, whose files a test may change. */
async function copied(name: string): Promise<string> {
  await mkdir(at(name));
  for (const file of ['checkpoint.safetensors', base]) await copyFile(at('whole', file), at(name, file));
  return at(name, 'checkpoint.safetensors');
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-lora-'));
  await train(at(WHOLE), { preset: { ...minutePreset, saveEvery: 2 } });
  base = (await readdir(at('whole'))).find((name) => /^base-[0-9a-f]{8}\.safetensors$/.test(name))!;
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test('the frozen weights are in a file of their own, the trained ones with their moments in the checkpoint', async () => {
  const checkpoint = await openCheckpoint(at(WHOLE));
  const { configuration } = checkpoint.settings;
  await checkpoint.close();
  expect(configuration.lora).toEqual({ rank: 2, experts: ['backbone', 'expert'] });
  const { parameters } = new Architecture(configuration);
  const names = (frozen: boolean) =>
    parameters.filter((own) => (own.frozen ?? false) === frozen).map(({ name }) => name);
  expect(await namesIn(at('whole', base))).toEqual(names(true).sort());
  const kinds = ['firstMoment', 'secondMoment', 'trainingWeight'].map((kind) => `optimizer/${kind}/`);
  const kept = names(false).flatMap((name) => ['', ...kinds].map((prefix) => prefix + name));
  expect(await namesIn(at(WHOLE))).toEqual(kept.sort());
});

test('interrupted and resumed it has the same bits, and its base is written once', async () => {
  const abort = new AbortController();
  const listener = quietListener({ step: (step) => step === 3 && abort.abort() });
  const path = at('part/checkpoint.safetensors');
  await train(path, { preset: { ...minutePreset, saveEvery: 2 }, signal: abort.signal, listener });
  const bytes = await readFile(at('part', base));
  expect(bytes).toEqual(await readFile(at('whole', base)));
  const resume = await openCheckpoint(path);
  // What lies on the disk now would be replaced if it were written again.
  await rm(at('part', base));
  const notes: string[] = [];
  const resumed = quietListener({ note: (line) => notes.push(line) });
  await train(path, { preset: { ...minutePreset, saveEvery: 2 }, resume, listener: resumed });
  expect(notes.join('\n')).toMatch(
    /low-rank adaptation of backbone and expert, rank 2: \d+ of \d+ parameters are trained/,
  );
  expect(existsSync(at('part', base))).toBe(false);
  await writeFile(at('part', base), bytes);
  const [one, other] = await Promise.all([at(WHOLE), path].map(openCheckpoint));
  const device = await testDevice('normal');
  using model = await one.loadModel(device);
  using continued = await other.loadModel(device);
  await Promise.all([one.close(), other.close()]);
  for (const { name } of model.parameters)
    expect(await continued.parameters.get(name).read(), name).toEqual(await model.parameters.get(name).read());
});

describe('a base that is not that of its checkpoint', () => {
  test('is missed, with what to do', async () => {
    const path = await copied('missing');
    await rm(at('missing', base));
    await expect(openCheckpoint(path)).rejects.toThrow(
      `${path} needs ${base} beside it, which is missing: copy both, or write one file with insula convert --checkpoint`,
    );
  });

  test('is refused by its checksum', async () => {
    const path = await copied('changed');
    const bytes = await readFile(at('changed', base));
    bytes[bytes.length - 1] ^= 1;
    await writeFile(at('changed', base), bytes);
    await expect(openCheckpoint(path)).rejects.toThrow(
      `${path} needs ${base} beside it, which has another checksum: copy both, or write one file with insula convert --checkpoint`,
    );
  });

  test('is no checkpoint itself', async () => {
    const what = `${base}: the frozen weights of a run with --lora`;
    await expect(openCheckpoint(at('whole', base))).rejects.toThrow(`${what}: name the checkpoint beside it`);
    await expect(openVisionLanguageModel(at('whole', base))).rejects.toThrow(`${what}, not a vision-language model:`);
  });

  test('goes once another run has its first checkpoint there, and no other file does', async () => {
    const path = await copied('replaced');
    await writeSafetensors(at('replaced/base-00000000.safetensors'), []);
    const left = () => readdir(at('replaced'));
    await train(path, { seed: 1, steps: 0 });
    const own = (await left()).find((name) => name.startsWith('base-') && !name.startsWith('base-0000'))!;
    expect(own).not.toBe(base);
    expect(await left()).toEqual(['base-00000000.safetensors', own, 'checkpoint.safetensors'].sort());
    await (await openCheckpoint(path)).close();
    await train(path, { lora: null, gates: null, steps: 0 });
    expect(await left()).toEqual(['base-00000000.safetensors', 'checkpoint.safetensors']);
  });
});

test('insula convert: one file that acts as the run does, without its parts', async () => {
  const out = at('merged.safetensors');
  const { json, lines } = await runCommand(convert, { checkpoint: at(WHOLE), out });
  expect(json).toMatchObject({ file: out, step: 6, merged: { rank: 2 } });
  expect(lines).toEqual([
    `${out}: for acting alone, of ${at(WHOLE)} at step 6, low-rank matrices (rank 2) merged into backbone and expert`,
  ]);
  const device = await testDevice('normal');
  const samples = evaluationSamples(wholeEpisodes(syntheticDataset().episodes), 3);
  const acted = await Promise.all(
    [at(WHOLE), out].map(async (path) => {
      const checkpoint = await openCheckpoint(path);
      using model = await checkpoint.loadModel(device);
      await checkpoint.close();
      const { settings } = checkpoint;
      const policy = new Policy(model, new Encoding(settings.encoding));
      const observations = await Promise.all(samples.map((sample) => observationAt(sample, ['front'])));
      const chunks = await policy.act(observations, { seed: 4 });
      return { settings, chunks, adapters: model.architecture.parameters.filter(({ adapter }) => adapter).length };
    }),
  );
  const [apart, whole] = acted;
  expect(apart.adapters).toBeGreaterThan(0);
  expect(whole.adapters).toBe(0);
  expect(whole.settings.configuration).not.toHaveProperty('lora');
  for (const [i, chunk] of whole.chunks.entries()) expectClose(chunk, apart.chunks[i], 1e-5, `chunk ${i}`);
  await expect(runCommand(convert, { checkpoint: at(WHOLE), out })).rejects.toThrow(
    `--out ${out}: a file of this name is there; choose another`,
  );
  const resume = await openCheckpoint(out);
  await expect(train(at('resumed/checkpoint.safetensors'), { resume, steps: 8 })).rejects.toThrow(
    /exported for acting, without the optimizer's moments: it cannot be resumed$/,
  );
});

describe('a run from a vision-language model', () => {
  const device = () => testDevice('normal');

  test('keeps its transformer, and says what is trained and what stays random', async () => {
    await writeSeeing(at('seeing.safetensors'), await device());
    const from = await openVisionLanguageModel(at('seeing.safetensors'));
    const notes: string[] = [];
    const listener = quietListener({ note: (line) => notes.push(line) });
    const path = at('begun/checkpoint.safetensors');
    await train(path, { from, loraAlpha: 4, precision: 'bf16', listener });
    const checkpoint = await openCheckpoint(path);
    using model = await checkpoint.loadModel(await device());
    await checkpoint.close();
    const { parameters } = model.architecture;
    const sizes = (own: typeof parameters) => own.reduce((sum, { name }) => sum + model.parameters.get(name).size, 0);
    const counts = [parameters.filter(({ frozen }) => !frozen), parameters].map(sizes);
    expect(notes).toContain(
      `low-rank adaptation of backbone, rank 2: ${counts[0]} of ${counts[1]} parameters are trained`,
    );
    expect(notes.filter((line) => line.startsWith('warning'))).toEqual([
      expect.stringMatching(/^warning: the embeddings of \d+ new tokens keep random values, because they are frozen$/),
    ]);
    expect(notes.join('\n')).toMatch(/anew begin .*expert \(\d+\), low-rank matrices of backbone \(\d+\)/);
    const matrix = parameters.find(({ name, group }) => group === 'backbone' && name.includes('q_proj'))!.name;
    const theirs = await from.read(matrix);
    await from.close();
    expectClose((await model.parameters.get(matrix).read()) as Float32Array, theirs, 4e-3, matrix);
    const settings = checkpoint.settings.run;
    const plan = await memoryPlan(await device(), checkpoint.settings.configuration, settings);
    expect(plan.trained).toBe(counts[0]);
    expect(plan.parameters).toBe(counts[1]);
    expect(plan.gradients).toBeLessThan(plan.weights);
  });

  test('an expert that the file lacks is warned about', async () => {
    const from = await openVisionLanguageModel(at('seeing.safetensors'));
    const notes: string[] = [];
    await train(at('both/checkpoint.safetensors'), {
      ...{
        from,
        loraOn: ['backbone', 'expert'],
        steps: 0,
        listener: quietListener({ note: (line) => notes.push(line) }),
      },
    });
    await from.close();
    expect(notes.filter((line) => /random weights|whole/.test(line))).toEqual([
      expect.stringMatching(
        /^warning: expert keeps random weights, because .*seeing\.safetensors has none for it; --lora-on backbone trains expert whole$/,
      ),
    ]);
  });

  test('a number that is none in what would be kept is refused, with its tensor', async () => {
    const file = await readSafetensors(at('seeing.safetensors'));
    const tensors: TensorToWrite[] = [];
    for (const { name, dtype, shape } of file.tensors.values())
      tensors.push({ name, dtype, shape, data: await file.read(name, dtype) });
    const { metadata } = file;
    await file.close();
    const damaged = tensors.find(({ name }) => name.includes('layers.0.mlp.up_proj'))!;
    (damaged.data as Uint16Array)[7] = 0x7e00;
    await writeSafetensors(at('nan.safetensors'), tensors, { metadata: Object.fromEntries(metadata) });
    const from = await openVisionLanguageModel(at('nan.safetensors'));
    await expect(train(at('nan/checkpoint.safetensors'), { from })).rejects.toThrow(
      /nan\.safetensors: damaged: tensor ".*layers\.0\.mlp\.up_proj\.weight" holds NaN at element 7$/,
    );
    await from.close();
  });
});

test('adapters of the backbone learn at the full rate', () => {
  expect(recommendedSettings({ lora: 4 }).rates).toEqual({ vision: 0.1 });
  expect(recommendedSettings({ lora: 4, loraOn: ['expert'] }).rates).toEqual({ vision: 0.1, backbone: 0.2 });
});
