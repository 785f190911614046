import { describe, expect, test } from 'vitest';
import { evaluationSamples, wholeEpisodes } from '../../model/data/index.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { systemNamed } from '../../model/systems/index.ts';
import { BatchMaker } from '../../model/training/batches.ts';
import { configurationFor, fitEncoding, prepareData } from '../../model/training/fitting.ts';
import { minutePreset, syntheticDataset } from '../support/synthetic-dataset.ts';

const HORIZON = 4;

/** A data set of the cameras `front` and `wrist`, which see the same picture of two halves, and what makes its batches. */
async function twoCameras(seed = 1) {
  const size = 16;
  const pixels = Uint8Array.from({ length: size * size * 3 }, (_, i) =>
    Math.floor(i / 3) % size < size / 2 ? 40 : 160,
  );
  const plain = syntheticDataset();
  const cameras = ['front', 'wrist'];
  const episodes = plain.episodes.map((episode) => ({
    ...episode,
    cameras,
    image: async () => ({ width: size, height: size, pixels }),
  }));
  const dataset = { ...plain, cameras, episodes };
  const options = { dataset, system: systemNamed('pi0'), preset: minutePreset, listener: { note() {} } };
  const { split } = prepareData(dataset, 0);
  const encoding = new Encoding(await fitEncoding(options, split, HORIZON));
  const configuration = await configurationFor(options, split, encoding, HORIZON);
  return {
    maker: new BatchMaker(encoding, configuration, seed),
    samples: evaluationSamples(wholeEpisodes(episodes), 3),
  };
}

describe('augmentation', () => {
  test('is drawn by seed and step, for every image anew, and only where asked for', async () => {
    const { maker, samples } = await twoCameras();
    const images = async (own: BatchMaker, step: number, augment = true) =>
      (await own.make(samples, step, { augment })).images!;
    const first = await images(maker, 5);
    expect(await images(maker, 5)).toEqual(first);
    expect(await images((await twoCameras()).maker, 5)).toEqual(first);
    const { images: untouched } = await maker.make(samples, 5);
    expect(await images(maker, 5, false)).toEqual(untouched);
    for (const other of [await images(maker, 6), await images((await twoCameras(2)).maker, 5), untouched!])
      expect(other).not.toEqual(first);
    const one = first.length / 6;
    for (let i = 1; i < 6; i++) expect(first.slice(i * one, (i + 1) * one)).not.toEqual(first.slice(0, one));
  });

  test('leaves everything of a wrist camera in its place', async () => {
    const { maker, samples } = await twoCameras();
    const { images, observations } = await maker.make(samples, 5, { augment: true });
    const rows = (slot: number) =>
      Array.from({ length: 16 }, (_, row) => [...images!.subarray((slot * 16 + row) * 48, (slot * 16 + row + 1) * 48)]);
    const upright = (slot: number) => rows(slot).every((row) => row.join() === rows(slot)[0].join());
    expect([0, 1, 2, 3, 4, 5].map(upright)).toEqual([false, true, false, true, false, true]);
    // What the report shows is what the model saw.
    const { pixels } = observations[0].images.wrist!;
    expect(images![16 * 16 * 3]).toBeCloseTo((pixels[0] / 255) * 2 - 1, 6);
  });
});
