import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Model } from '../../model/architecture/model.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { writePublished } from '../../model/policy/tokenizer-file.ts';
import { writeLeRobotPolicy } from '../../model/training/lerobot-policy.ts';
import { openPublicPolicy } from '../../model/training/public-policy.ts';
import { HEAD, openPublicTensors } from '../../model/training/public-tensors.ts';
import { openPublicStart } from '../../model/training/start.ts';
import { FastTokenizer, TextTokenizer } from '../../tokenizers/index.ts';
import { testDevice } from '../support/devices.ts';
import { expectClose, normals } from '../support/numbers.ts';
import {
  normStats,
  publishedFolders,
  quiet,
  short,
  vocabulary,
  type Written,
  weightsOf,
} from '../support/published.ts';
import { syntheticDataset } from '../support/synthetic-dataset.ts';
import { trainRun } from '../support/train-run.ts';

const { root, textTokenizer, folderOf, messageOf } = await publishedFolders();

describe('pi0-FAST', () => {
  const raw = { instruction: ' Pick up_the cup', state: [0, 1, 2, -1, 0.5], images: {} };
  const text = TextTokenizer.default();
  const chunks = Array.from({ length: 8 }, (_, i) => ({ data: normals(16, 50 + i, 0.5), horizon: 4, dimension: 4 }));
  const fast = FastTokenizer.fit(chunks, { vocabularySize: 128, format: 'published' });
  const folders: Record<string, object> = {
    openpi: {},
    LeRobot: { 'config.json': { type: 'pi0_fast', chunk_size: 4, max_action_dim: 32, max_decoding_steps: 24 } },
  };
  const policyOf = async (kind: string, own: readonly Written[] = weightsOf('pi0-fast')) => {
    const tokenizer = join(root, 'fast');
    await writePublished(tokenizer, fast);
    const path = await folderOf(own, { ...folders[kind], 'norm_stats.json': normStats(4, 5) });
    const statistics = join(path, 'norm_stats.json');
    const options = { textTokenizer, rate: 10, horizon: 4, statistics };
    expect(await messageOf(openPublicPolicy(path, options))).toMatch(
      /name the folder of its FAST tokenizer with --tok/,
    );
    return openPublicPolicy(path, { ...options, tokenizer });
  };

  test.each(Object.keys(folders))('of %s: prompt, ids, and the end of the actions', async (kind) => {
    const policy = await policyOf(kind);
    const { configuration, encoding: settings } = policy.settings;
    expect(configuration).toMatchObject({ horizon: 4, actionDimension: 4, stateDimension: 5 });
    const encoding = new Encoding(settings);
    // The statistics are quantiles: openpi's numbers are not clamped to a bin.
    const bins = raw.state.map((own, d) => Math.floor(((2 * (own - (d / 4 - 2))) / 5) * 128));
    const prompt = (instruction: string) =>
      text.encode(`Task: ${instruction}, State: ${bins.join(' ')};\n`, { bos: true });
    const expected = kind === 'openpi' ? prompt('pick up the cup') : [...prompt('Pick up the cup'), text.special.bos];
    expect(Array.from(encoding.promptIds(raw))).toEqual(Array.from(expected));

    const data = normals(16, 50, 0.5);
    const own = fast.encode({ data, horizon: 4, dimension: 4 });
    const before = Array.from(text.encode('Action: '));
    const [end] = text.encode('|');
    const ids = Array.from(own, (id) => text.vocabularySize - 1 - 128 - id);
    expect(Array.from(encoding.actionTokens(data, 4))).toEqual([...before, ...ids, end]);
    const shape = { horizon: 4, dimension: 4, tokens: 24 };
    const [whole, cut] = [encoding.chunkWriter(shape), encoding.chunkWriter(shape)];
    for (const id of [...before, ...ids]) {
      expect([...whole.allowed()!]).toContain(id);
      expect(whole.write(id)).toBe(true);
    }
    expect(whole.allowed()).toBeNull();
    expect(whole.decode()).toEqual(fast.decode(own, shape));
    for (const id of [...before, ...ids.slice(0, 3)]) cut.write(id);
    expect([...cut.allowed()!]).toContain(end);
    expect([cut.write(end), cut.isComplete()]).toEqual([false, false]);
    expect(cut.decode()).toEqual(fast.decodeRelaxed(own.subarray(0, 3), shape).data);
    await policy.close();
  });

  test('goes out as a folder of LeRobot with a head of its own, and comes back the same', async () => {
    const head = { name: HEAD, shape: [vocabulary, 64], values: normals(vocabulary * 64, 3, 0.1) };
    const policy = await policyOf('LeRobot', [...weightsOf('pi0-fast'), head]);
    using model = await policy.loadModel(await testDevice('normal'));
    expectClose((await model.parameters.get(HEAD).read()) as Float32Array, head.values, 0, 'head');
    const folder = join(root, 'fast-out');
    await writeLeRobotPolicy(folder, model, policy.settings, true);
    const written = await openPublicTensors(folder);
    expect(written.tensors.keys().next().value).toBe(HEAD);
    await written.close();
    const back = await openPublicPolicy(folder, { rate: 10 });
    expect(back.settings.configuration).toEqual(policy.settings.configuration);
    using again = await back.loadModel(model.device);
    for (const { name } of model.parameters)
      expect(await again.parameters.get(name).read()).toEqual(await model.parameters.get(name).read());
    const [ours, theirs] = [policy, back].map(({ settings }) => new Encoding(settings.encoding));
    expect(theirs.promptIds(raw)).toEqual(ours.promptIds(raw));
    const data = normals(16, 50, 0.5);
    expect(theirs.actionTokens(data, 4)).toEqual(ours.actionTokens(data, 4));
    await back.close();
    await policy.close();
  });

  test('a run goes on with its prompt, its ids and its head', async () => {
    const head = { name: HEAD, shape: [vocabulary, 64], values: normals(vocabulary * 64, 3, 0.1) };
    const path = await folderOf([...weightsOf('pi0-fast'), head], folders.LeRobot as Record<string, unknown>);
    const from = await openPublicStart(path, { textTokenizer });
    const preset = { ...from.preset, ...short, fastVocabulary: 128 };
    const { policy } = await trainRun(join(root, 'fast-run.safetensors'), {
      ...{ system: 'pi0-fast', preset, steps: 0, batch: 1, dataset: syntheticDataset(), from, listener: quiet },
    });
    using model: Model = policy.model;
    expect(policy.encoding.settings.prompt).toBe('pi0-fast-lerobot');
    expect(model.configuration).toMatchObject({ vocabulary, backboneVariant: { tied: false } });
    expectClose((await model.parameters.get(HEAD).read()) as Float32Array, head.values, 0, 'head');
    await from.close();
  });
});
