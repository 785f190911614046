import { expect, test } from 'vitest';
import { splitDataset, wholeEpisodes } from '../../model/data/index.ts';
import type { RawObservation } from '../../model/policy/encoding.ts';
import type { Policy } from '../../model/policy/policy.ts';
import { predictedEpisodes } from '../../model/training/predicted-episodes.ts';
import { syntheticDataset, unloaded } from '../support/synthetic-dataset.ts';

const HORIZON = 5;

/** Answers with the first number of the state and the first byte of the picture, then the place in the chunk. */
function echo(dimensionOf: (observation: RawObservation) => number, samples: (number | undefined)[] = []): Policy {
  return {
    model: { configuration: { horizon: HORIZON } },
    encoding: { settings: { cameras: ['front'] } },
    async actInWindows(observations: readonly RawObservation[], { sample }: { sample?: number }) {
      samples.push(sample);
      return observations.map((observation) => {
        const dimension = dimensionOf(observation);
        const seen = [observation.state![0], observation.images.front!.pixels[0]];
        return Float32Array.from(
          { length: HORIZON * dimension },
          (_, i) => seen[i % dimension] ?? Math.floor(i / dimension),
        );
      });
    },
  } as unknown as Policy;
}

test('chunk after chunk, each from what was seen at its first step, noise of its own for each episode', async () => {
  const dataset = unloaded(syntheticDataset());
  const samples: (number | undefined)[] = [];
  const predicted = await predictedEpisodes(
    echo(() => 3, samples),
    dataset,
    wholeEpisodes(dataset.episodes),
  );
  expect(predicted).toMatchObject({
    name: 'synthetic, predicted',
    actionDimension: 3,
    stateDimension: 2,
    cameras: ['front'],
  });
  expect(new Set(samples).size).toBe(4);
  for (const [e, episode] of predicted.episodes.entries()) {
    const source = await dataset.episodes[e].load!();
    expect(episode).toMatchObject({ id: source.id, length: 12, instructions: source.instructions });
    expect(episode.states).toEqual(source.states);
    for (let step = 0; step < 12; step++) {
      const first = step - (step % HORIZON);
      const seen = [source.states![2 * first], (await source.image('front', first))!.pixels[0], step - first];
      expect(Array.from(episode.actions.subarray(3 * step, 3 * step + 3))).toEqual(seen);
    }
  }
});

test('of the held-out end of a single episode, its steps counted from there', async () => {
  const { heldOut } = splitDataset(syntheticDataset({ episodes: 1 }));
  const { from, episode: source } = heldOut[0];
  const { episodes } = await predictedEpisodes(
    echo(() => 3),
    syntheticDataset({ episodes: 1 }),
    heldOut,
  );
  expect(episodes[0].length).toBe(12 - from);
  expect(episodes[0].states).toEqual(source.states!.slice(2 * from));
  expect(await episodes[0].image('front', 1)).toEqual(await source.image('front', from + 1));
  expect(episodes[0].actions[0]).toBe(source.states![2 * from]);
});

test('robots of different dimensions are refused', async () => {
  const dataset = syntheticDataset({ episodes: 2 });
  const [first] = dataset.episodes[0].states!;
  const other = echo(({ state }) => (state![0] === first ? 3 : 2));
  await expect(predictedEpisodes(other, dataset, wholeEpisodes(dataset.episodes))).rejects.toThrow(
    'episode "synthetic-1": its robot has 2 action dimensions, the episodes before have 3',
  );
});
