import { expect, test, vi } from 'vitest';
import { Model } from '../../model/architecture/model.ts';
import { type AskedQuestion, answerScore, answersTo, questionsOf, scoresByKind } from '../../model/inspect/answers.ts';
import { fitLinearProbe, probeAccuracy } from '../../model/inspect/linear-probe.ts';
import { marksOf } from '../../model/inspect/marks.ts';
import { Encoding } from '../../model/policy/encoding.ts';
import { Policy } from '../../model/policy/policy.ts';
import { PackMaker } from '../../model/training/pack-maker.ts';
import type { Thing } from '../../model/training/packs.ts';
import { preparePretraining, pretrainingSettings } from '../../model/training/pretrain.ts';
import { testDevice } from '../support/devices.ts';
import { normals } from '../support/numbers.ts';
import { squares, squaresPreset } from '../support/squares.ts';
import { quietListener } from '../support/synthetic-dataset.ts';
import { seeingEncoding, seeingModel } from '../support/vision-language.ts';

const encoding = new Encoding(seeingEncoding);

test('a linear probe is the solution of its normal equations', () => {
  // x = 0, 1, 2, 3; the ridge is 1e-3 times the mean of the sums of squares of x and of the bias, (14 + 4) / 2.
  const points = [0, 1, 2, 3].map((x) => ({ features: Float32Array.of(x), label: x < 2 ? 0 : 1 }));
  const probe = fitLinearProbe(points, 2);
  const slope = (4 * 5 - 6 * 2) / (4 * (14 + 0.009) - 6 * 6);
  expect(probe[1][0]).toBeCloseTo(slope, 12);
  expect(probe[1][1]).toBeCloseTo((2 - 6 * slope) / 4, 12);
  expect(probe[0][0]).toBeCloseTo(-slope, 12);
});

test('a linear probe separates classes that a line separates, and no others', () => {
  const around = (seed: number, count: number) => {
    const middles = [
      [5, 0, 1],
      [0, 5, 1],
      [-5, -5, 1],
    ];
    const noise = normals(count * 3, seed);
    return Array.from({ length: count }, (_, i) => {
      const features = Float32Array.from(middles[i % 3], (middle, at) => noise[3 * i + at] / 2 + middle);
      return { features, label: i % 3 };
    });
  };
  const probe = fitLinearProbe(around(1, 60), 3);
  const others = around(2, 90);
  expect(probeAccuracy(probe, others)).toBe(1);
  expect(
    probeAccuracy(
      probe,
      others.map(({ features, label }) => ({ features, label: (label + 1) % 3 })),
    ),
  ).toBe(0);
  // Exclusive or: no line is right about more than three of four.
  const corners = [0, 1, 2, 3].map((i) => ({ features: Float32Array.of(i >> 1, i & 1), label: (i >> 1) ^ (i & 1) }));
  expect(probeAccuracy(fitLinearProbe(corners, 2), corners)).toBeLessThan(1);
});

test('answers are scored to the letter and by token', () => {
  const answered = (kind: string, right: string, answer: string) => ({ question: { kind, answer: right }, answer });
  const [yes, no] = ['yes', 'no'].map((text) => encoding.answerTokens(text).length);
  expect([yes, no]).toEqual([1, 1]);
  const all = [answered('existence', 'yes', 'yes'), answered('existence', 'yes', 'no'), answered('side', 'no', '')];
  // The end of an answer is a token, too; an empty answer has it at the wrong place.
  expect(answerScore(encoding, all)).toEqual({ questions: 3, answers: 1 / 3, tokens: 3 / 6 });
  expect(scoresByKind(encoding, all)).toEqual({
    existence: { questions: 2, answers: 0.5, tokens: 0.75 },
    side: { questions: 1, answers: 0, tokens: 0 },
  });
  expect(answerScore(encoding, [])).toEqual({ questions: 0, answers: null, tokens: null });
});

test('questions are asked kind by kind, and answers come in the order of the questions', async () => {
  const image = async () => ({ width: 1, height: 1, pixels: new Uint8Array(3) });
  const questions = Array.from({ length: 70 }, (_, i): AskedQuestion => {
    return { kind: i % 2 === 0 ? 'b' : 'a', prompt: `${i}`, answer: '', request: 'answer', image };
  });
  const batches: number[] = [];
  const spy = vi.spyOn(Policy.prototype, 'generateText').mockImplementation(async (asked) => {
    batches.push(asked.length);
    return asked.map(({ instruction }) => `answer ${instruction}`);
  });
  try {
    const policy = new Policy({} as Model, encoding);
    const done: number[] = [];
    const answers = await answersTo(policy, questions, { onProgress: (own) => done.push(own) });
    expect(answers).toEqual(questions.map(({ prompt }) => `answer ${prompt}`));
    expect(batches).toEqual([64, 6]);
    expect(done).toEqual([64, 70]);
    expect(spy.mock.calls[0][0].slice(0, 3).map(({ instruction }) => instruction)).toEqual(['1', '3', '5']);
    const aborted = AbortSignal.abort(new Error('enough'));
    await expect(answersTo(policy, questions, { signal: aborted })).rejects.toThrow('enough');
  } finally {
    spy.mockRestore();
  }
  // Every third pack is without its third question.
  expect(questionsOf(squares.heldOut.slice(0, 3))).toHaveLength(8);
});

test('marks: the most marked row lies on the named thing where that is', async () => {
  const device = await testDevice('normal');
  const settings = pretrainingSettings({ preset: squaresPreset });
  const prepared = await preparePretraining({ settings, source: squares, listener: quietListener() });
  using model = new Model(device, prepared.configuration);
  const { width } = squaresPreset.backbone;
  const square = (value: (row: number, column: number) => number, rows: number) =>
    Float32Array.from({ length: rows * width }, (_, i) => value(Math.floor(i / width), i % width));
  const identity = (row: number, column: number) => (row === column ? 1 : 0);
  // Nothing but the numbers of the patches enters the last layer, as one-hot rows (less their means).
  for (const parameter of model.parameters) {
    const { name, shape } = parameter;
    const values = new Float32Array(parameter.size);
    if (/position_embedding|multi_modal_projector.*weight/.test(name)) values.set(square(identity, shape[0]));
    if (name.endsWith('post_layernorm.weight')) values.fill(1);
    parameter.write(values);
  }
  const maker = new PackMaker(prepared.encoding, prepared.configuration, settings, squares.slots);
  const head = model.parameters.get('mark_head.weight');
  // The smaller second thing hides the first where both are at one place.
  const packs = Array.from({ length: 60 }, (_, i) => {
    const pack = squares.at(i);
    return i % 2 === 0 && pack.marked.length > 0 ? { ...pack, marked: [0, 1] } : pack;
  });
  const patchOf = ({ centre }: Thing) => Math.floor(centre[0] * 3) * 3 + Math.floor(centre[1] * 3);
  /** By pack, whether the named thing is at the patch. */
  const expected = (patch: number) =>
    packs.map(({ things, marked: [first] }) => {
      if (first === undefined || (first === 0 && patchOf(things[0]) === patchOf(things[1]))) return null;
      return patchOf(things[first]) === patch;
    });
  const cases = [
    { logits: [[0], [0, 0, 0, 2], [0]], at: expected(3) },
    { logits: [[0], [2], [0]], at: expected(0) },
    // The logit of the first patch is larger, but the probability of its class is smaller.
    { logits: [[0], [2, 0, 0, 0, 0, 0, 0, 0, 1], [6]], at: expected(8) },
  ];
  for (const { logits, at } of cases) {
    head.write(square((row, column) => logits[row][column] ?? 0, 3));
    expect(new Set(at)).toEqual(new Set([true, false, null]));
    expect(await marksOf(model, maker, packs)).toEqual(at);
  }
  using other = seeingModel(device);
  await expect(marksOf(other, maker, squares.heldOut)).rejects.toThrow("this model has no loss 'mark'");
});
