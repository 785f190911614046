import { describe, expect, test } from 'vitest';
import { type Example, evaluationSamples, type VisionLanguage, wholeEpisodes } from '../../model/data/index.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { systemNamed } from '../../model/systems/index.ts';
import { BatchMaker, chunkOf } from '../../model/training/batches.ts';
import type { CoTraining } from '../../model/training/co-training.ts';
import { fittedConfiguration } from '../../model/training/fitted-configuration.ts';
import { fitEncoding, prepareData, statisticsOf } from '../../model/training/fitting.ts';
import { runSettings } from '../../model/training/run-settings.ts';
import { minutePreset, syntheticDataset } from '../support/synthetic-dataset.ts';
import { targetsOf } from '../support/targets.ts';

const HORIZON = 4;

const white = { width: 16, height: 16, pixels: new Uint8Array(16 * 16 * 3).fill(255) };
const questions: VisionLanguage[] = [
  { image: async () => white, prompt: 'caption en', answer: 'a red cube' },
  { image: async () => white, prompt: 'point to the cube', answer: '<loc0010><loc1023> cube' },
];

/** A data set of the cameras `front` and `wrist`, which see the same picture of two halves, and what makes its batches. */
async function twoCameras(seed = 1, system = 'pi0', coTraining?: CoTraining) {
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
  const options = { dataset, system: systemNamed(system), preset: minutePreset, coTraining, listener: { note() {} } };
  const { split } = prepareData(dataset, 0);
  const encoding = new Encoding(
    await fitEncoding(options, split, HORIZON, await statisticsOf(dataset, split, HORIZON)),
  );
  const fitted = await fittedConfiguration(options, split, encoding, HORIZON);
  // Room for a subtask, which no data of the run have.
  const blocks = fitted.blocks.map((block) =>
    block.input === 'prompt' || block.input === 'target' ? { ...block, length: block.length + 8 } : block,
  );
  const configuration = { ...fitted, blocks };
  const samples = evaluationSamples(wholeEpisodes(episodes), 3);
  return {
    encoding,
    configuration,
    maker: new BatchMaker(encoding, configuration, runSettings({ seed, augment: true })),
    samples,
  };
}

describe('augmentation', () => {
  test('depends on seed and step, differs between images, and is off by default', async () => {
    const { maker, samples } = await twoCameras();
    const images = async (own: BatchMaker, step: number, augment = true) =>
      (await own.make(samples, step, { use: augment ? 'training' : 'measuring' })).images!;
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
    const { images, observations } = await maker.make(samples, 5, { use: 'training' });
    const rows = (slot: number) =>
      Array.from({ length: 16 }, (_, row) => [...images!.subarray((slot * 16 + row) * 48, (slot * 16 + row + 1) * 48)]);
    const upright = (slot: number) => rows(slot).every((row) => row.join() === rows(slot)[0].join());
    expect([0, 1, 2, 3, 4, 5].map(upright)).toEqual([false, true, false, true, false, true]);
    // The report shows the images that the model was given.
    const { pixels } = observations[0].images.wrist!;
    expect(images![16 * 16 * 3]).toBeCloseTo((pixels[0] / 255) * 2 - 1, 6);
  });
});

describe('three kinds of examples in one batch', () => {
  const source = { size: 2, at: (place: number) => questions[place % 2] };
  const coTraining = { questions: source, heldOut: [] };

  test('each with its prompt, its targets and its masks', async () => {
    const { maker, samples, encoding, configuration } = await twoCameras(1, 'knowledge-insulation', coTraining);
    const [action] = samples;
    const examples: Example[] = [...questions, action, { ...action, subtask: 'reach' }];
    const batch = await maker.make(examples, 0);
    const { text, endOfSequence } = encoding;
    const { language, target } = batch.ids;
    const length = language.ids.length / 4;
    const prompts = examples.map((_, i) => {
      const real = Array.from({ length }, (_, k) => i * length + k).filter((k) => language.valid[k]);
      return text.decode(real.map((k) => language.ids[k]));
    });
    expect(prompts.slice(0, 2)).toEqual(['caption en\n', 'point to the cube\n']);
    expect(prompts[2]).toMatch(/^Task: put the red cube in the blue bin, State: [\d ]+;\nAction: $/);
    expect(prompts[3]).toBe(prompts[2].replace('Action', 'Subtask'));

    const targets = targetsOf(batch);
    const [caption, point, actions, both] = targets.map(({ ids }) => ids);
    expect(text.decode(caption)).toBe('a red cube');
    const first = text.vocabularySize;
    expect(point.slice(0, 2)).toEqual([first + 10, first + 1023]);
    expect(text.decode(point.slice(2))).toBe(' cube');
    expect(actions.slice(0, -1).every((id) => encoding.isAction(id) && id >= first + 1024)).toBe(true);
    expect(both.slice(-actions.length)).toEqual(actions);
    expect(text.decode(both.slice(0, -actions.length))).toBe('reach;\nAction: ');
    for (const { ids } of targets) expect(ids.at(-1)).toBe(endOfSequence);
    expect(encoding.vocabularySize).toBe(first + 1024 + encoding.actions!.vocabularySize);

    // Every token is predicted by the row before it, the first by the last of the prompt.
    const blocks = configuration.blocks.filter(({ weights }) => weights === 'backbone');
    const startOf = (name: string) =>
      blocks
        .slice(
          0,
          blocks.findIndex((block) => block.name === name),
        )
        .reduce((sum, block) => sum + block.length, 0);
    targets.forEach(({ rows, ids }, i) => {
      const real = Array.from(language.valid)
        .slice(i * length, (i + 1) * length)
        .lastIndexOf(1);
      const expected = [startOf('language') + real, ...ids.slice(1).map((_, k) => startOf('target') + k)];
      expect(rows).toEqual(expected);
      const room = target.ids.length / 4;
      const given = Array.from({ length: room }, (_, k) => i * room + k).filter((k) => target.valid[k]);
      expect(given.map((k) => target.ids[k])).toEqual(ids.slice(0, -1));
    });
    const valid = Array.from(batch.actionValid!);
    expect(valid).toEqual([...Array(2 * HORIZON).fill(0), ...Array(2 * HORIZON).fill(1)]);
    expect([...chunkOf(batch, 0), ...chunkOf(batch, 1)].every((value) => value === 0)).toBe(true);
    // A question shows one image, in the place of the first camera.
    expect([...(batch.cameraValid as Uint8Array)]).toEqual([1, 0, 1, 0, 1, 1, 1, 1]);
    expect(batch.images![0]).toBe(1);
  });

  test('without co-training the vocabulary has no locations, and questions are refused', async () => {
    const { maker, encoding } = await twoCameras(1, 'knowledge-insulation');
    expect(encoding.vocabularySize).toBe(encoding.text.vocabularySize + encoding.actions!.vocabularySize);
    await expect(maker.make([questions[0]], 0)).rejects.toThrow('no location tokens');
  });
});
