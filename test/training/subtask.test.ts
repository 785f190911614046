/** What a policy says before it acts: its tokens, its grammar, its training targets, and its numbers for the expert. */
import { describe, expect, test } from 'vitest';
import { Model } from '../../model/architecture/model.ts';
import type { Dataset, Episode } from '../../model/data/dataset.ts';
import { evaluationSamples, mixDatasets, normalisers, ownSlotMap, wholeEpisodes } from '../../model/data/index.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { Policy } from '../../model/policy/policy.ts';
import type { Said } from '../../model/policy/subtask.ts';
import { systemNamed, withSubtask } from '../../model/systems/index.ts';
import { fitBaselines } from '../../model/training/baselines.ts';
import { BatchMaker, type MadeBatch } from '../../model/training/batches.ts';
import { exampleSampler } from '../../model/training/co-training.ts';
import { fittedConfiguration } from '../../model/training/fitted-configuration.ts';
import { fitEncoding, prepareData, statisticsOf } from '../../model/training/fitting.ts';
import { type RunSettings, runSettings } from '../../model/training/run-settings.ts';
import { testDevice } from '../support/devices.ts';
import { minutePreset, syntheticDataset } from '../support/synthetic-dataset.ts';
import { targetsOf } from '../support/targets.ts';

const HORIZON = 4;
const PLACES = [
  [0.25, 0.5],
  [0.75, 1],
] as const;

/** Every other episode has places and a subtask. */
function pointing(): Dataset {
  const plain = syntheticDataset();
  const episodes = plain.episodes.map((episode, i) =>
    i % 2 === 0 ? { ...episode, places: () => PLACES, subtask: () => 'reach for the cube' } : episode,
  );
  return { ...plain, episodes };
}

/** The data with changed episodes. */
const changed = (change: (episode: Episode) => Partial<Episode>, dataset = pointing()): Dataset => ({
  ...dataset,
  episodes: dataset.episodes.map((episode) => ({ ...episode, ...change(episode) })),
});

async function made(
  subtask: NonNullable<RunSettings['subtask']>,
  system = 'knowledge-insulation',
  dataset = pointing(),
  augment = false,
) {
  const options = { dataset, system: systemNamed(system), preset: minutePreset, subtask, listener: { note() {} } };
  const { split } = prepareData(dataset, 0);
  const statistics = await statisticsOf(dataset, split, HORIZON);
  const encoding = new Encoding(await fitEncoding(options, split, HORIZON, statistics));
  const configuration = await fittedConfiguration(options, split, encoding, HORIZON);
  const maker = new BatchMaker(encoding, configuration, runSettings({ seed: 1, augment }));
  const samples = [0, 1].map((i) => evaluationSamples(wholeEpisodes([dataset.episodes[i]]), 1)[0]);
  return { encoding, configuration, maker, samples, split };
}

describe('tokens', () => {
  test('places are location tokens of half a pixel, words are text behind them', async () => {
    const { encoding } = await made('both');
    const { subtask, text } = encoding;
    const ids = subtask!.encode({ words: 'reach', places: PLACES });
    const first = text.vocabularySize;
    // 16 pixels: every 32nd of the 1,024 locations.
    expect(ids.slice(0, 4).map((id) => id - first)).toEqual([256, 512, 768, 992]);
    expect(text.decode(ids.slice(4))).toBe('reach');
    const said = subtask!.decode(ids);
    expect(said.words).toBe('reach');
    expect(said.places).toHaveLength(2);
    said.places.flat().forEach((share, i) => {
      expect(Math.abs(share - PLACES.flat()[i])).toBeLessThan(1 / 32);
    });
  });

  test('the grammar: places in pairs, words only where the policy says some', async () => {
    const { subtask } = (await made('places')).encoding;
    const place = subtask!.encode({ words: '', places: PLACES });
    expect(subtask!.allowed([])).toHaveLength(1024 + 2);
    expect(subtask!.allowed(place.slice(0, 1))).toHaveLength(1024);
    expect(subtask!.allowed(place)).toBeNull();
    const both = (await made('both')).encoding.subtask!;
    expect(both.allowed(place)!.some((id) => both.isEnd(id))).toBe(true);
    expect(both.allowed([...place, ...both.encode({ words: 'reach', places: [] })])).not.toContain(place[0]);
  });

  test('numbers are v with sines and cosines of quarter, half and whole turns; zeros for a place that is not said', async () => {
    const { subtask } = (await made('places')).encoding;
    const numbers = subtask!.numbers({ words: '', places: [[0.75, 0.5]] });
    const half = Math.SQRT1_2;
    const expected = [0.5, half, 1, 0, Math.cos(Math.PI / 4), 0, -1].map((own, i) =>
      i === 1 ? Math.sin(Math.PI / 4) : own,
    );
    for (const [i, own] of expected.entries()) expect(numbers[i]).toBeCloseTo(own, 6);
    expect(numbers.slice(7, 14)).toEqual([0, 0, 0, 0, 1, 1, 1]);
    expect(numbers.slice(14)).toEqual(Array(14).fill(0));
  });
});

describe('training targets', () => {
  test('true places are predicted, those that are read lie a little beside; action tokens follow', async () => {
    const { encoding, configuration, maker, samples } = await made('places');
    const measured = await maker.make(samples, 3);
    const trained = await maker.make(samples, 3, { use: 'training' });
    const places = encoding.subtask!.encode({ words: '', places: PLACES });
    const [introduction] = encoding.subtask!.introduction;
    for (const batch of [measured, trained]) {
      const [pointed, without] = targetsOf(batch);
      expect(pointed.ids.slice(0, 5)).toEqual([...places, introduction]);
      expect(pointed.ids.slice(5, -1).every((id) => encoding.isAction(id))).toBe(true);
      expect(without.ids[0]).toBe(introduction);
      expect(without.ids.slice(1, -1).every((id) => encoding.isAction(id))).toBe(true);
      for (const { ids } of [pointed, without]) expect(ids.at(-1)).toBe(encoding.endOfSequence);
    }
    const { subtask } = measured.ids;
    expect([...Array.from(subtask.ids).slice(0, 4)]).toEqual(places);
    expect([...Array.from(subtask.valid)]).toEqual([1, 1, 1, 1, 0, 0, 0, 0]);
    expect(Array.from(trained.ids.subtask.ids)).not.toEqual(Array.from(subtask.ids));
    // Two places and a state of two numbers, of seven features each.
    const numbers = measured.numbers!.numbers;
    expect(numbers).toHaveLength(2 * 42);
    expect([...trained.numbers!.numbers]).not.toEqual([...numbers]);
    expect([...numbers.subarray(42, 42 + 28)]).toEqual(Array(28).fill(0));
    const states = normalisers(encoding.settings.statistics!).states!;
    const [episode] = pointing().episodes;
    const state = states.normalise(episode.states!.subarray(2 * samples[0].step, 2 * samples[0].step + 2));
    expect(numbers[28]).toBeCloseTo(state[0], 6);
    expect(numbers[35]).toBeCloseTo(state[1], 6);
    // The subtask is a target of its own: its mean counts beside that of the action tokens.
    expect(new Set(Array.from(measured.lossMask!))).toEqual(new Set([0, 1, 2]));
    expect(configuration.objectives[0]).toMatchObject({ kind: 'nextToken', perTarget: true });
  });

  test('places are those of the padded picture, augmented or not, and the unigram predictor counts these', async () => {
    const image = async () => ({ width: 32, height: 16, pixels: new Uint8Array(32 * 16 * 3).fill(100) });
    const wide = changed(() => ({ image }));
    const { encoding, configuration, split } = await made('places', 'pi0', wide);
    // 32 x 16 pixels are 16 x 8 of 16 x 16, behind 4 rows of padding.
    const padded = PLACES.map(([down, across]) => [(8 * down + 4) / 16, across] as const);
    const expected = encoding.subtask!.encode({ words: '', places: padded });
    for (const augment of [false, true]) {
      const { maker, samples } = await made('places', 'pi0', wide, augment);
      const [pointed] = targetsOf(await maker.make(samples, 0, { use: 'training' }));
      expect(pointed.ids.slice(0, 4)).toEqual(expected);
    }
    const samples = evaluationSamples(split.train);
    const { unigram } = await fitBaselines(samples, encoding, configuration);
    const [unpadded] = encoding.subtask!.encode({ words: '', places: PLACES });
    expect(unigram![expected[0]]).toBeGreaterThan(unigram![unpadded]);
  });

  test('augmentation moves no picture in which places are said', async () => {
    const pixels = Uint8Array.from({ length: 16 * 16 * 3 }, (_, i) => (Math.floor(i / 48) % 2) * 200);
    const image = async () => ({ width: 16, height: 16, pixels });
    const question = { image, prompt: 'point to the cube', answer: '<loc0512><loc0256>' };
    const striped = changed(() => ({ image }));
    /** Whether the bright rows of a picture are mixed with the dark ones. */
    const isMoved = ({ images, batch }: MadeBatch, example: number) => {
      const first = (example * images!.length) / batch;
      const rows = Array.from({ length: 16 }, (_, y) =>
        images!.subarray(first + y * 48, first + (y + 1) * 48).reduce((sum, own) => sum + own, 0),
      );
      const [even, odd] = [0, 1].map((first) => rows.filter((_, y) => y % 2 === first));
      return Math.max(...even) >= Math.min(...odd);
    };
    const [places, words] = [
      await made('places', undefined, striped, true),
      await made('words', undefined, striped, true),
    ];
    for (const step of [0, 1, 2]) {
      const pointing = await places.maker.make([...places.samples, question], step, { use: 'training' });
      expect([0, 1, 2].map((example) => isMoved(pointing, example))).toEqual([false, false, false]);
    }
    const answering = new Encoding({ ...words.encoding.settings, locations: true });
    const maker = new BatchMaker(answering, words.configuration, runSettings({ seed: 1, augment: true }));
    const talking = await maker.make([...words.samples, question], 0, { use: 'training' });
    expect([0, 1, 2].map((example) => isMoved(talking, example))).toEqual([true, true, false]);
  });

  test('co-training with a subtask of its own puts none before the action tokens', async () => {
    const { split } = await made('places');
    const answer = { image: async () => null!, prompt: 'caption en', answer: 'a cube' };
    const coTraining = { questions: { size: 1, at: () => answer }, heldOut: [] };
    const settings = runSettings({ cotrain: 0.5, subtask: 'places' });
    const examples = exampleSampler(split, settings, { coTraining }).batch(0, 16);
    expect(examples.filter((example) => 'part' in example)).toHaveLength(8);
    expect(examples.every((example) => !('subtask' in example))).toBe(true);
  });

  test('robots: places in a picture that is not the first of the mixture are left out, and states may be missing', async () => {
    const cameras = ['back', 'front'];
    const stateless = { ...pointing(), name: 'stateless', stateDimension: 0, cameras };
    const both = changed(
      ({ image }) => ({ cameras, states: null, image: (_, step) => image('front', step) }),
      stateless,
    );
    const members = [pointing(), both].map((dataset) => ({ dataset, slots: { ...ownSlotMap(dataset), width: 4 } }));
    const mixed = mixDatasets(members);
    expect([0, 4].map((i) => mixed.episodes[i].places === undefined)).toEqual([true, false]);
    const { maker, encoding } = await made('places', 'pi05', mixed);
    const samples = [0, 4].map((i) => evaluationSamples(wholeEpisodes([mixed.episodes[i]]), 1)[0]);
    const { numbers, ids } = await maker.make(samples, 0);
    expect([...Array.from(ids.subtask.valid)]).toEqual([0, 0, 0, 0, 1, 1, 1, 1]);
    const size = 7 * (4 + 4);
    expect(encoding.settings.robots!.stateless.statistics.states).toBeNull();
    expect([...numbers!.numbers.subarray(size + 28)]).toEqual(Array(4).fill([0, 0, 0, 0, 1, 1, 1]).flat());
  });

  test('the policy says as many places as any control step has', async () => {
    const places = (step: number) => PLACES.slice(0, Math.max(0, step - 8));
    const { encoding } = await made(
      'places',
      'pi0',
      changed(() => ({ places })),
    );
    expect(encoding.subtask!.settings.places).toBe(2);
  });

  test('the block holds the longest subtask of data of which only a part is encoded', async () => {
    const length = 40_000;
    const actions = Float32Array.from({ length: 3 * length }, (_, i) => Math.sin(i));
    const states = actions.subarray(0, 2 * length);
    const subtask = (step: number) => (step === 1 ? 'reach for the cube and for much more' : 'reach');
    const { configuration, encoding } = await made(
      'words',
      'pi0',
      changed(() => ({ length, actions, states, subtask })),
    );
    const [block] = configuration.blocks.filter(({ name }) => name === 'subtask');
    expect(block.length).toBe(encoding.subtask!.encode({ words: subtask(1), places: [] }).length);
  });

  test('pi0 learns to say places, and has no other tokens', async () => {
    const { encoding, maker, samples } = await made('places', 'pi0');
    const [pointed, without] = targetsOf(await maker.make(samples, 0));
    expect(pointed.ids).toEqual([...encoding.subtask!.encode({ words: '', places: PLACES }), encoding.endOfSequence]);
    expect(without.ids).toEqual([encoding.endOfSequence]);
  });
});

test.each(['knowledge-insulation', 'ki-continuous-state', 'pi0', 'pi0-fast', 'hybrid-vla', 'transfusion'])(
  '%s says places before it acts',
  async (system) => {
    const { encoding, configuration, maker, samples } = await made('places', system);
    const device = await testDevice('normal');
    using model = new Model(device, configuration);
    model.initialise(3);
    const { observations } = await maker.make(samples, 0);
    const said: Said[] = [];
    const parts: string[] = [];
    const chunks = await new Policy(model, encoding).act(observations, {
      steps: 2,
      onSaid: (own) => said.push(...own),
      onLatency: (part) => parts.push(part.split(':')[0]),
    });
    expect(parts.slice(0, 2)).toEqual(['subtask', 'subtask']);
    expect(parts.at(-1)).not.toBe('subtask');
    expect(chunks.every((own) => own.length === HORIZON * 3 && own.every(Number.isFinite))).toBe(true);
    expect(said).toHaveLength(2);
    for (const { places, words } of said) {
      expect(words).toBe('');
      expect(places.length).toBeLessThanOrEqual(2);
      expect(places.flat().every((share) => share >= 0 && share <= 1)).toBe(true);
    }
  },
);

describe('refused in one line', () => {
  test('a question to a policy that has no tokens but those of its subtask', async () => {
    const { encoding, configuration, maker, samples } = await made('places', 'pi0');
    using model = new Model(await testDevice('normal'), configuration);
    model.initialise(3);
    const policy = new Policy(model, encoding);
    const [observation] = (await maker.make(samples, 0)).observations;
    await expect(policy.generateText([{ ...observation, request: 'answer' }])).rejects.toThrow(
      'this policy predicts no tokens but those of its subtask, so it cannot answer questions',
    );
    const [subtask] = await policy.generateText([{ ...observation, request: 'subtask' }]);
    expect(subtask).toMatch(/^(<loc\d{4}>){0,4}$/);
  });

  test('data without places, or without subtasks in words', async () => {
    await expect(made('places', 'pi0', syntheticDataset())).rejects.toThrow(
      /^--subtask places: data set "synthetic" has no places to point at; leave it out, or give --subtask none$/,
    );
    await expect(made('words', 'pi0', syntheticDataset())).rejects.toThrow(
      /^--subtask words: data set "synthetic" has no subtasks in words; leave it out, or give --subtask none$/,
    );
    const blind = changed(() => ({ cameras: [], image: async () => null }), { ...pointing(), cameras: [] });
    await expect(made('places', 'pi0', blind)).rejects.toThrow(
      /^--subtask places: data set "synthetic" has no pictures to point in; leave it out, or give --subtask none$/,
    );
  });

  test('a subtask that is longer than its block', async () => {
    const { maker, samples } = await made('words');
    const [{ part, ...sample }] = samples;
    const episode = { ...part.episode, subtask: () => 'reach for the cube and for much more' };
    await expect(maker.make([{ ...sample, part: { ...part, episode } }], 0)).rejects.toThrow(
      /^episode "synthetic-0": its subtask "reach for the cube and for much more" at step \d+ has \d+ tokens; this model takes at most \d+: shorten it$/,
    );
  });

  test('a system in which the prompt sees the actions', async () => {
    expect(withSubtask(systemNamed('openvla-oft'), { tokens: 1, dimension: 0 })).toBeNull();
    await expect(made('places', 'openvla-oft')).rejects.toThrow(
      /^--subtask: openvla-oft lets its prompt see the actions/,
    );
  });
});
