/** Every kind of objective: parts of a batch add up to the whole, and heads agree with a small reference in float64. */
import { describe, expect, test } from 'vitest';
import { type Inputs, type TrainingBatch, tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { lossShares, trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { act } from '../../model/policy/acting.ts';
import { testDevice } from '../support/devices.ts';
import { gradientsOfParts } from '../support/gradients.ts';
import { manyObjectives, unevenBatch } from '../support/many-objectives.ts';
import { expectClose, normals } from '../support/numbers.ts';

const BATCH = 8;
const names = manyObjectives.objectives.map(({ name }) => name);

/** A model that trains the named objective alone (noisy actions need their flow), with random weights: every path is open. */
async function modelFor(objective: string): Promise<Model> {
  const objectives = manyObjectives.objectives
    .filter(({ name }) => name === objective || name === 'flow')
    .map((own) => ({ ...own, weight: own.name === objective ? 1 : 0 }));
  const model = new Model(await testDevice('normal'), { ...manyObjectives, objectives });
  for (const [seed, parameter] of [...model.parameters].entries()) parameter.write(normals(parameter.size, seed, 0.3));
  return model;
}

/** Examples `first` ... `first + count - 1`. */
function partOf(whole: TrainingBatch, first: number, count: number): TrainingBatch {
  const cut = (value: unknown): unknown => {
    if (ArrayBuffer.isView(value)) {
      const numbers = value as Float32Array;
      const size = numbers.length / whole.batch;
      return numbers.slice(first * size, (first + count) * size);
    }
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([name, own]) => [name, cut(own)]));
  };
  return { ...(cut(whole) as TrainingBatch), batch: count };
}

/** The total loss and its gradients, of parts that run one after the other. */
async function sumOf(model: Model, parts: readonly Inputs[]) {
  const { loss, gradients } = await gradientsOfParts(model, parts);
  return { loss, gradients: Object.values(gradients).flatMap((own) => [...own]) };
}

describe('parts of a batch by their shares', () => {
  test.each(names)('%s: losses and gradients of the whole batch', async (name) => {
    using model = await modelFor(name);
    const batch = unevenBatch(BATCH);
    const inputs = (first: number, count: number) => trainingInputs(model.architecture, partOf(batch, first, count));
    const parts = [inputs(0, 1), inputs(1, 3), inputs(4, 4)];
    const shares = lossShares(model, parts).map((own) => own[name]);
    expect(shares[0] + shares[1] + shares[2]).toBeCloseTo(1, 12);
    // These means are over examples, of which the last has no marked row; every other is over elements, and the parts have unlike ones.
    if (name === 'token') expect(shares).toEqual([1 / 8, 3 / 8, 4 / 8]);
    else if (name === 'mark') expect(shares).toEqual([1 / 7, 3 / 7, 3 / 7]);
    else expect(shares[0]).toBeGreaterThan(1 / 7);
    const whole = await sumOf(model, [inputs(0, BATCH)]);
    const added = await sumOf(model, parts);
    expect(Math.abs(added.loss / whole.loss - 1)).toBeLessThan(1e-6);
    expectClose(added.gradients, whole.gradients, 1e-5, 'gradients');
  });
});

const huber = (difference: number) => (Math.abs(difference) <= 1 ? 0.5 * difference ** 2 : Math.abs(difference) - 0.5);

/** The mean of a head's errors over valid rows, and its numbers, in float64. */
function reference(
  name: string,
  rows: readonly (readonly number[])[],
  { data, valid }: { data: ArrayLike<number>; valid: ArrayLike<number> },
  weight: ArrayLike<number>,
  bias: ArrayLike<number> | null,
): { loss: number; numbers: number[][] } {
  const objective = manyObjectives.objectives.find((own) => own.name === name)!;
  const outputs = weight.length / rows[0].length;
  const numbers = rows.map((row) =>
    Array.from({ length: outputs }, (_, output) =>
      row.reduce((sum, value, i) => sum + value * weight[output * row.length + i], bias?.[output] ?? 0),
    ),
  );
  const mean = (values: readonly number[]) => values.reduce((total, value) => total + value, 0) / values.length;
  let [sum, count] = [0, 0];
  if (objective.kind === 'classification') {
    const losses = numbers.map((own, row) => ({
      row,
      example: Math.floor((row * BATCH) / rows.length),
      loss: Math.log(own.reduce((total, value) => total + Math.exp(value), 0)) - own[data[row]],
    }));
    const counted = losses.filter(({ row }) => valid[row]);
    if (!objective.balanced) return { loss: mean(counted.map(({ loss }) => loss)), numbers };
    const examples = Array.from({ length: BATCH }, (_, i) => counted.filter(({ example }) => example === i));
    const present = examples.filter(({ length }) => length > 0);
    const lossOf = (own: typeof counted) => {
      const classes = [...new Set(own.map(({ row }) => data[row]))];
      return mean(classes.map((of) => mean(own.filter(({ row }) => data[row] === of).map(({ loss }) => loss))));
    };
    return { loss: mean(present.map(lossOf)), numbers };
  }
  numbers.forEach((own, row) => {
    if (!valid[row]) return;
    own.forEach((value, i) => {
      const difference = value - data[row * outputs + i];
      sum += 'error' in objective && objective.error === 'huber' ? huber(difference) : difference ** 2;
      count += 1;
    });
  });
  return { loss: sum / count, numbers };
}

/** Rows `start` ... of each of `samples` parts of a stream, as numbers. */
function cutRows(stream: Float32Array, samples: number, width: number, start: number, length: number): number[][] {
  const each = stream.length / samples;
  return Array.from({ length: samples * length }, (_, i) => {
    const from = Math.floor(i / length) * each + (start + (i % length)) * width;
    return [...stream.subarray(from, from + width)];
  });
}

describe('heads', () => {
  const heads = [
    { name: 'goal', of: 'hidden', start: 17, length: 2 },
    { name: 'kind', of: 'hidden', start: 17, length: 2 },
    { name: 'entering', of: 'residual 1', start: 8, length: 5 },
    { name: 'behind', of: 'residual 2', start: 8, length: 5 },
    { name: 'mark', of: 'residual 1', start: 0, length: 8 },
    { name: 'depth', of: 'tower', start: 0, length: 8 },
    { name: 'patch', of: 'tower', start: 0, length: 8 },
  ] as const;

  test.each(heads)('$name reads $of: the loss in float64', async ({ name, of, start, length }) => {
    using model = await modelFor(name);
    const { parameters, architecture } = model;
    const batch = unevenBatch(BATCH);
    const { pass, features } = model.device.step(() => {
      const inputs = tensorsOf(model.device, trainingInputs(architecture, batch));
      return {
        pass: trainingPass(model, inputs),
        features: architecture.blockInputs.vision!.run(parameters, inputs.images).features.vision,
      };
    });
    const streams = {
      hidden: pass.hidden.backbone,
      'residual 1': pass.residuals[1].backbone,
      'residual 2': pass.residuals[2].backbone,
      tower: features,
    };
    const rows = cutRows((await streams[of].read()) as Float32Array, BATCH, 16, start, length);
    const isClass = manyObjectives.objectives.find((own) => own.name === name)!.kind === 'classification';
    const weight = await parameters.get(`${name}_head.weight`).read();
    const bias = isClass ? null : await parameters.get(`${name}_head.bias`).read();
    const expected = reference(name, rows, batch.rowTargets![name], weight, bias);
    const result = pass.objectives[name];
    expectClose(await result.loss.read(), [expected.loss], 1e-5, 'loss');
    if (!isClass) expectClose(await result.prediction.read(), expected.numbers.flat(), 1e-5, 'prediction');
  });

  // An absolute error has no slope where it is zero; the golden cases hold its gradients.
  test.each(names.filter((name) => name !== 'l1'))('%s: gradients along a random direction', async (name) => {
    using model = await modelFor(name);
    const batch = unevenBatch(BATCH);
    const inputs = trainingInputs(model.architecture, batch);
    const { gradients } = await sumOf(model, [inputs]);
    const values = await Promise.all([...model.parameters].map((parameter) => parameter.read()));
    const directions = values.map(({ length }, seed) => normals(length, seed + 1000));
    const lossAt = async (step: number) => {
      [...model.parameters].forEach((parameter, i) => {
        parameter.write(Float32Array.from(values[i], (value, j) => value + step * directions[i][j]));
      });
      const pass = model.device.step(() => trainingPass(model, tensorsOf(model.device, inputs)));
      return (await pass.objectives[name].loss.read())[0];
    };
    const step = 1e-3;
    const [above, below, above2, below2] = [
      await lossAt(step),
      await lossAt(-step),
      await lossAt(2 * step),
      await lossAt(-2 * step),
    ];
    // The error is of fourth order in the step.
    const slope = (8 * (above - below) - (above2 - below2)) / (12 * step);
    const along = directions.flatMap((own) => [...own]).reduce((sum, own, i) => sum + own * gradients[i], 0);
    expect(Math.abs(along / slope - 1), `${along} by gradients, ${slope} by differences`).toBeLessThan(2e-3);
  });

  test('rows before a block: its first row is read at the last real token of the prompt', async () => {
    using model = await modelFor('l1');
    const batch = unevenBatch(BATCH);
    const names = manyObjectives.blocks.map(({ name }) => name);
    expect(names.indexOf('slots')).toBeGreaterThan(names.indexOf('target'));
    const pass = model.device.step(() =>
      trainingPass(model, tensorsOf(model.device, trainingInputs(model.architecture, batch))),
    );
    const hidden = (await pass.hidden.backbone.read()) as Float32Array;
    const prompt = cutRows(hidden, BATCH, 16, 8, 5);
    const slots = cutRows(hidden, BATCH, 16, 19, 6);
    const { valid } = batch.ids.language;
    const lengths = Array.from({ length: BATCH }, (_, sample) =>
      [...Array(5).keys()].reduce((count, i) => count + valid[sample * 5 + i], 0),
    );
    expect(new Set(lengths).size, 'prompts of several lengths').toBeGreaterThan(1);
    const read = Array.from({ length: BATCH }, (_, sample) => [
      prompt[sample * 5 + lengths[sample] - 1],
      ...slots.slice(sample * 6, sample * 6 + 5),
    ]).flat();
    const prediction = await residualHead(model, read);
    expectClose(await pass.objectives.l1.prediction.read(), prediction, 1e-5, 'prediction');
    const actions = await act(model, batch, { objective: model.objectives.find(({ name }) => name === 'l1') });
    expectClose(actions!, prediction, 1e-5, 'actions');
  });
});

/** The residual head of OpenVLA-OFT on two rows side by side, in float64. */
async function residualHead(model: Model, rows: readonly (readonly number[])[]): Promise<number[]> {
  const parameter = (name: string) => model.parameters.get(`action_head.model.${name}`).read();
  const affine = async (name: string) => {
    const [weight, bias] = [await parameter(`${name}.weight`), await parameter(`${name}.bias`)];
    return (x: readonly number[]) =>
      Array.from(bias, (own, output) => x.reduce((sum, value, i) => sum + value * weight[output * x.length + i], own));
  };
  const norm = async (name: string) => {
    const [weight, bias] = [await parameter(`${name}.weight`), await parameter(`${name}.bias`)];
    return (x: readonly number[]) => {
      const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
      const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
      return x.map((value, i) => ((value - mean) / Math.sqrt(variance + 1e-5)) * weight[i] + bias[i]);
    };
  };
  const relu = (x: readonly number[]) => x.map((value) => Math.max(0, value));
  const [first, block, last] = [
    await norm('layer_norm1'),
    await norm('mlp_resnet_blocks.0.ffn.0'),
    await norm('layer_norm2'),
  ];
  const [up, inner, down] = [await affine('fc1'), await affine('mlp_resnet_blocks.0.ffn.1'), await affine('fc2')];
  return Array.from({ length: rows.length / 2 }, (_, step) => {
    const x = relu(up(first([...rows[2 * step], ...rows[2 * step + 1]])));
    const added = relu(inner(block(x)));
    return down(last(x.map((value, i) => value + added[i])));
  }).flat();
}
