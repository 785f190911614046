import { describe, expect, test } from 'vitest';
import {
  type Dataset,
  evaluationSamples,
  fromNormStats,
  measureStatistics,
  type Sample,
  toNormStats,
  wholeEpisodes,
} from '../../model/data/index.ts';
import { Encoding, type EncodingSettings } from '../../model/policy/encoding.ts';
import { type System, systemNamed } from '../../model/systems/index.ts';
import { BatchMaker } from '../../model/training/batches.ts';
import type { Checkpoint } from '../../model/training/checkpoint.ts';
import { fittedConfiguration } from '../../model/training/fitted-configuration.ts';
import {
  checkGiven,
  type FittingOptions,
  fitEncoding,
  fittingSamples,
  prepareData,
  statisticsOf,
} from '../../model/training/fitting.ts';
import { prepareRun } from '../../model/training/prepare-run.ts';
import { expectTokens, runSettings } from '../../model/training/run-settings.ts';
import { FastTokenizer } from '../../tokenizers/index.ts';
import { byteLevelTokenizerJson } from '../../tokenizers/tokenizer-json.ts';
import { minutePreset, quietListener, syntheticDataset, unloaded } from '../support/synthetic-dataset.ts';
import { targetsOf } from '../support/targets.ts';

const HORIZON = 4;

/** Encoding settings fitted to the training part, with its own statistics. */
async function fitted(options: FittingOptions): Promise<EncodingSettings> {
  const { split } = prepareData(options.dataset, 0);
  return fitEncoding(options, split, HORIZON, await statisticsOf(options.dataset, split, HORIZON));
}

const system = systemNamed('knowledge-insulation');

/** A data set with episodes that are loaded on demand; `loaded` is called with the id of each. */
function large(episodes: number, loaded: (id: string) => void = () => {}): Dataset {
  const [first] = syntheticDataset({ images: false }).episodes;
  const listed = Array.from({ length: episodes }, (_, i) => ({
    ...first,
    id: `${i}`,
    instructions: [i === 1 ? 'an instruction of one episode alone, longer than any other' : 'short'],
  }));
  const dataset = unloaded({ ...syntheticDataset({ images: false }), episodes: listed });
  const watched = dataset.episodes.map((episode) => {
    const { load } = episode;
    return Object.defineProperty(episode, 'load', {
      value: () => {
        loaded(episode.id);
        return load!();
      },
    });
  });
  return { ...dataset, episodes: watched };
}

const placeOf = ({ part, step }: Sample) => `${part.episode.id}:${step}`;

describe('the control steps that a run is fitted to', () => {
  test('all control steps of a small data set', () => {
    const parts = wholeEpisodes(large(200).episodes);
    expect(fittingSamples(parts).map(placeOf)).toEqual(evaluationSamples(parts).map(placeOf));
  });

  test('a sample of a large data set, from few evenly spread episodes; the longest instruction of all', async () => {
    const read = new Set<string>();
    const dataset = large(6000, (id) => read.add(id));
    const parts = wholeEpisodes(dataset.episodes);
    const samples = fittingSamples(parts);
    expect(samples.length).toBe(8192);
    expect(fittingSamples(parts).map(placeOf)).toEqual(samples.map(placeOf));
    expect(new Set(samples.map(placeOf)).size).toBe(8192);

    const { split } = prepareData(dataset, 0);
    const notes: string[] = [];
    const listener = { note: (line: string) => notes.push(line) };
    const options = { dataset, system, preset: minutePreset, listener };
    const encoding = new Encoding(await fitted(options));
    read.clear();
    const { blocks } = await fittedConfiguration(options, split, encoding, HORIZON);
    expect(notes.at(-1)).toBe('synthetic: targets are fitted to 8192 of 72000 control steps');
    expect(read.size).toBeGreaterThan(900);
    expect(read.size).toBeLessThanOrEqual(1024);
    const { instructions } = dataset.episodes[1];
    const prompt = encoding.promptIds({ instruction: instructions[0], state: [0, 0] });
    expect(blocks.find(({ name }) => name === 'language')!.length).toBe(prompt.length + 4);
  });

  test('the length of a prompt does not go by the state', async () => {
    const dataset = syntheticDataset();
    const options = { dataset, system, preset: { ...minutePreset, stateBins: 256 }, listener: { note() {} } };
    const encoding = new Encoding(await fitted(options));
    const { low, high } = { low: -2, high: 2 };
    const lengths = Array.from({ length: 600 }, (_, i) => {
      const value = low + ((high - low) * i) / 599;
      return encoding.promptIds({ instruction: 'move', state: [value, -value] }).length;
    });
    expect(new Set(lengths).size).toBe(1);
  });
});

test('a glitch widens nothing: it is named, clamped and counted', async () => {
  const calm = syntheticDataset({ images: false, episodes: 40 });
  const still = calm.episodes.map((episode) => ({
    ...episode,
    actions: episode.actions.map((value, i) => (i % 3 === 2 ? 7 : value)),
    states: episode.states!.map((value, i) => (i % 2 === 1 ? 0 : value)),
  }));
  const [first, ...others] = still;
  const broken = { ...first, actions: first.actions.map((value, i) => (i > 2 && i < 9 && i % 3 === 0 ? 900 : value)) };
  const both = [still, [broken, ...others]].map(async (episodes) => {
    const notes: string[] = [];
    const listener = { note: (line: string) => void notes.push(line) };
    const options = { dataset: { ...calm, episodes }, system, preset: minutePreset, listener };
    const split = {
      train: wholeEpisodes(episodes.slice(0, 36)),
      heldOut: wholeEpisodes(episodes.slice(36)),
      description: '',
    };
    const measured = await statisticsOf(options.dataset, split, HORIZON);
    const encoding = new Encoding(await fitEncoding(options, split, HORIZON, measured));
    await fittedConfiguration(options, split, encoding, HORIZON);
    return { notes, encoding };
  });
  const [without, glitch] = await Promise.all(both);
  const constant = ['synthetic: action dimensions 2 are constant, and become 0'];
  expect(without.notes.slice(0, 2)).toEqual([...constant, 'synthetic: state dimensions 1 are constant, and become 0']);
  expect(glitch.notes).toContain(
    'synthetic: action dimensions 0 have values beyond 5 times their usual range, which are clipped',
  );
  expect(glitch.notes.at(-1)).toMatch(
    /^synthetic: \d+ of 5760 numbers of the action chunks \(.* %\) lie beyond what action tokens can say, and are clamped$/,
  );
  const [before, after] = [without, glitch].map(({ encoding }) => encoding.actions as FastTokenizer);
  expect(after.vocabularySize).toBe(before.vocabularySize);
  expect(after.maximum).toBeLessThanOrEqual(30); // 1.5 * 10 * sqrt(4)
});

test('numbers beyond the bins are told where they are far more than the quantiles leave out', async () => {
  const dataset = syntheticDataset({ images: false, episodes: 40 });
  const parts = wholeEpisodes(dataset.episodes);
  const split = { train: parts.slice(0, 36), heldOut: parts.slice(36), description: '' };
  const measured = await statisticsOf(dataset, split, HORIZON);
  const { actions, ...others } = measured.statistics!;
  const half = (list: readonly number[]) => list.map((value) => value / 2);
  const narrow = { ...others, actions: { ...actions, q01: half(actions.q01), q99: half(actions.q99) } };
  const notes = await Promise.all(
    [measured, { ...measured, statistics: narrow }].map(async (own) => {
      const notes: string[] = [];
      const listener = { note: (line: string) => void notes.push(line) };
      const options = { dataset, system, preset: minutePreset, listener, tokens: 'bins' as const };
      const encoding = new Encoding(await fitEncoding(options, split, HORIZON, own));
      await fittedConfiguration(options, split, encoding, HORIZON);
      return notes.filter((line) => line.includes('beyond what action tokens can say'));
    }),
  );
  expect(notes.map(({ length }) => length)).toEqual([0, 1]);
});

test('action tokens beyond the target block are truncated, and counted', async () => {
  const dataset = syntheticDataset();
  const options = { dataset, system, preset: minutePreset, listener: { note() {} } };
  const { split } = prepareData(dataset, 0);
  const encoding = new Encoding(await fitted(options));
  const configuration = await fittedConfiguration(options, split, encoding, HORIZON);
  const samples = evaluationSamples(wholeEpisodes(dataset.episodes), 6);
  const whole = new BatchMaker(encoding, configuration, runSettings());
  const targets = targetsOf(await whole.make(samples, 0)).map(({ ids }) => ids);
  expect(whole.counts).toEqual({ examples: 6, truncated: 0 });

  const lengths = targets.map((ids) => ids.length - 1);
  const room = Math.max(...lengths) - 1;
  const blocks = configuration.blocks.map((block) => (block.name === 'target' ? { ...block, length: room } : block));
  const tight = { ...configuration, blocks };
  const maker = new BatchMaker(encoding, tight, runSettings());
  const batch = await maker.make(samples, 0);
  expect(maker.counts).toEqual({ examples: 6, truncated: lengths.filter((length) => length > room).length });
  // The last row that is there predicts the next id: only what comes behind it is lost, with the end of sequence.
  expect(targetsOf(batch).map(({ ids }) => ids)).toEqual(targets.map((ids) => ids.slice(0, room + 1)));
  expect(batch.ids.target.ids.length).toBe(6 * room);
});

describe('statistics and tokenizer that are given', () => {
  const dataset = syntheticDataset({ images: false });
  const split = prepareData(dataset, 0).split;
  const flat = (seed: number) => ({ data: new Float32Array(12).fill(seed / 10), horizon: 4, dimension: 3 });
  const fast = FastTokenizer.fit([flat(1), flat(5)], { format: 'published', vocabularySize: 40 });
  const listener = quietListener();
  const base = { dataset, system, preset: minutePreset, listener };
  const given = async (scale: number) => {
    const { actions, ...others } = await measureStatistics(wholeEpisodes(dataset.episodes));
    const q99 = actions.q99.map((value) => value * scale);
    return fromNormStats(toNormStats({ ...others, actions: { ...actions, q99 } }), 'norm_stats.json');
  };

  test('are what actions are encoded by', async () => {
    const statistics = await given(3);
    const options = { ...base, tokenizer: fast, statistics };
    checkGiven(options);
    const settings = await fitEncoding(options, split, HORIZON, { statistics });
    const highest = Float32Array.from(statistics.actions.q99);
    const [normalised] = new Encoding(settings).normaliseActions(highest, { state: null });
    expect(normalised).toBeCloseTo(1, 5);
    expect(new Encoding(settings).actions!.encode(flat(5))).toEqual(fast.encode(flat(5)));
  });

  test('are what a run goes on with, whatever files lie there now', async () => {
    const settings = runSettings({ preset: minutePreset, steps: 2 });
    const begun = await prepareRun({
      ...{ dataset, settings },
      given: { tokenizer: fast, statistics: await given(3) },
      listener,
    });
    expect(begun.data.statistics).toBeNull();
    const { configuration, encoding, data } = begun;
    const kept = { run: settings, data, configuration, encoding: encoding.settings };
    const checkpoint = { settings: { ...kept, adapter: '', variants: { attention: [], matmul: [] } } };
    const resume = { ...checkpoint, progress: { step: 1 } } as unknown as Checkpoint;
    const resumed = await prepareRun({ dataset, settings, resume, listener });
    expect(resumed.encoding.settings).toEqual(encoding.settings);
    expect(resumed.data).toEqual(data);
  });

  test('that do not fit are refused', async () => {
    const statistics = await given(1);
    const refused = (options: Partial<Parameters<typeof checkGiven>[0]>) => () => checkGiven({ ...base, ...options });
    expect(refused({ tokenizer: fast, system: systemNamed('pi0') })).toThrow('tokenizer: pi0 has no action tokens');
    const settings = { ...runSettings({ system: 'pi0' }), tokens: 'bins' as const };
    expect(() => expectTokens(settings)).toThrow('--tokens: pi0 has no discrete tokens');
    expect(() => expectTokens({ ...settings, system: 'pi0-fast' })).not.toThrow();
    expect(refused({ statistics, dataset: { ...dataset, actionDimension: 4 } })).toThrow(
      'normalisation: statistics of 3 dimensions of actions, data set "synthetic" has 4',
    );
    expect(refused({ statistics: { ...statistics, states: null } })).toThrow(
      'statistics: the file has none of the state',
    );
    expect(refused({ statistics, dataset: { ...dataset, robots: {} } })).toThrow('robots with slot maps');
  });
});

test('the text vocabulary is the one kept in the settings', async () => {
  const dataset = syntheticDataset();
  const options = { dataset, system, preset: minutePreset, listener: { note() {} } };
  const settings = await fitted(options);
  const prompt = { instruction: 'put the red cube in the blue bin', state: [0, 0] };
  const ids = new Encoding(JSON.parse(JSON.stringify(settings))).promptIds(prompt);
  expect(ids).toEqual(new Encoding(settings).promptIds(prompt));
  const bytes = new Encoding({ ...settings, text: byteLevelTokenizerJson([]) });
  expect(bytes.promptIds(prompt).length).toBeGreaterThan(3 * ids.length);
  expect(bytes.decodeText(bytes.promptIds(prompt))).toContain(prompt.instruction);
});

test('a target without action tokens, and action tokens without a target, are refused', () => {
  const check = (change: Partial<System>) => () =>
    checkGiven({
      dataset: syntheticDataset(),
      system: { ...system, ...change },
      preset: minutePreset,
      listener: quietListener(),
    });
  expect(check({})).not.toThrow();
  expect(check({ actionTokens: null })).toThrow('actionTokens is null, and 1 of its blocks hold a target');
  expect(check({ blocks: system.blocks.filter(({ input }) => input !== 'target') })).toThrow(
    'actionTokens is fast, and 0 of its blocks hold a target',
  );
});

test('the last action dimension is a gripper if it takes two values, and a head of a gripper learns no other', async () => {
  const smooth = syntheticDataset();
  const gripping = {
    ...smooth,
    actionNames: ['x', 'y', 'gripper'],
    episodes: smooth.episodes.map((episode) => ({
      ...episode,
      actions: episode.actions.map((value, i) => (i % 3 === 2 ? Number(i > 20) : value)),
    })),
  };
  const preparing = async (dataset: Dataset) => {
    const notes: string[] = [];
    const { configuration } = await prepareRun({
      settings: runSettings({ system: 'robovlms-one-step-continuous', preset: minutePreset, ema: 0.999, steps: 100 }),
      dataset: { ...dataset, cameras: [...dataset.cameras, 'wrist'] },
      listener: quietListener({ note: (line: string) => void notes.push(line) }),
    });
    return { heads: configuration.objectives.map((own) => 'gripper' in own), notes };
  };
  const [without, own] = [await preparing(smooth), await preparing(gripping)];
  expect([without.heads, own.heads]).toEqual([[false], [true]]);
  expect(without.notes).toContain(
    'synthetic: action dimension 2 takes more than two values, so it is no gripper and is predicted as the others',
  );
  expect(own.notes).toContain(
    'synthetic: action dimension 2 (gripper) is taken for a gripper, which is open or closed',
  );
  expect(own.notes.join()).toContain('after 100 steps the average of --ema 0.999 still has 90 % of the first weights');
});

test('a system that sees one camera says which it leaves out', async () => {
  const dataset = { ...syntheticDataset(), cameras: ['front', 'wrist'] };
  const notes: string[] = [];
  const listener = { note: (line: string) => notes.push(line) };
  const { cameras } = await fitted({ dataset, system: systemNamed('openvla'), preset: minutePreset, listener });
  expect(cameras).toEqual(['front']);
  expect(notes).toContain('openvla sees front alone, and not wrist');
});
