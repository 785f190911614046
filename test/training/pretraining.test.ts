import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { randomStream, withoutTape } from '../../engine/index.ts';
import { blockNamed } from '../../model/architecture/configuration.ts';
import { orderedRows } from '../../model/architecture/initialise.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { rowsOf, trainingBlocks } from '../../model/architecture/sequence.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { namedQuestions } from '../../model/training/named-images.ts';
import { PackMaker } from '../../model/training/pack-maker.ts';
import { imagePacks, type Pack } from '../../model/training/packs.ts';
import type { RunListener } from '../../model/training/prepare-run.ts';
import {
  type PretrainingOptions,
  type PretrainingResult,
  preparePretraining,
  pretrainingSettings,
  runPretraining,
} from '../../model/training/pretrain.ts';
import { testDevice } from '../support/devices.ts';
import { squares, squaresPreset } from '../support/squares.ts';
import { quietListener } from '../support/synthetic-dataset.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-pretraining-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function pretrain(
  file: string,
  { signal, ...given }: Partial<PretrainingOptions> & { signal?: AbortSignal } = {},
): Promise<PretrainingResult> {
  const settings = given.resume?.settings.run ?? pretrainingSettings({ preset: squaresPreset, seed: 3 });
  const prepared = await preparePretraining({ settings, source: squares, listener: quietListener(), ...given });
  return runPretraining(await testDevice('normal'), prepared, { checkpointPath: join(folder, file), signal });
}

/** Mean distance between the places that the model says and the true ones, as a share of the picture. */
async function pointingError({ model, encoding, settings, source }: PretrainingResult): Promise<number> {
  const { architecture, device, configuration } = model;
  const maker = new PackMaker(encoding, configuration, settings.run, source.slots);
  const batch = await maker.make(source.heldOut, 0);
  const inputs = trainingInputs(architecture, batch);
  const prediction = await withoutTape(device, () =>
    device.step(() => trainingPass(model, tensorsOf(device, inputs), { allRows: true }).objectives.token.prediction),
  ).read('u32');
  const bin = (id: number) => Number(/^<loc(\d{4})>$/.exec(encoding.decodeText([id]))?.[1] ?? Number.NaN) / 1023;
  const distances = Array.from(batch.lossMask!).flatMap((own, row) => {
    const place = own ? bin(batch.lossTarget![row]) : Number.NaN;
    return Number.isNaN(place) ? [] : [Math.abs(bin(prediction[row]) - place)];
  });
  expect(distances.length).toBe(source.heldOut.length * 4);
  return distances.reduce((sum, own) => sum + own, 0) / distances.length;
}

/** All that a run has measured, but for the clock. */
const withoutTimes = ({ history }: PretrainingResult) => ({
  ...history,
  training: history.training.map(({ step, losses }) => ({ step, losses })),
});

test('a small model learns to point to the square that a question names', async () => {
  const settings = pretrainingSettings({ preset: squaresPreset, seed: 1 });
  const run = await pretrain('learns.safetensors', { settings });
  const [first, last] = [run.history.heldOut[0], run.history.heldOut.at(-1)!].map(({ losses }) => losses);
  // A place that ignores the picture is a quarter of the picture off.
  expect(await pointingError(run)).toBeLessThan(0.12);
  expect(Object.keys(last)).toEqual(['token', 'kind', 'colour', 'offset', 'mark']);
  for (const [name, loss] of Object.entries(last)) expect(loss, name).toBeLessThan(first[name] / 10);
  run.model.dispose();
});

describe('a batch of packs', () => {
  const settings = pretrainingSettings({ preset: squaresPreset, augment: true });
  const prepared = () => preparePretraining({ settings, source: squares, listener: quietListener() });
  const makerFor = ({ encoding, configuration }: Awaited<ReturnType<typeof prepared>>) =>
    new PackMaker(encoding, configuration, settings, squares.slots);

  test('has the ids of every question in the blocks of its slot, and a row before each predicted token', async () => {
    const own = await prepared();
    const { encoding, configuration } = own;
    const batch = await makerFor(own).make([squares.at(1), squares.at(3)], 0);
    const textOf = (block: string, example: number) => {
      const { ids, valid } = batch.ids[block];
      const length = ids.length / 2;
      const real = Array.from(ids).filter((_, i) => Math.floor(i / length) === example && valid[i]);
      return encoding.decodeText(real);
    };
    for (const [example, { questions }] of [squares.at(1), squares.at(3)].entries())
      for (const [slot, question] of questions.entries()) {
        expect(textOf(`prompt ${slot + 1}`, example)).toContain(question?.prompt ?? '');
        expect(textOf(`answer ${slot + 1}`, example)).toBe(question?.answer ?? '');
      }
    expect(textOf('prompt 3', 0)).toMatch(/^Task: find them, State: \d+;\nSubtask: $/);
    expect(textOf('prompt 3', 1)).toBe('');
    // Each answer and its end, predicted one row before.
    const rows = batch.lossMask!.length / 2;
    const predicted = [0, 1].map((example) =>
      Array.from({ length: rows }, (_, row) => example * rows + row).filter((row) => batch.lossMask![row]),
    );
    const answers = (index: number) =>
      squares
        .at(index)
        .questions.flatMap((own) => (own ? [...encoding.answerTokens(own.answer), encoding.endOfSequence] : []));
    expect(predicted[0].map((row) => batch.lossTarget![row])).toEqual(answers(1));
    expect(predicted[1].map((row) => batch.lossTarget![row])).toEqual(answers(3));
    const { start } = rowsOf(trainingBlocks(configuration), 'prompt 1');
    const { valid } = batch.ids['prompt 1'];
    const length = valid.length / 2;
    const last = Array.from(valid).slice(0, length).lastIndexOf(1);
    expect(predicted[0][0]).toBe(start + last);
  });

  test('a patch belongs to the smaller of two things that hold its centre, which lies where the offset says', async () => {
    const maker = makerFor(await prepared());
    const things = [
      { kind: 1, colour: 1, centre: [0.5, 0.5], reach: 0.4 },
      { kind: 1, colour: 2, centre: [0.25, 0.5], reach: 0.2 },
    ] as const;
    const pack = { ...squares.at(1), things, marked: [1] };
    const { rowTargets } = await maker.make([pack, { ...pack, marked: [] }], 0);
    const of = (name: string) => Array.from(rowTargets![name].data);
    const twice = (own: readonly number[]) => [...own, ...own];
    // Three patches a side: the first thing holds all of their centres but those of the second.
    expect(of('colour')).toEqual(twice([1, 2, 1, 1, 1, 1, 1, 1, 1]));
    expect(of('mark')).toEqual([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expect(Array.from(rowTargets!.mark.valid)).toEqual([...Array(9).fill(1), ...Array(9).fill(0)]);
    const offset = of('offset');
    expect(offset.slice(0, 2)).toEqual([1, 1]);
    expect(offset.slice(2, 4)).toEqual([0.25, 0]);
    expect(offset.slice(16, 18)).toEqual([-1, -1]);
    const { valid } = (await maker.make([{ ...pack, things: [things[1]], marked: [] }], 0)).rowTargets!.offset;
    expect(Array.from(valid)).toEqual([0, 1, 0, 0, 0, 0, 0, 0, 0]);
  });

  test('of a longer answer than any before, or of a thing outside the picture, is refused', async () => {
    const maker = makerFor(await prepared());
    const { questions, ...pack } = squares.at(1);
    const answer = 'the one that nobody has asked for and that is too long';
    const long = maker.make([{ ...pack, questions: [{ ...questions[0]!, answer }] }], 0);
    await expect(long).rejects.toThrow(/^the answer "the one .* tokens; block "answer 1" takes at most \d+$/);
    const outside = { ...pack.things[0], centre: [0.5, 1.25] as const };
    await expect(maker.make([{ ...pack, questions, things: [outside], marked: [] }], 0)).rejects.toThrow(
      'a thing lies at 0.5, 1.25, outside the picture',
    );
  });

  test('augmentation changes colours by seed and step, and leaves every edge in its place', async () => {
    const maker = makerFor(await prepared());
    const images = async (step: number, use?: 'training') =>
      (await maker.make([squares.at(1), squares.at(2)], step, { use })).images!;
    const plain = await images(5);
    const changed = await images(5, 'training');
    expect(await images(5, 'training')).toEqual(changed);
    expect(await images(6, 'training')).not.toEqual(changed);
    expect((await maker.make([squares.at(2)], 5, { use: 'training', first: 1 })).images).toEqual(
      changed.slice(changed.length / 2),
    );
    const edges = (two: Float32Array, own = two.subarray(two.length / 2)) =>
      Array.from({ length: own.length / 3 - 1 }, (_, i) =>
        [0, 1, 2].every((c) => own[3 * i + c] === own[3 * i + 3 + c]),
      );
    expect(changed).not.toEqual(plain);
    expect(edges(changed)).toEqual(edges(plain));
  });
});

test('interrupted and resumed equals the uninterrupted run to the last bit', async () => {
  const settings = pretrainingSettings({ preset: squaresPreset, seed: 3, steps: 5, augment: true });
  const preset = { ...settings.preset, evaluateEvery: 2, saveEvery: 3 };
  const own = { settings: { ...settings, preset } };
  const whole = await pretrain('whole.safetensors', own);
  const abort = new AbortController();
  const listener = quietListener({ step: (step) => step === 3 && abort.abort() } as Partial<RunListener>);
  const part = await pretrain('part.safetensors', { ...own, listener, signal: abort.signal });
  expect([part.finished, part.step]).toEqual([false, 3]);
  const resumed = await pretrain('part.safetensors', {
    resume: await openCheckpoint(join(folder, 'part.safetensors')),
  });
  expect([resumed.finished, resumed.step, resumed.resumedAt]).toEqual([true, 5, 3]);
  expect(withoutTimes(resumed)).toEqual(withoutTimes(whole));
  for (const parameter of whole.model.parameters)
    expect(await resumed.model.parameters.get(parameter.name).read(), parameter.name).toEqual(await parameter.read());
  for (const { model } of [whole, part, resumed]) model.dispose();
  const other = { ...squares, at: (index: number) => squares.at(index + 1) };
  const checkpoint = await openCheckpoint(join(folder, 'part.safetensors'));
  await expect(pretrain('part.safetensors', { resume: checkpoint, source: other })).rejects.toThrow(
    'its numbers have changed; give the data that the run was begun with',
  );
  await checkpoint.close();
});

test('rows in an order: neighbours are alike, and those far apart are not', () => {
  const [count, width] = [1024, 64];
  const rows = orderedRows(count, width, randomStream(1, 0, 0));
  const row = (i: number) => rows.subarray(i * width, (i + 1) * width);
  const product = (i: number, j: number) => row(i).reduce((sum, value, k) => sum + value * row(j)[k], 0);
  for (const i of [0, 100, 511, 1022]) {
    expect(product(i, i)).toBeCloseTo(1, 5);
    expect(product(i, i + 1)).toBeGreaterThan(0.99);
  }
  expect(product(0, 700)).toBeLessThan(0.7);
  expect(product(100, 400)).toBeLessThan(0.7);
});

describe('packs of images', () => {
  const image = async () => ({ width: 1, height: 1, pixels: Uint8Array.of(0, 0, 0) });

  test('every named image in an epoch, its questions in any slot, held-out ones apart', () => {
    const named = ['cat', 'dog', 'cup', 'pen', 'hat'].map((name, i) => ({
      name,
      category: i < 2 ? 'animals' : 'things',
      image,
    }));
    const split = { training: namedQuestions(named.slice(2)), heldOut: namedQuestions(named.slice(0, 2)) };
    const source = imagePacks(split, 2);
    const byKind = (pack: Pack, kind: string) => pack.questions.find((own) => own?.kind === kind)!;
    const epoch = (number: number) => [0, 1, 2].map((i) => byKind(source.at(3 * number + i), 'caption').answer);
    expect([source.slots, source.classes]).toEqual([3, null]);
    expect(source.heldOut.map((pack) => byKind(pack, 'caption').answer)).toEqual(['cat', 'dog']);
    for (const number of [0, 1, 2, 3]) expect(epoch(number).sort()).toEqual(['cup', 'hat', 'pen']);
    expect([1, 2, 3, 4].some((number) => epoch(number).join() !== epoch(0).join())).toBe(true);
    const packs = Array.from({ length: 30 }, (_, index) => source.at(index));
    for (const pack of packs) {
      const { answer, prompt } = byKind(pack, 'guess');
      const own = named.find(({ name }) => name === byKind(pack, 'caption').answer)!;
      expect(byKind(pack, 'category').answer).toBe(own.category);
      expect(answer).toBe(prompt === `answer en is this ${own.name}?` ? 'yes' : 'no');
    }
    expect(new Set(packs.map(({ questions }) => questions[0]!.kind)).size).toBe(3);
  });

  const asked = (name: string, count: number) => {
    const own = Array.from({ length: count }, (_, i) => ({ kind: 'question', prompt: `${name} ${i}`, answer: 'yes' }));
    return { image, count, questions: () => own };
  };
  const split = { training: [asked('many', 15), asked('few', 2)], heldOut: [asked('apart', 7), asked('one', 1)] };
  const promptsOf = ({ questions }: Pack) => questions.flatMap((own) => own?.prompt ?? []);
  const epochOf = (seed: number, number: number, source = imagePacks(split, seed)) =>
    [0, 1].map((i) => promptsOf(source.at(2 * number + i))).sort((a, b) => b.length - a.length);

  test('an image with more questions than slots shows all of them in successive epochs, in an order by seed', () => {
    const source = imagePacks(split, 5);
    expect(source.slots).toBe(6);
    expect([source.at(0), source.at(1)].map(({ questions }) => questions.indexOf(null)).sort()).toEqual([2, 5]);
    const all = Array.from({ length: 15 }, (_, i) => `many ${i}`).sort();
    for (const round of [0, 1]) {
      const epochs = [0, 1, 2].map((i) => epochOf(5, 3 * round + i, source));
      expect(epochs.flatMap(([many]) => many).sort()).toEqual(all);
      for (const [, few] of epochs) expect(few.sort()).toEqual(['few 0', 'few 1']);
    }
    expect(epochOf(5, 0)).toEqual(epochOf(5, 0, source));
    expect(epochOf(5, 3)).not.toEqual(epochOf(5, 0));
    expect(epochOf(6, 0)).not.toEqual(epochOf(5, 0));
    const apart = source.heldOut.map(promptsOf);
    expect(apart.map(({ length }) => length)).toEqual([4, 3, 1]);
    expect(new Set(apart.flat()).size).toBe(8);
  });

  test('every slot takes the longest question, wherever it comes', async () => {
    const long = { kind: 'caption', prompt: 'what is this, as far as you can see?', answer: 'a cup '.repeat(9) };
    const many = Array.from({ length: 4199 }, () => asked('many', 1).questions()[0]);
    const training = [{ image, count: 4200, questions: () => [...many, long] }];
    const source = imagePacks({ ...split, training }, 1);
    const settings = pretrainingSettings({ preset: squaresPreset });
    const { encoding, configuration } = await preparePretraining({ settings, source, listener: quietListener() });
    for (let slot = 1; slot <= 6; slot++) {
      const least = encoding.answerTokens(long.answer).length;
      expect(blockNamed(configuration, `answer ${slot}`).length).toBeGreaterThanOrEqual(least);
    }
  });
});
