import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ParameterSet, tensor, withoutTape } from '../../engine/index.ts';
import { Architecture, Model } from '../../model/architecture/model.ts';
import { mixDatasets } from '../../model/data/index.ts';
import { ownSlotMap } from '../../model/data/slots.ts';
import { Encoding, type EncodingSettings } from '../../model/policy/encoding.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { prepareRun } from '../../model/training/prepare-run.ts';
import { runSettings } from '../../model/training/run-settings.ts';
import { beginFrom, begunModel, openStart, startLines } from '../../model/training/start.ts';
import { openVisionLanguageModel, type VisionLanguageFile } from '../../model/training/vision-language-file.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose, normals } from '../support/numbers.ts';
import { minutePreset, quietListener, syntheticDataset } from '../support/synthetic-dataset.ts';
import { type TestRun, trainRun } from '../support/train-run.ts';
import { seeingEncoding, writeSeeing } from '../support/vision-language.ts';

const column = (low: number, high: number) => ({
  ...{ count: 9, mean: [0, 0], std: [1, 1], min: [low, low], max: [high, high], q01: [low, low], q99: [high, high] },
});
const encoding: EncodingSettings = {
  ...seeingEncoding,
  stateBins: 12,
  statistics: { bound: 5, actions: column(-1, 1), states: column(-7, 9) },
};

let folder = '';
let from: VisionLanguageFile;
const models: Model[] = [];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-start-'));
  await writeSeeing(join(folder, 'seeing.safetensors'), await testDevice('normal'), encoding);
  from = await openStart(join(folder, 'seeing.safetensors'));
});
afterAll(async () => {
  await from.close();
  for (const model of models) model.dispose();
  await rm(folder, { recursive: true, force: true });
});

async function train(file: string, run: TestRun) {
  const lines: string[] = [];
  const listener = quietListener({ note: (line: string) => void lines.push(line.replaceAll(folder, '')) });
  const result = await trainRun(join(folder, file), { from, listener, ...run });
  models.push(result.policy.model);
  return { ...result, notes: lines.filter((line) => line.includes('seeing.safetensors')) };
}

test('a run begins from the values of the file; action tokens and experts begin as from scratch', async () => {
  const begun = await train('begun.safetensors', { system: 'knowledge-insulation', steps: 0 });
  const { policy, notes } = begun;
  expect(notes).toHaveLength(1);
  expect(notes[0]).toMatch(
    /^\/seeing\.safetensors: (\d+) of \d+ tensors begin from it; anew begin expert \(\d+\), \d+ rows of new tokens$/,
  );
  expect(policy.encoding.settings).toMatchObject({ text: encoding.text, locations: true, stateBins: 12 });
  const scratch = await trainRun(join(folder, 'scratch.safetensors'), { system: 'knowledge-insulation', steps: 0 });
  models.push(scratch.policy.model);
  const { vocabulary } = from.configuration;
  let rows = 0;
  for (const parameter of policy.model.parameters) {
    const values = await parameter.read();
    if (!from.shapes.has(parameter.name)) {
      // The streams of initial values go by the parameter's place, which is the same.
      expect(values, parameter.name).toEqual(await scratch.policy.model.parameters.get(parameter.name).read());
      continue;
    }
    const own = await from.read(parameter.name);
    expect(values.subarray(0, own.length), parameter.name).toEqual(own);
    if (values.length === own.length) continue;
    rows += parameter.shape[0] - vocabulary;
    const fresh = values.subarray(own.length);
    expect(fresh.some((value) => value !== 0)).toBe(true);
    expect(new Set(fresh).size).toBeGreaterThan(fresh.length / 2);
  }
  expect(rows).toBe(policy.encoding.vocabularySize - vocabulary);
  expect(rows).toBeGreaterThan(0);
});

test('a token table in pieces of rows begins from it as one that is whole', async () => {
  const device = await testDevice('normal');
  const settings = runSettings({ system: 'knowledge-insulation', preset: minutePreset, from: from.name });
  const options = { dataset: syntheticDataset(), from, listener: quietListener(), settings };
  const { configuration } = await prepareRun(options);
  const whole = await begunModel(device, configuration, 3, from);
  const { parameters } = new Architecture(configuration);
  const pieceBytes = 4 * 64 * configuration.experts.backbone.width;
  const split = new Model(device, configuration, new ParameterSet(device, parameters, { pieceBytes }));
  models.push(whole, split);
  // The last row of the file lies within a piece.
  expect(from.configuration.vocabulary % 64).toBeGreaterThan(0);
  expect(from.configuration.vocabulary).toBeLessThan(
    64 * (split.architecture.tokenHead(split.parameters).pieces.length - 1),
  );
  split.initialise(3);
  await beginFrom(from, split);
  for (const { name } of parameters)
    expect(await split.parameters.get(name).read(), name).toEqual(await whole.parameters.get(name).read());
});

test("the built-in world keeps the file's statistics of the state, other data have their own", async () => {
  const settings = { system: 'pi0', preset: minutePreset, from: from.name };
  const options = { dataset: syntheticDataset(), from, listener: quietListener() };
  const world = await prepareRun({ ...options, settings: runSettings(settings) });
  const { statistics } = world.encoding.settings;
  expect(statistics?.states).toEqual(encoding.statistics!.states);
  expect(statistics?.actions.mean).toHaveLength(3);
  const real = await prepareRun({ ...options, settings: runSettings({ ...settings, data: ['somewhere'] }) });
  expect(real.encoding.settings.statistics?.states).not.toEqual(encoding.statistics!.states);
  expect(real.encoding.settings.statistics?.actions).toEqual(statistics?.actions);
  const blind = { ...options, dataset: syntheticDataset({ states: false }) };
  await expect(prepareRun({ ...blind, settings: runSettings(settings) })).rejects.toThrow(
    /seeing\.safetensors: its state has 2 numbers; that of "synthetic" has 0$/,
  );
});

test('several robots and data without images begin from it too', async () => {
  const dataset = syntheticDataset();
  const mixed = mixDatasets([{ dataset, slots: ownSlotMap(dataset) }]);
  const robots = await train('robots.safetensors', { dataset: mixed, steps: 1, system: 'pi05' });
  expect(robots.policy.encoding.settings.robots).toBeDefined();
  const { notes } = await train('blind.safetensors', { dataset: syntheticDataset({ images: false }), steps: 1 });
  await expect(
    robots.policy.generateText([{ images: {}, state: null, instruction: 'what?', request: 'answer' }]),
  ).rejects.toThrow('this policy predicts no tokens, so it cannot answer questions');
  expect(notes[1]).toMatch(/: this model has no place for .*vision.* and \d+ more$/);
});

test('an interrupted run goes on without the file, and is the same run', async () => {
  const whole = await train('whole.safetensors', { steps: 4 });
  const abort = new AbortController();
  const listener = quietListener({ step: (step: number) => void (step === 2 && abort.abort()) });
  await train('part.safetensors', { steps: 4, signal: abort.signal, listener });
  const resume = await openCheckpoint(join(folder, 'part.safetensors'));
  expect(resume.settings.run.from).toBe(from.name);
  const resumed = await train('part.safetensors', { from: undefined, resume });
  expect(resumed.resumedAt).toBeLessThan(4);
  for (const parameter of whole.policy.model.parameters)
    expect(await resumed.policy.model.parameters.get(parameter.name).read()).toEqual(await parameter.read());
  const again = await openCheckpoint(join(folder, 'part.safetensors'));
  const settings = { ...again.settings.run, from: null };
  const other = prepareRun({ settings, dataset: syntheticDataset(), resume: again, listener: quietListener() });
  await expect(other).rejects.toThrow(/^--from scratch: the run was begun with .*seeing\.safetensors; leave it out/);
  await again.close();
});

test('the backbone of another kind begins anew, and several towers are copies of the only one', async () => {
  const { image, ...vision } = minutePreset.vision;
  const sizes = {
    ...minutePreset,
    vocabulary: new Encoding(encoding).vocabularySize,
    vision: { ...vision, imageHeight: image, imageWidth: image, cameras: 3 },
    ...{ promptTokens: 5, targetTokens: 5, horizon: 2, actionDimension: 3, stateDimension: 2 },
  };
  const lines = (change: object) =>
    startLines(from, new Architecture(configurationOf({ ...systemNamed('pi0-fast'), ...change }, sizes))).map((line) =>
      line.replace(folder, ''),
    );
  const all = from.shapes.size;
  expect(lines({})).toEqual([`/seeing.safetensors: ${all} of ${all} tensors begin from it; anew begin none`]);
  const llama = lines({ backbone: 'llama' });
  expect(llama[0]).toMatch(/; anew begin backbone \(\d+\)$/);
  expect(llama[1]).toMatch(/no place for .* and \d+ more$/);
  expect(lines({ attention: systemNamed('openvla').attention })[1]).toMatch(/: its images and prompt attend otherwise/);
  expect(lines({ towers: ['vision', 'frozen'] })).toEqual([expect.stringMatching(/; anew begin none$/)]);
  const device = await testDevice('normal');
  const images = normals(3 * image * image * 3, 5);
  const seen = async (towers: readonly string[]) => {
    using model = new Model(device, configurationOf({ ...systemNamed('pi0-fast'), towers }, sizes));
    await beginFrom(from, model);
    const run = () => {
      const given = tensor(device, images, [1, 3, image, image, 3]);
      return model.architecture.blockInputs.vision!.run(model.parameters, given).tokens;
    };
    const tokens = withoutTape(device, () => device.step(run));
    const numbers = await tokens.read();
    tokens.dispose();
    return numbers;
  };
  expectClose(await seen(['vision', 'frozen']), await seen(['vision']), 1e-6, 'image tokens of two towers');
});

const { vision } = minutePreset;
test.each<[string, Partial<TestRun>, RegExp]>([
  [
    'depth',
    { preset: { ...minutePreset, depth: 3 } },
    /: depth is 2, and that of preset tiny is 3: give --preset nano$/,
  ],
  ['heads', { preset: { ...minutePreset, heads: 1 } }, /: heads is 2, and that of preset tiny is 1/],
  [
    'a tower of other depth',
    { preset: { ...minutePreset, vision: { ...vision, depth: 2 } } },
    /: depth of the tower is 1, and that of preset tiny is 2/,
  ],
  [
    'other patches',
    { preset: { ...minutePreset, vision: { ...vision, patch: 4 } } },
    /: patch of the tower is 8, and that of preset tiny is 4/,
  ],
  [
    'another width',
    { preset: { ...minutePreset, backbone: { width: 32, hidden: 32 } } },
    /: width of the backbone is 16, and that of preset tiny is 32/,
  ],
])('%s is refused in one line', async (_, run, message) => {
  await expect(train('refused.safetensors', run)).rejects.toThrow(message);
});

test('a start that is not there is refused', async () => {
  const options = { dataset: syntheticDataset(), listener: quietListener() };
  const named = runSettings({ preset: minutePreset, from: 'tiny' });
  await expect(prepareRun({ ...options, settings: named })).rejects.toThrow(/^from tiny: no file is given for it$/);
  const scratch = { ...options, settings: runSettings({ preset: minutePreset }), from };
  await expect(prepareRun(scratch)).rejects.toThrow(/^from scratch: it leaves out the file given$/);
  await expect(openStart('missing.safetensors')).rejects.toThrow(/missing\.safetensors: there is no such file/);
  await expect(openVisionLanguageModel(folder)).rejects.toThrow(/is a folder/);
});
