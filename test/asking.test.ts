import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { act } from '../cli/act.ts';
import type { AskResult } from '../cli/asking.ts';
import { readOptions } from '../cli/options.ts';
import { type ActResult, askLines } from '../cli/text.ts';
import { InputError } from '../engine/index.ts';
import type { Episode, Image } from '../model/data/dataset.ts';
import { decodeImage, encodePng, shareBeforePadding, writeLeRobot } from '../model/data/index.ts';
import { Policy } from '../model/policy/policy.ts';
import { drawPlaces } from '../model/report/drawn-picture.ts';
import { openVisionLanguageModel } from '../model/training/vision-language-file.ts';
import { testDevice } from './support/devices.ts';
import { runCommand } from './support/run-command.ts';
import { syntheticDataset } from './support/synthetic-dataset.ts';
import { trainRun } from './support/train-run.ts';
import { writeSeeing } from './support/vision-language.ts';

let folder = '';
const at = (name: string) => join(folder, name);
const grey = (width: number, height: number): Image => ({
  ...{ width, height },
  pixels: new Uint8Array(width * height * 3).fill(90),
});
const pngAt = async (path: string) => decodeImage(new Uint8Array(await readFile(path)), 'image/png', path);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-asking-'));
  await writeSeeing(at('seeing.safetensors'), await testDevice('normal'));
  await writeFile(at('wide.png'), encodePng(grey(64, 32)));
  await writeFile(at('text.png'), 'no image');
  const from = await openVisionLanguageModel(at('seeing.safetensors'));
  for (const [name, given] of [
    ['plain', { system: 'pi0' }],
    ['flow', { system: 'pi0', from }],
    ['policy', { system: 'knowledge-insulation', from }],
  ] as const)
    (await trainRun(at(`${name}.safetensors`), { steps: 1, ...given })).policy.model.dispose();
  await from.close();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const renamed = (episode: Episode): Episode => ({
  ...episode,
  cameras: ['top'],
  image: (_, step) => episode.image('front', step),
});

/** Runs `insula act` with an answer that is not left to random weights. */
async function asked(
  values: Parameters<typeof runCommand<(typeof act)['options'], ActResult | AskResult>>[1],
  answer: string,
) {
  const spy = vi.spyOn(Policy.prototype, 'generateText').mockResolvedValue([answer]);
  try {
    const { json, lines } = await runCommand(act, { checkpoint: at('seeing.safetensors'), ...values });
    return { json: json as AskResult, lines: lines.map((line) => line.replaceAll(folder, '')), calls: spy.mock.calls };
  } finally {
    spy.mockRestore();
  }
}

describe('insula act --ask', () => {
  test('asks a vision-language model about an image and draws the places of its answer', async () => {
    // The model's picture is 16 x 16: the image has its rows 4 to 11.
    const answer = '<loc0512><loc0256> red cube ; <loc0256><loc0000><loc0767><loc1023> table';
    const values = { ask: 'point to the red cube', image: at('wide.png'), picture: at('drawn.png') };
    const { json, lines, calls } = await asked(values, answer);
    expect(calls[0][0]).toMatchObject([{ instruction: 'point to the red cube', request: 'answer' }]);
    expect(json.places.map(({ label }) => label)).toEqual(['red cube', 'table']);
    expect(json.places[0].pixels.map(Math.round)).toEqual([16, 16]);
    expect(json.places[1].pixels.map(Math.round)).toEqual([0, 0, 32, 64]);
    expect(lines).toEqual([
      '/wide.png',
      `point to the red cube: ${answer}`,
      '  red cube: x 16.0, y 16.0 of 64 x 32 pixels',
      '  table: x 0.0 to 64.0, y 0.0 to 32.0 of 64 x 32 pixels',
      'drawn into /drawn.png',
      expect.stringMatching(/^answered on /),
    ]);
    const drawn = await pngAt(at('drawn.png'));
    expect([drawn.width, drawn.height]).toEqual([384, 192]);
    const pixel = (x: number, y: number) => Array.from(drawn.pixels.subarray((y * 384 + x) * 3, (y * 384 + x) * 3 + 3));
    expect(pixel(96, 96)).toEqual([255, 0, 200]);
    expect(pixel(300, 96)).toEqual([90, 90, 90]);
  });

  test('answers with the words that the model predicts, and writes no picture unasked', async () => {
    const { json } = await runCommand(act, {
      ...{ checkpoint: at('seeing.safetensors'), ask: 'what is it?', image: at('wide.png') },
    });
    expect(json).toMatchObject({ question: 'what is it?', picture: null, size: [32, 64] });
    const { answer } = json as AskResult;
    const again = await runCommand(act, {
      checkpoint: at('policy.safetensors'),
      ask: 'what is it?',
      image: at('wide.png'),
    });
    expect(typeof answer).toBe('string');
    expect(again.json).toMatchObject({ question: 'what is it?', about: at('wide.png') });
    expect(again.json).not.toHaveProperty('predicted');
  });

  test('draws an answer at a temperature, the same again for its seed', async () => {
    const drawn = async (seed: number) => {
      const values = { ask: 'what is it?', image: at('wide.png'), seed, temperature: 3 };
      return ((await runCommand(act, { checkpoint: at('seeing.safetensors'), ...values })).json as AskResult).answer;
    };
    const first = await drawn(1);
    expect(await drawn(1)).toBe(first);
    expect(await drawn(2)).not.toBe(first);
  });

  test('asks about a frame of data, from another camera if it must', async () => {
    const dataset = syntheticDataset();
    const named = { ...dataset, cameras: ['top'], episodes: dataset.episodes.map(renamed) };
    await writeLeRobot(at('data'), named);
    const { json, calls } = await asked({ ask: 'what is it?', data: [at('data')], episode: '1', step: 3 }, 'yes');
    expect(json).toMatchObject({
      about: 'episode episode_000001, step 3, camera top',
      answer: 'yes',
      places: [],
      size: [16, 16],
    });
    const image = await dataset.episodes[1].image('front', 3);
    expect(calls[0][0][0].images.front?.pixels).toEqual(image!.pixels);
    await refused(
      { ask: 'x', data: [at('data')], step: 12 },
      /^--step 12: episode "episode_000000" has steps 0 to 11$/,
    );
    await writeLeRobot(at('blind'), syntheticDataset({ images: false }));
    await refused({ ask: 'x', data: [at('blind')] }, /^--ask: "blind" has no image at .*; name one with --image$/);
  });

  const refused = async (values: object, message: RegExp) => {
    const error = await runCommand(act, { checkpoint: at('seeing.safetensors'), ...values }).catch((own) => own);
    expect(error).toBeInstanceOf(InputError);
    expect(error.message.replaceAll(folder, '')).toMatch(message);
    expect(error.message).not.toMatch(/\n/);
  };

  test('refusals are one line', async () => {
    const image = at('wide.png');
    await refused(
      {},
      /^--checkpoint \/seeing\.safetensors: a vision-language model .* does not act: ask one with --ask$/,
    );
    await refused({ ask: 'x', seed: 1 }, /^--seed: a vision-language model .* does not act: leave it out$/);
    await refused({ ask: 'x', seed: 1, image }, /^--seed: an answer takes the likeliest tokens: give --temperature, /);
    await refused(
      { temperature: 1, checkpoint: at('plain.safetensors') },
      /^--temperature: pi0 writes no tokens; leave it out$/,
    );
    await refused(
      { ask: 'x', image: at('text.png') },
      /^--image \/text\.png: no image file; JPEG, PNG and WebP are read/,
    );
    await refused({ ask: 'x', image: at('gone.png') }, /gone\.png: cannot open it: no such file or folder$/);
    await refused(
      { ask: 'x'.repeat(200), image },
      /^instruction "x+\.\.\. gives a prompt of \d+ tokens; this model takes/,
    );
    await refused({ ask: 'x', image, checkpoint: at('plain.safetensors') }, /^--ask: this policy was trained without/);
    await refused(
      { ask: 'x', image, checkpoint: at('flow.safetensors') },
      /^this policy predicts no tokens, so it cannot/,
    );
    await refused({ ask: 'x', image, checkpoint: at('wide.png') }, /wide\.png: .*not a safetensors file/);
    await expect(stat(at('none.png'))).rejects.toThrow();
    const read = (...words: string[]) => readOptions('act', act, ['--ask', 'x', ...words]);
    for (const other of [
      ['--episode', '1'],
      ['--step', '2'],
      ['--data', 'a'],
    ])
      expect(() => read('--image', 'a.png', ...other)).toThrow(/^act: --image .*; see insula act --help$/);
    for (const name of ['image', 'picture'])
      expect(() => readOptions('act', act, [`--${name}`, 'a.png'])).toThrow(/^act: --\w+ .*--ask/);
  });
});

describe('a drawn picture', () => {
  const count = ({ pixels }: Image, [red, green, blue]: readonly number[]) => {
    let found = 0;
    for (let i = 0; i < pixels.length; i += 3)
      if (pixels[i] === red && pixels[i + 1] === green && pixels[i + 2] === blue) found++;
    return found;
  };

  test('is the image in larger pixels where nothing is drawn', () => {
    const image = { width: 2, height: 1, pixels: Uint8Array.from([1, 2, 3, 4, 5, 6]) };
    const drawn = drawPlaces(image, []);
    expect([drawn.width, drawn.height]).toEqual([384, 192]);
    expect([count(drawn, [1, 2, 3]), count(drawn, [4, 5, 6])]).toEqual([192 * 192, 192 * 192]);
    const large = grey(500, 400);
    expect(drawPlaces(large, [])).toEqual(large);
  });

  test('has a ring and a cross at a point, and the outline of a box, within the picture', () => {
    const point = drawPlaces(grey(64, 64), [{ coordinates: [0.5, 0.25], label: 'a' }]);
    const isDrawn = ({ pixels, width }: Image, x: number, y: number) => pixels[(y * width + x) * 3 + 1] === 0;
    expect([96, 96 + 13, 96 - 13].map((x) => isDrawn(point, x, 192))).toEqual([true, true, true]);
    expect(isDrawn(point, 192, 96)).toBe(false);
    expect(count(point, [90, 90, 90])).toBeGreaterThan(0.99 * 384 * 384);
    const box = drawPlaces(grey(64, 64), [{ coordinates: [0.25, 0.5, 0.75, 1], label: '' }]);
    expect(isDrawn(box, 192, 200) && isDrawn(box, 300, 96) && isDrawn(box, 300, 288)).toBe(true);
    expect(isDrawn(box, 280, 192)).toBe(false);
    const outside = drawPlaces(grey(64, 64), [{ coordinates: [-0.5, 1.5], label: '' }]);
    expect(count(outside, [90, 90, 90])).toBe(384 * 384);
  });

  test('places of a padded image are those of the image', () => {
    const padded = { width: 64, height: 64 };
    const [tall, wide] = [grey(30, 60), grey(50, 20)];
    expect(shareBeforePadding(0.5, 'width', tall, padded)).toBe(0.5);
    expect(shareBeforePadding(0.25, 'width', tall, padded)).toBe(0);
    expect(shareBeforePadding(0.25, 'height', tall, padded)).toBe(0.25);
    expect(shareBeforePadding(0.1, 'height', wide, padded)).toBeLessThan(0);
    expect(shareBeforePadding(0.7, 'width', padded as Image, padded)).toBe(0.7);
  });
});

test('a place without a label is called one', () => {
  const places = [{ label: '', pixels: [1, 2] }];
  const lines = askLines({
    ...{ question: 'q', answer: 'a', places, size: [8, 9], picture: null, about: 'p', adapter: 'z' },
  });
  expect(lines).toEqual(['p', 'q: a', '  place: x 2.0, y 1.0 of 9 x 8 pixels', 'answered on z']);
});
