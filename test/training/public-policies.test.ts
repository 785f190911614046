import { mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readSafetensors } from '../../engine/index.ts';
import { Model } from '../../model/architecture/model.ts';
import { fromNormStats } from '../../model/data/index.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import type { Checkpoint } from '../../model/training/checkpoint.ts';
import { leRobotType, writeLeRobotPolicy } from '../../model/training/lerobot-policy.ts';
import { writeOpenpiPolicy } from '../../model/training/openpi-policy.ts';
import { isPublic, openPublicModel } from '../../model/training/public-model.ts';
import { openPublicPolicy } from '../../model/training/public-policy.ts';
import { EMBEDDING, EXPERT_HEAD, HEAD, openPublicTensors } from '../../model/training/public-tensors.ts';
import { BinActionTokenizer, defaultTokenizerJson, publicMappings } from '../../tokenizers/index.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose, normals } from '../support/numbers.ts';
import {
  embedding,
  type Kind,
  normStats,
  numbers,
  old,
  parametersOf,
  publishedFolders,
  renamed,
  sizes,
  vocabulary,
  type Written,
  weightsOf,
  write,
} from '../support/published.ts';

const { root, textTokenizer, folderOf, messageOf } = await publishedFolders();

describe('names', () => {
  const head = 'paligemma_with_expert.paligemma.lm_head.weight';
  const unused = (name: string): Written => ({ name, shape: [2, 3], values: normals(6, 1) });
  const variants: Record<string, (own: Written[]) => Written[]> = {
    openpi: (own) => own,
    LeRobot: (own) => renamed(own, (name) => `model.${name}`),
    'older transformers': (own) => renamed(own, (name) => `model.${old(name)}`),
    'the head in place of the embeddings': (own) => renamed(own, (name) => name.replace(EMBEDDING, head)),
    'the head of older transformers': (own) =>
      renamed(own, (name) =>
        name === EMBEDDING
          ? 'model.paligemma_with_expert.paligemma.language_model.lm_head.weight'
          : `model.${old(name)}`,
      ),
    'both, the head left as it was before training': (own) => [
      ...own,
      { ...embedding, name: head, values: normals(vocabulary * 64, 2) },
    ],
    'what nothing uses': (own) => [
      ...own,
      unused('paligemma_with_expert.gemma_expert.lm_head.weight'),
      unused('normalize_inputs.buffer_observation_state.mean'),
      unused('unnormalize_outputs.buffer_action.std'),
      unused('proprio_history_proj.weight'),
    ],
  };
  for (const kind of ['pi0', 'pi05', 'pi0-fast'] as const)
    test.each(Object.keys(variants))(`of ${kind}: %s`, async (variant) => {
      const own = weightsOf(kind);
      const path = await folderOf(variants[variant](own));
      const model = await openPublicModel(join(path, 'model.safetensors'), { textTokenizer });
      expect(model.system).toBe(kind);
      expect(model.preset).toMatchObject({ depth: 2, heads: 8, kvHeads: 1, headDimension: 16, vocabulary });
      expect(model.preset.vision).toEqual({ width: 32, depth: 1, heads: 2, hidden: 40, patch: 14, image: 28 });
      const { backbone, expert } = sizes;
      expect(model.configuration(2, 4).experts).toMatchObject(
        kind === 'pi0-fast' ? { backbone } : { backbone, expert },
      );
      for (const { name, values } of own) expectClose(await model.tensors.readFinite(name, {}), values, 0, name);
      await model.tensors.close();
    });

  test('pi0.5 passes over the state and the plain norms of old files', async () => {
    const norm = 'paligemma_with_expert.gemma_expert.model.norm.weight';
    const path = await folderOf([...weightsOf('pi05'), unused('state_proj.weight'), unused(norm)]);
    await (await openPublicModel(path, { textTokenizer })).tensors.close();
  });
});

test('files by an index, of several storage types', async () => {
  const dtypes = ['F32', 'BF16', 'F16'] as const;
  const own = weightsOf('pi05').map((tensor, i) => ({
    ...tensor,
    dtype: tensor.name.endsWith('q_proj.weight') ? ('BF16' as const) : dtypes[i % 3],
  }));
  const folder = await folderOf([]);
  const place = (i: number) => `model-0000${(i % 2) + 1}-of-00002.safetensors`;
  for (const part of [0, 1])
    await write(
      join(folder, place(part)),
      own.filter((_, i) => i % 2 === part),
    );
  const index = { metadata: {}, weight_map: Object.fromEntries(own.map(({ name }, i) => [name, place(i)])) };
  await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify(index));
  for (const path of [folder, join(folder, 'model.safetensors.index.json')]) {
    const { tensors } = await openPublicModel(path, { textTokenizer });
    for (const { name, values, dtype } of own)
      expectClose(await tensors.readFinite(name, {}), values, { F32: 0, BF16: 2 ** -8, F16: 2 ** -10 }[dtype], name);
    await tensors.close();
  }
  await writeFile(join(folder, 'norm_stats.json'), JSON.stringify(normStats(4, 5)));
  const options = { textTokenizer, rate: 10, horizon: 4, statistics: join(folder, 'norm_stats.json') };
  const policy = await openPublicPolicy(folder, options);
  expect(policy.settings.configuration.precision).toBe('bf16');
  using model = await policy.loadModel(await testDevice('normal'));
  for (const { name, values } of own)
    expectClose((await model.parameters.get(name).read()) as Float32Array, values, 2 ** -7, name);
  await policy.close();

  const second = join(folder, place(1));
  const more = { ...index, weight_map: { ...index.weight_map, 'another.weight': place(1) } };
  await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify(more));
  expect(await messageOf(openPublicTensors(folder))).toMatch(
    /00002-of-00002\.safetensors lacks "another\.weight", which the index places there/,
  );
  await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify(index));
  await write(second, [...own.filter((_, i) => i % 2 === 1), own[0]]);
  expect(await messageOf(openPublicTensors(folder))).toMatch(/is there twice/);
  await truncate(second, 5000);
  expect(await messageOf(openPublicTensors(folder))).toMatch(/00002-of-00002\.safetensors: cut off/);
  await rm(second);
  expect(await messageOf(openPublicTensors(folder))).toMatch(/00002-of-00002\.safetensors: cannot open it/);
});

describe('refusals, in one line', () => {
  const first = 'action_in_proj.weight';
  const broken: Record<string, [tensors: () => Written[], files: Record<string, unknown>, message: RegExp]> = {
    'another architecture': [
      () => [{ name: 'model.diffusion.unet.weight', shape: [4], values: normals(4, 1) }],
      {},
      /neither pi0, pi0\.5, pi0-FAST, PaliGemma nor SigLIP: its tensors are "diffusion\.unet\.weight"$/,
    ],
    'a language model alone': [
      () =>
        renamed(weightsOf('pi0-fast'), (name) => name.replace(/^.*\.language_model\./, 'model.')).filter(({ name }) =>
          name.startsWith('model.'),
        ),
      { 'config.json': { model_type: 'llama' } },
      /neither pi0, .* nor SigLIP: its tensors are "embed_tokens\.weight", /,
    ],
    'the expert of another architecture': [
      () => weightsOf('pi0').filter(({ name }) => /^action_|^state_/.test(name)),
      { 'config.json': { type: 'smolvla' } },
      /neither pi0, .* nor SigLIP: its tensors are "action_in_proj\.weight", /,
    ],
    'FAST ids at another place': [
      () => weightsOf('pi0-fast'),
      { 'config.json': { type: 'pi0_fast', fast_skip_tokens: 64 } },
      /config\.json: this is not the config\.json of a policy: "fast_skip_tokens"/,
    ],
    'missing and unexpected tensors': [
      () => [
        ...weightsOf('pi05').filter(({ name }) => !/post_layernorm|projector/.test(name)),
        { name: 'extra.bias', shape: [2], values: normals(2, 1) },
      ],
      {},
      /it lacks "[^"]+", "[^"]+", "[^"]+" and 1 more tensor, and has "extra\.bias", for which pi05 has no place; --partial goes on/,
    ],
    'a tensor under two names': [
      () => [...weightsOf('pi0'), { ...weightsOf('pi0').find(({ name }) => name === first)!, name: `model.${first}` }],
      {},
      /tensor "action_in_proj\.weight" is there twice, also as/,
    ],
    'a tensor of another shape': [
      () =>
        weightsOf('pi0').map((own) =>
          own.name === 'action_out_proj.bias' ? { ...own, shape: [3], values: normals(3, 1) } : own,
        ),
      {},
      /tensor "action_out_proj\.bias" has shape \[3\], \[6\] was expected/,
    ],
    'a config of another policy': [
      () => weightsOf('pi0'),
      { 'config.json': { type: 'pi05' } },
      /config\.json says type pi05, and its tensors pi0$/,
    ],
    'a config of other sizes': [
      () => weightsOf('pi0'),
      { 'config.json': { type: 'pi0', max_action_dim: 32 } },
      /config\.json says max_action_dim 32, and its tensors 6$/,
    ],
    'a damaged config': [
      () => weightsOf('pi0'),
      { 'config.json': { chunk_size: -1 } },
      /config\.json: this is not the config\.json of a policy: "chunk_size"/,
    ],
  };
  test.each(Object.keys(broken))('%s', async (name) => {
    const [tensors, files, message] = broken[name];
    const found = await messageOf(openPublicModel(await folderOf(tensors(), files), { textTokenizer }));
    expect(found).toMatch(message);
    expect(found).not.toMatch(/\n/);
  });

  test('no tokenizer, and one with more ids than rows', async () => {
    const path = await folderOf(weightsOf('pi0'));
    expect(await messageOf(openPublicModel(path, {}))).toMatch(
      /tokenizer\.json is missing: name PaliGemma's tokenizer/,
    );
    const json = defaultTokenizerJson();
    const wide = { ...json, model: { ...json.model, vocab: { ...json.model.vocab, wide: vocabulary } } };
    const file = join(root, 'wide.json');
    await writeFile(file, JSON.stringify(wide));
    expect(await messageOf(openPublicModel(path, { textTokenizer: file }))).toMatch(
      /a tokenizer of \d+ ids; .* embeds \d+: name its own/,
    );
  });

  test('weights that are not finite', async () => {
    const own = weightsOf('pi0');
    own.find(({ name }) => name === first)!.values[7] = Number.NaN;
    const model = await openPublicModel(await folderOf(own), { textTokenizer });
    expect(await messageOf(model.tensors.readFinite(first, {}))).toMatch(
      /damaged: tensor "action_in_proj\.weight" holds NaN at element 7$/,
    );
    await model.tensors.close();
  });
});

/** A policy as openpi has it, with statistics of a robot of 4 action and 5 state dimensions. */
async function openpiPolicy(kind: Kind, stats = normStats(4, 5)) {
  const path = await folderOf(weightsOf(kind), {
    'config.json': { action_dim: 6, action_horizon: 4 },
    'norm_stats.json': stats,
  });
  return openPublicPolicy(path, { textTokenizer, rate: 10, statistics: join(path, 'norm_stats.json') });
}

test('a policy of openpi normalises pi0 by deviations and pi0.5 by quantiles', async () => {
  for (const kind of ['pi0', 'pi05'] as const) {
    const policy = await openpiPolicy(kind);
    const { configuration, encoding } = policy.settings;
    expect(configuration).toMatchObject({ horizon: 4, actionDimension: 6, vision: { cameras: 3 } });
    expect(encoding.cameras).toEqual(['base_0_rgb', 'left_wrist_0_rgb', 'right_wrist_0_rgb']);
    const chunk = Float32Array.from([0.5, 0.25, 0, -1, 9, 9]);
    const expected = numbers(4, 0).map((mean, d) =>
      kind === 'pi0' ? mean + chunk[d] * (1 + d / 4) : numbers(4, -2)[d] + ((chunk[d] + 1) / 2) * 5,
    );
    expectClose(new Encoding(encoding).denormaliseActions(chunk, { state: null }), expected, 1e-6, kind);
    await policy.close();
  }
});

test('statistics of another robot, and what no folder says', async () => {
  expect(await messageOf(openpiPolicy('pi0', normStats(7, 5)))).toMatch(
    /statistics of 7 dimensions of actions, and the policy has 6: of another robot\?/,
  );
  const shape = { action: { type: 'ACTION', shape: [5] } };
  const path = await folderOf(weightsOf('pi0'), {
    'config.json': { type: 'pi0', chunk_size: 4, output_features: shape },
    'norm_stats.json': normStats(4, 5),
  });
  const options = { textTokenizer, rate: 10, statistics: join(path, 'norm_stats.json') };
  expect(await messageOf(openPublicPolicy(path, options))).toMatch(
    /statistics of 4 dimensions of actions, and the policy has 5: of another robot\?/,
  );
  expect(await messageOf(openPublicPolicy(path, { textTokenizer }))).toMatch(/give them with --rate$/);
  expect(await messageOf(openPublicPolicy(path, { textTokenizer, rate: 10 }))).toMatch(
    /neither policy_postprocessor\.json is beside it nor statistics are in it: give openpi's norm_stats\.json with --statistics$/,
  );
});

test('statistics inside the file, as LeRobot before 0.4 has them', async () => {
  const own = (name: string, values: readonly number[]): Written => ({
    ...{ name, shape: [values.length], values: Float32Array.from(values) },
  });
  const [inputs, outputs] = ['normalize_inputs.buffer_observation_state', 'unnormalize_outputs.buffer_action'];
  const statistics = [
    ...[own(`${inputs}.mean`, numbers(5, 1)), own(`${inputs}.std`, numbers(5, 2))],
    ...[own(`${outputs}.mean`, numbers(4, 3)), own(`${outputs}.std`, numbers(4, 4))],
  ];
  const config = { type: 'pi0', chunk_size: 4, input_features: {}, normalization_mapping: { ACTION: 'MEAN_STD' } };
  const path = await folderOf([...weightsOf('pi0'), ...statistics], { 'config.json': config });
  const open = () => openPublicPolicy(path, { textTokenizer, rate: 10 });
  await expect(open()).rejects.toThrow(/config\.json names no camera$/);
  const seen = { ...config, input_features: { 'observation.images.top': { type: 'VISUAL', shape: [3, 28, 28] } } };
  await writeFile(join(path, 'config.json'), JSON.stringify(seen));
  const policy = await open();
  const chunk = Float32Array.from([0.5, 0.25, 0, -1, 9, 9]);
  const expected = numbers(4, 3).map((mean, d) => mean + chunk[d] * (4 + d / 4));
  expectClose(
    new Encoding(policy.settings.encoding).denormaliseActions(chunk, { state: null }),
    expected,
    1e-6,
    'actions',
  );
  await policy.close();
});

test('with partial, a policy begins what is missing at random, and says so', async () => {
  const [missing, ...others] = weightsOf('pi0')
    .filter(({ name }) => /^action_.*weight$/.test(name))
    .reverse();
  const all = weightsOf('pi0').filter(({ name }) => name !== missing.name);
  const extra = { name: 'extra.bias', shape: [2], values: normals(2, 1) };
  const path = await folderOf([...all, extra], { 'norm_stats.json': normStats(4, 5) });
  const notes: string[] = [];
  const policy = await openPublicPolicy(path, {
    ...{ textTokenizer, rate: 10, horizon: 4, statistics: join(path, 'norm_stats.json'), partial: true },
    note: (line) => void notes.push(line.replaceAll(root, '')),
  });
  expect(notes).toEqual([
    expect.stringMatching(/^\/policy-\d+: it lacks "[^"]+", and has "extra\.bias", for which pi0 has no place$/),
  ]);
  using model = await policy.loadModel(await testDevice('normal'));
  const read = async (name: string) => (await model.parameters.get(name).read()) as Float32Array;
  expect((await read(missing.name)).every((own) => Math.abs(own) > 0 && Math.abs(own) < 1)).toBe(true);
  expectClose(await read(others[0].name), others[0].values, 0, others[0].name);
  await policy.close();
});

test('the names of tokenizers on a hub stay right when a folder moves', async () => {
  const { vocabularySize } = publicMappings.openpi;
  const json = defaultTokenizerJson();
  const last = { ...json.added_tokens[0], id: vocabularySize - 1, content: '<last>' };
  const text = { ...json, added_tokens: [...json.added_tokens, last] };
  const configuration = configurationOf(systemNamed('pi05'), {
    ...{ ...sizes, vocabulary: vocabularySize, backbone: { width: 8, hidden: 8 }, expert: { width: 8, hidden: 8 } },
  });
  const statistics = fromNormStats(normStats(6, 6), 'statistics');
  const shared = { stateAsText: true, stateBins: 256, cameras: ['a', 'b'], actions: null };
  using model = new Model(await testDevice('normal'), configuration);
  const folder = join(root, 'hub');
  await writeLeRobotPolicy(folder, model, { configuration, encoding: { ...shared, text, statistics } }, true);
  const { steps } = JSON.parse(await readFile(join(folder, 'policy_preprocessor.json'), 'utf8'));
  const step = steps.find((own: { registry_name: string }) => own.registry_name === 'tokenizer_processor');
  expect(step.config.tokenizer_name).toBe('google/paligemma-3b-pt-224');
});

test('a policy goes out as a folder of LeRobot and comes back the same', async () => {
  const policy = await openpiPolicy('pi05');
  using model = await policy.loadModel(await testDevice('normal'));
  const folder = join(root, 'out');
  expect(() => leRobotType(policy.settings)).toThrow(
    'openpi and LeRobot have no such policy: its backbone is width:64,hidden:96, and theirs width:2048,hidden:16384 alone',
  );
  await writeLeRobotPolicy(folder, model, policy.settings, true);
  expect((await readdir(folder)).sort()).toEqual([
    'config.json',
    'model.safetensors',
    'policy_postprocessor.json',
    'policy_postprocessor_normalisation.safetensors',
    'policy_preprocessor.json',
    'policy_preprocessor_normalisation.safetensors',
    'tokenizer',
  ]);
  expect(await isPublic(folder)).toBe(true);
  const back = await openPublicPolicy(folder, { rate: 10 });
  await expectSame(policy, model, back);
});

test.each(['pi0', 'pi05'] as const)('%s goes out as a folder of openpi and comes back the same', async (kind) => {
  const policy = await openpiPolicy(kind);
  using model = await policy.loadModel(await testDevice('normal'));
  const folder = join(root, `openpi-${kind}`);
  await expect(writeOpenpiPolicy(folder, model, policy.settings)).rejects.toThrow('its backbone is width:64');
  expect(await messageOf(readdir(folder))).toMatch('ENOENT');
  await writeOpenpiPolicy(folder, model, policy.settings, true);
  const file = await readSafetensors(join(folder, 'model.safetensors'));
  expect([...file.tensors.keys()].sort()).toEqual(
    [...parametersOf(kind).map(({ name }) => (name === EMBEDDING ? HEAD : name)), EXPERT_HEAD].sort(),
  );
  await file.close();
  const back = await openPublicPolicy(folder, { rate: 10, textTokenizer });
  await expectSame(policy, model, back);
  // The folders of openpi's training have no config.json.
  await rm(join(folder, 'config.json'));
  const trained = await openPublicPolicy(folder, { rate: 10, textTokenizer, horizon: 4 });
  expect(trained.settings.encoding).toEqual(back.settings.encoding);
  await trained.close();
  await mkdir(join(folder, 'assets/other'));
  await writeFile(join(folder, 'assets/other/norm_stats.json'), '{}');
  expect(await messageOf(openPublicPolicy(folder, { rate: 10, textTokenizer, horizon: 4 }))).toBe(
    `/openpi-${kind}: it has statistics of 2 robots: give one with --statistics, as /openpi-${kind}/assets/other/norm_stats.json`,
  );
});

/** Compares what two checkpoints make of one observation and one chunk, and their weights, and closes them. */
async function expectSame(policy: Checkpoint, model: Model, back: Checkpoint): Promise<void> {
  using again = await back.loadModel(model.device);
  for (const parameter of model.parameters)
    expectClose(
      (await again.parameters.get(parameter.name).read()) as Float32Array,
      (await parameter.read()) as Float32Array,
      0,
      parameter.name,
    );
  expect(back.settings.configuration).toEqual(policy.settings.configuration);
  const [ours, theirs] = [policy, back].map(({ settings }) => new Encoding(settings.encoding));
  const raw = { instruction: 'put the red cube in the blue bin', state: [0, 1, 2, -1, 0.5], images: {} };
  expect(theirs.promptIds(raw)).toEqual(ours.promptIds(raw));
  const chunk = normals(24, 5);
  expectClose(theirs.denormaliseActions(chunk, raw), ours.denormaliseActions(chunk, raw), 1e-6, 'actions');
  await policy.close();
  await back.close();
}

describe('what LeRobot has', () => {
  const statistics = { bound: 5, actions: column(6), states: column(6) };
  function column(length: number) {
    return {
      count: 9,
      mean: numbers(length, 0),
      std: numbers(length, 1),
      min: numbers(length, -3),
      max: numbers(length, 4),
      q01: numbers(length, -2),
      q99: numbers(length, 3),
    };
  }
  const encoding = { stateAsText: true, stateBins: 256, cameras: ['a', 'b'], statistics, actions: null };
  const typeOf = (system: string, own: object = {}) =>
    leRobotType(
      { configuration: configurationOf(systemNamed(system), sizes), encoding: { ...encoding, ...own } },
      true,
    );

  test.each([
    ['pi05', {}, 'pi05'],
    ['knowledge-insulation', {}, 'pi05'],
    ['pi0', { prompt: 'pi0', stateAsText: false }, 'pi0'],
  ])('%s', (system, own, expected) => expect(typeOf(system, own)).toBe(expected));

  test.each([
    ['pi0', {}, /its prompt is not pi0's/],
    ['pi05', { stateBins: 16 }, /its prompt has no state in 256 bins/],
    ['pi05', { relative: [true] }, /its actions are relative to the state/],
    ['pi05', { statistics: null }, /it has statistics of 0 robots/],
    ['pi0-fast', {}, /its prompt and the ids of its action tokens are not those of LeRobot's pi0_fast/],
    [
      'pi0-fast',
      { prompt: 'pi0-fast-lerobot', actions: new BinActionTokenizer().toJSON() },
      /its action tokenizer is not of the published form/,
    ],
    ['openvla-oft', {}, /it has no action expert/],
    ['transfusion', {}, /it has no action expert/],
    ['pi0-text-state', {}, /it differs from pi0 in its blocks: image \(images, backbone/],
  ])('not %s with %j', (system, own, message) => expect(() => typeOf(system, own)).toThrow(message));
});
