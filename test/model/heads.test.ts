/** Policy heads on a small whole model, beside float64: losses, gradients, parts of a batch, acting, and what is refused. */
import * as v from 'valibot';
import { afterAll, describe, expect, test } from 'vitest';
import { attentionTable, causal, full, sequence } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import type { ModelConfiguration } from '../../model/architecture/configuration.ts';
import { type TrainingBatch, tensorsOf } from '../../model/architecture/inputs.ts';
import { Architecture, Model } from '../../model/architecture/model.ts';
import { objectiveSchema, type RegressionSettings } from '../../model/architecture/objectives/index.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { act } from '../../model/policy/acting.ts';
import { configurationOf, type System, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { testDevice } from '../support/devices.ts';
import { gradientsOfParts } from '../support/gradients.ts';
import { expectClose, normals } from '../support/numbers.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

const [EXAMPLES, WINDOW, ROWS, WIDTH] = [2, 2, 2, 16];
const STEPS = EXAMPLES * WINDOW;
const { horizon: HORIZON, actionDimension: DIMENSION } = tinySizes;
const ARM = DIMENSION - 1;
const trunks = {
  mlp: { kind: 'mlp', width: WIDTH },
  lstm: { kind: 'lstm', width: WIDTH, layers: 2 },
  transformer: { kind: 'transformer', width: WIDTH, layers: 1, heads: 2 },
} as const;
type Kind = keyof typeof trunks;
const kinds = Object.keys(trunks) as Kind[];

const regressionOf = (kind: Kind): RegressionSettings => ({
  ...{ kind: 'regression', name: 'action', weight: 1, rows: { block: 'readout' }, error: 'huber' },
  head: { kind: 'policy', trunk: trunks[kind] },
  gripper: { weight: 0.5 },
});

/** RoboVLMs' policy head on learned rows behind the prompt; a trunk without memory reads interleaved history. */
const systemOf = (kind: Kind): System => ({
  ...systemNamed('transfusion'),
  blocks: [
    { name: 'language', input: 'prompt', weights: 'backbone' },
    { name: 'readout', input: 'learned', weights: 'backbone', length: ROWS },
  ],
  attention: { language: { language: full }, readout: { language: full, readout: full } },
  objectives: [regressionOf(kind)],
  time: null,
  history: { window: WINDOW, interleaved: kind === 'mlp' },
});
const configurations = (kind: Kind): ModelConfiguration =>
  configurationOf(systemOf(kind), { ...tinySizes, vision: null, stateDimension: 0 });

const models = new Map<Kind, Model>();
afterAll(() => {
  for (const model of models.values()) model.dispose();
});
async function modelOf(kind: Kind): Promise<Model> {
  const known = models.get(kind) ?? new Model(await testDevice('normal'), configurations(kind));
  if (!models.has(kind))
    for (const [seed, parameter] of [...known.parameters].entries())
      parameter.write(normals(parameter.size, seed, 0.3));
  models.set(kind, known);
  return known;
}

/** The first chunk ends early; the robot of the last control step has no gripper. */
const batchOf = (kind: Kind): TrainingBatch => ({
  ...randomBatch(configurations(kind), EXAMPLES, 1),
  actionValid: Uint8Array.from({ length: STEPS * HORIZON }, (_, i) => (i === 1 || i === 2 ? 0 : 1)),
  realDimensions: Uint8Array.from({ length: STEPS * DIMENSION }, (_, i) => (i === STEPS * DIMENSION - 1 ? 0 : 1)),
});

type Values = Readonly<Record<string, Float64Array>>;

/** The trunk on features [control steps, inputs]. */
function trunkOf(kind: Kind, features: Float64Array, values: Values): Float64Array {
  const affine = (x: Float64Array, name: string, added = {}) => {
    const [weight, bias] = [values[`policy_head.${name}.weight`], values[`policy_head.${name}.bias`]];
    return reference.linear(x, weight, weight.length / bias.length, { bias, ...added });
  };
  if (kind === 'mlp') return affine(affine(features, 'mlp.0').map(reference.activations.relu), 'mlp.2');
  if (kind === 'lstm')
    return [0, 1].reduce((x, layer) => {
      const names = ['weight_ih', 'weight_hh', 'bias_ih', 'bias_hh'];
      const own = names.map((name) => values[`policy_head.rnn.${name}_l${layer}`]);
      return reference.lstm([x, ...own], [EXAMPLES, WINDOW]);
    }, features);
  const norm = (x: Float64Array, name: string) =>
    reference.layerNorm(x, values[`policy_head.gpt.${name}.weight`], values[`policy_head.gpt.${name}.bias`], 1e-5);
  const x = reference.add(affine(features, 'fc'), values['policy_head.gpt.wpe.weight']);
  const joint = affine(norm(x, 'h.0.ln_1'), 'gpt.h.0.attn.c_attn');
  const [query, key, value] = [0, 1, 2].map((part) => reference.sliceTokens(joint, [STEPS, 3], part, 1));
  const { output } = reference.attention({
    ...{ query, key, value, batch: EXAMPLES, heads: 2, kvHeads: 2, headDimension: WIDTH / 2 },
    table: attentionTable(sequence({ step: WINDOW }), { step: { step: causal } }),
    validity: new Uint8Array(STEPS).fill(1),
  });
  const residual = affine(output, 'gpt.h.0.attn.c_proj', { residual: x });
  const hidden = affine(norm(residual, 'h.0.ln_2'), 'gpt.h.0.mlp.c_fc', { activation: 'gelu' });
  return norm(affine(hidden, 'gpt.h.0.mlp.c_proj', { residual }), 'ln_f');
}

/** Arm and gripper on the trunk, and their losses. */
function headOf(kind: Kind, features: Float64Array, values: Values, batch: TrainingBatch) {
  const outputs = trunkOf(kind, features, values);
  const mlp = (name: string) =>
    [0, 2, 4, 6].reduce((x, layer) => {
      const [weight, bias] = ['weight', 'bias'].map((own) => values[`policy_head.${name}.mlp.${layer}.${own}`]);
      const y = reference.linear(x, weight, weight.length / bias.length, { bias });
      return layer < 6 ? y.map(reference.activations.relu) : y;
    }, outputs);
  const arm = mlp('actions').map(Math.tanh);
  const logits = mlp('gripper');
  const target = Float64Array.from(batch.actions!);
  const prediction = target.map((_, i) => {
    const [step, column] = [Math.floor(i / DIMENSION), i % DIMENSION];
    return column < ARM ? arm[step * ARM + column] : logits[step];
  });
  const masks = { valid: batch.actionValid, dimensions: batch.realDimensions };
  const counted = reference.countedElements([STEPS, HORIZON, DIMENSION], masks);
  const ofArm = counted.filter((i) => i % DIMENSION < ARM);
  const ofGripper = counted.filter((i) => i % DIMENSION === ARM);
  expect([ofArm.length, ofGripper.length]).toEqual([ARM * 14, 10]);
  const labels = target.map((value) => (value > 0 ? 1 : 0));
  const { errors, meanLoss } = reference;
  return {
    ...{ arm, logits, action: meanLoss(errors.huber, prediction, target, ofArm)[0] },
    gripper: meanLoss(errors.binaryCrossEntropyWithLogits, prediction, labels, ofGripper)[0],
  };
}

describe.each(kinds)('a policy head with the trunk %s', (kind) => {
  test('losses, predictions, gradients of the head, and acting agree with float64', async () => {
    const model = await modelOf(kind);
    const { device, architecture, parameters } = model;
    const batch = batchOf(kind);
    const pass = device.step(() =>
      trainingPass(model, tensorsOf(device, trainingInputs(architecture, batch)), { allRows: true }),
    );
    const { promptTokens } = tinySizes;
    const hidden = Float64Array.from(await pass.hidden.backbone.read());
    const features = reference.sliceTokens(hidden, [STEPS, promptTokens + ROWS], promptTokens, ROWS);
    const names = architecture.parameters.map(({ name }) => name).filter((name) => name.startsWith('policy_head.'));
    const numbers: Float64Array[] = [];
    for (const name of names) numbers.push(Float64Array.from(await parameters.get(name).read()));
    const headAt = (own: readonly Float64Array[]) =>
      headOf(kind, features, Object.fromEntries(names.map((name, i) => [name, own[i]])), batch);
    const expected = headAt(numbers);
    const { action, 'action gripper': gripper } = pass.objectives;
    expectClose(await action.prediction.read(), expected.arm, 1e-5, 'actions');
    expectClose(await gripper.prediction.read(), expected.logits, 1e-5, 'logits');
    expectClose(await action.loss.read(), [expected.action], 1e-5, 'loss');
    expectClose(await gripper.loss.read(), [expected.gripper], 1e-5, 'loss of the gripper');
    const total = (own: readonly Float64Array[]) => {
      const { action, gripper } = headAt(own);
      return Float64Array.of(action + 0.5 * gripper);
    };
    const { loss, gradients } = await gradientsOfParts(model, [trainingInputs(model.architecture, batch)]);
    expectClose([loss], total(numbers), 1e-5, 'total loss');
    for (const [which, name] of names.entries()) {
      const stride = reference.strideOf(numbers[which].length, 12);
      const exact = reference.differentiate(total, numbers, which, [1], stride);
      const found = gradients[name].filter((_, i) => i % stride === 0);
      expectClose(found, exact, 1e-4, name);
    }
    const actions = await act(model, batch);
    const acted = Float64Array.from({ length: STEPS * HORIZON * DIMENSION }, (_, i) => {
      const [step, column] = [Math.floor(i / DIMENSION), i % DIMENSION];
      return column < ARM ? expected.arm[step * ARM + column] : Math.sign(expected.logits[step]);
    });
    expectClose(actions!, acted, 1e-5, 'what it does');
  });
});

test('parts of a batch, of robots with and without a gripper, add up to the whole; the learned rows get a gradient', async () => {
  const model = await modelOf('lstm');
  const batch = batchOf('lstm');
  const cut = (value: unknown, part: number): unknown => {
    if (ArrayBuffer.isView(value)) {
      const { length } = value as Float32Array;
      return (value as Float32Array).slice((part * length) / 2, ((part + 1) * length) / 2);
    }
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([name, own]) => [name, cut(own, part)]));
  };
  const partOf = (part: number) => ({ ...(cut(batch, part) as TrainingBatch), batch: STEPS / 2 });
  const whole = await gradientsOfParts(model, [trainingInputs(model.architecture, batch)]);
  const parts = await gradientsOfParts(
    model,
    [0, 1].map((part) => trainingInputs(model.architecture, partOf(part))),
  );
  expectClose([parts.loss], [whole.loss], 1e-6, 'loss');
  for (const [name, own] of Object.entries(whole.gradients)) expectClose(parts.gradients[name], own, 1e-5, name);

  const embedding = model.parameters.get('readout_embedding.weight');
  const gradient = whole.gradients['readout_embedding.weight'];
  const values = await embedding.read();
  const squared = gradient.reduce((sum, own) => sum + own ** 2, 0);
  const lossAt = async (size: number) => {
    embedding.write(values.map((value, i) => value + (size / Math.sqrt(squared)) * gradient[i]));
    return (await gradientsOfParts(model, [trainingInputs(model.architecture, batch)])).loss;
  };
  const size = 1e-3;
  const slope = ((await lossAt(size)) - (await lossAt(-size))) / (2 * size);
  embedding.write(values);
  expect(Math.abs(slope / Math.sqrt(squared) - 1)).toBeLessThan(1e-2);
});

test('baselines of arm and gripper; without a real gripper it has no loss', async () => {
  const model = await modelOf('mlp');
  const batch = batchOf('mlp');
  const meanChunk = new Float32Array(HORIZON * DIMENSION).fill(0.5);
  const [arm, gripper] = model.objectives.map(({ baseline }) => baseline!.measure({ meanChunk, unigram: null }, batch));
  expect([arm.count, gripper.count]).toEqual([ARM * 14, 10]);
  const own = batch.actions!.filter((_, i) => i % DIMENSION === ARM).filter((_, i) => i !== 1 && i !== 2 && i < 12);
  const expected = own.map((action) => -Math.log(action > 0 ? 0.75 : 0.25)).reduce((sum, loss) => sum + loss, 0) / 10;
  expect(gripper.loss).toBeCloseTo(expected, 5);

  const without = { ...batch, realDimensions: Uint8Array.from([...Array(ARM).fill(1), 0]) };
  const inputs = trainingInputs(model.architecture, without);
  expect(model.objectives.map((objective) => objective.count(inputs))).toEqual([ARM * 14, 0]);
  const { objectives } = model.device.step(() => trainingPass(model, tensorsOf(model.device, inputs)));
  expect((await objectives['action gripper'].loss.read())[0]).toBe(0);
});

test('settings of heads are read from a file as they are, those of older checkpoints too', () => {
  const plain = { kind: 'regression', name: 'l1', weight: 1, rows: { block: 'action' }, error: 'l1' };
  for (const settings of [plain, { ...plain, head: { width: 8, blocks: 2 } }, ...kinds.map(regressionOf)])
    expect(v.parse(objectiveSchema, settings)).toEqual(settings);
});

const policy = (trunk: object) => ({ head: { kind: 'policy', trunk } }) as Partial<RegressionSettings>;

test.each<[string, Partial<RegressionSettings>]>([
  ['reads block "nowhere"; there are language, readout', { rows: { block: 'nowhere' } }],
  ['predicts actions, and reads a vision tower', { rows: { tower: 'vision' } }],
  ['the width of its trunk is 18, not a multiple of 4', policy({ kind: 'lstm', width: 18 })],
  [
    'its trunk has 3 heads in a width of 64; a head needs a multiple of 4 up to 256',
    policy({ kind: 'transformer', heads: 3 }),
  ],
  ['has a gripper, whose logits only a policy head makes', { head: undefined }],
  ['has a policy head, which predicts chunks of actions, and a dimension of its rows', { dimension: 2 }],
  ['has a policy head, which reads all rows of its block, and rowsPerStep', { rowsPerStep: 2 }],
])('refused: %s', (complaint, change) => {
  const objectives = [{ ...regressionOf('mlp'), ...change }];
  expect(() => new Architecture({ ...configurations('mlp'), objectives })).toThrow(complaint);
});
