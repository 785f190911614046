import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import {
  type Dataset,
  evaluationSamples,
  mixDatasets,
  openDataset,
  ownSlotMap,
  wholeEpisodes,
} from '../../model/data/index.ts';
import { deltaDimensions, deltaWarning, withDeltas } from '../../model/training/deltas.ts';
import { prepareRun } from '../../model/training/prepare-run.ts';
import { runSettings } from '../../model/training/run-settings.ts';
import { normals } from '../support/numbers.ts';
import { minutePreset, quietListener, syntheticDataset } from '../support/synthetic-dataset.ts';

const looks = (dataset: Dataset) =>
  deltaWarning(dataset.name, evaluationSamples(wholeEpisodes(dataset.episodes)), deltaDimensions(dataset));

/** States that move at random, and actions that are the next state or, for `differences`, the way to it. */
function walking(differences: boolean): Dataset {
  const plain = syntheticDataset();
  const episodes = plain.episodes.map((episode, index) => {
    const steps = normals(episode.actions.length, index, 0.1);
    const states = new Float32Array(steps.length);
    for (let i = 3; i < steps.length; i++) states[i] = states[i - 3] + steps[i - 3];
    return { ...episode, states, actions: differences ? steps : states.map((value, i) => value + steps[i]) };
  });
  return { ...plain, stateDimension: 3, episodes };
}

describe('actions as differences to the state', () => {
  test('all but the last dimension and grippers, where the state has them', () => {
    const robot = { name: 'arm', actionDimension: 3, stateDimension: 4 };
    expect(deltaDimensions(robot)).toEqual([true, true, false]);
    expect(deltaDimensions({ ...robot, actionNames: ['Gripper 1', 'x', 'y'] })).toEqual([false, true, false]);
    expect(() => deltaDimensions({ ...robot, stateDimension: 0 })).toThrow('--delta: "arm" has no state to subtract');
    expect(() => deltaDimensions({ ...robot, stateDimension: 2 })).toThrow(
      'has 3 action dimensions and 2 of the state',
    );
    const dataset = walking(false);
    const { robots } = withDeltas({ ...dataset, robots: { one: ownSlotMap(dataset) } });
    expect(robots!.one.actions.map(({ relative }) => relative)).toEqual([true, true, false]);
  });

  test('actions that are differences already are told from absolute ones', async () => {
    expect(await looks(walking(false))).toBeNull();
    expect(await looks(walking(true))).toMatch(
      /^--delta: the actions of "synthetic" look like differences already: in 2 of 2 dimensions .* \(correlation 1\.00\)/,
    );
  });

  const shared = fileURLToPath(new URL('../../../shared/data', import.meta.url));
  test.runIf(existsSync(shared))('also on real data', async () => {
    const found = await Promise.all(
      ['bridge', 'aloha_sim'].map(async (name) => looks(await openDataset(shared, name, { cameras: [] }))),
    );
    expect(found).toEqual([expect.stringContaining('in 6 of 6 dimensions'), null]);
  });
});

test('only a run with --delta is told that its actions are differences already', async () => {
  const dataset = walking(true);
  const own = ownSlotMap(dataset);
  const slots = { ...own, actions: own.actions.map((slot, i) => ({ ...slot, relative: i < 2 })) };
  const warned = async (delta: boolean) => {
    const notes: string[] = [];
    await prepareRun({
      settings: runSettings({ preset: minutePreset, system: 'pi0', delta }),
      dataset: mixDatasets([{ dataset, slots }]),
      listener: quietListener({ note: (line) => void notes.push(line) }),
    });
    return notes.some((line) => line.includes('look like differences already'));
  };
  expect([await warned(true), await warned(false)]).toEqual([true, false]);
});
