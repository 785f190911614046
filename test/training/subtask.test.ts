/** What a policy says before it acts: its tokens, its grammar, its training targets, and its numbers for the expert. */
import { describe, expect, test } from 'vitest';
import { Model } from '../../model/architecture/model.ts';
import type { Dataset } from '../../model/data/dataset.ts';
import { evaluationSamples, normalisers, wholeEpisodes } from '../../model/data/index.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { Policy } from '../../model/policy/policy.ts';
import type { Said } from '../../model/policy/subtask.ts';
import { systemNamed, withSubtask } from '../../model/systems/index.ts';
import { BatchMaker } from '../../model/training/batches.ts';
import { fitEncoding, fittedConfiguration, prepareData, statisticsOf } from '../../model/training/fitting.ts';
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

async function made(
  subtask: NonNullable<RunSettings['subtask']>,
  system = 'knowledge-insulation',
  dataset = pointing(),
) {
  const options = { dataset, system: systemNamed(system), preset: minutePreset, subtask, listener: { note() {} } };
  const { split } = prepareData(dataset, 0);
  const statistics = await statisticsOf(dataset, split, HORIZON);
  const encoding = new Encoding(await fitEncoding(options, split, HORIZON, statistics));
  const configuration = await fittedConfiguration(options, split, encoding, HORIZON);
  const maker = new BatchMaker(encoding, configuration, runSettings({ seed: 1 }));
  const samples = [0, 1].map((i) => evaluationSamples(wholeEpisodes([dataset.episodes[i]]), 1)[0]);
  return { encoding, configuration, maker, samples };
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
    expect(subtask!.allowed(place)).toEqual([]);
    const both = (await made('both')).encoding.subtask!;
    expect(both.allowed(place).some((id) => both.isEnd(id))).toBe(true);
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

  test('pi0 learns to say places, and has no other tokens', async () => {
    const { encoding, maker, samples } = await made('places', 'pi0');
    const [pointed, without] = targetsOf(await maker.make(samples, 0));
    expect(pointed.ids).toEqual([...encoding.subtask!.encode({ words: '', places: PLACES }), encoding.endOfSequence]);
    expect(without.ids).toEqual([encoding.endOfSequence]);
  });
});

test.each(['knowledge-insulation', 'pi0', 'pi0-fast', 'hybrid-vla'])(
  '%s says places before it acts',
  async (system) => {
    const { encoding, configuration, maker, samples } = await made('places', system);
    const device = await testDevice('normal');
    using model = new Model(device, configuration);
    model.initialise(3);
    const { observations } = await maker.make(samples, 0);
    const said: Said[] = [];
    const chunks = await new Policy(model, encoding).act(observations, {
      steps: 2,
      onSaid: (own) => said.push(...own),
    });
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
  test('data without places, or without subtasks in words', async () => {
    await expect(made('places', 'pi0', syntheticDataset())).rejects.toThrow(
      /^--subtask places: data set "synthetic" has no places to point at; leave it out, or give --subtask none$/,
    );
    await expect(made('words', 'pi0', syntheticDataset())).rejects.toThrow(
      /^--subtask words: data set "synthetic" has no subtasks in words; leave it out, or give --subtask none$/,
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
