import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { backward } from '../../engine/index.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { type Dataset, evaluationSamples, mixDatasets, ownSlotMap, type SlotMap } from '../../model/data/index.ts';
import { BatchMaker, chunkOf } from '../../model/training/batches.ts';
import { openCheckpoint } from '../../model/training/checkpoint.ts';
import { exampleSampler } from '../../model/training/co-training.ts';
import { prepareData } from '../../model/training/fitting.ts';
import { runSettings } from '../../model/training/run-settings.ts';
import { quietListener, syntheticDataset, unloaded } from '../support/synthetic-dataset.ts';
import { type TestRun, trainRun } from '../support/train-run.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'insula-robots-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const WIDTH = 5;

/** Two of the three action dimensions of the synthetic robot, a thousand times as large, at the end of the slots. */
function otherRobot(): { dataset: Dataset; slots: SlotMap } {
  const plain = syntheticDataset({ episodes: 3 });
  const episodes = plain.episodes.map((episode) => {
    const actions = episode.actions.filter((_, i) => i % 3 < 2).map((value) => 1000 * value);
    return { ...episode, id: `other ${episode.id}`, actions, cameras: ['side'], image: async () => null };
  });
  const dataset = { ...plain, name: 'large', actionDimension: 2, cameras: ['side'], episodes };
  const own = ownSlotMap(dataset);
  return {
    dataset,
    slots: { ...own, width: WIDTH, actions: own.actions.map((slot, i) => ({ ...slot, slot: 4 - i })) },
  };
}

function mixture(of = (dataset: Dataset) => dataset): Dataset {
  const small = syntheticDataset();
  const own = ownSlotMap(small);
  // Relative to the two numbers of the state.
  const actions = own.actions.map((slot, i) => ({ ...slot, relative: i < 2 }));
  const members = [{ dataset: small, slots: { ...own, actions, width: WIDTH } }, otherRobot()];
  return mixDatasets(members.map(({ dataset, slots }) => ({ dataset: of(dataset), slots })));
}

const train = (system: string, file: string, given: TestRun = {}) =>
  trainRun(join(folder, file), { dataset: mixture(), steps: 4, batch: 3, ...given, system });

test.each(['knowledge-insulation', 'pi0', 'pi0-fast'])('%s learns two robots and acts as each', async (system) => {
  const { policy, split, history, openLoop } = await train(system, `${system}.safetensors`);
  const { encoding, model } = policy;
  expect(model.configuration).toMatchObject({ actionDimension: WIDTH, stateDimension: WIDTH });
  expect(history.training.map(({ step }) => step)).toEqual([1, 2, 3, 4]);
  expect(openLoop!.error.oneSample).toBeGreaterThan(0);

  const maker = new BatchMaker(encoding, model.configuration, runSettings({ seed: 3 }));
  const samples = evaluationSamples([...split.train, ...split.heldOut]);
  const batch = await maker.make(samples, 0);
  const robots = batch.observations.map(({ robot }) => robot);
  expect(new Set(robots)).toEqual(new Set(['synthetic', 'large']));
  const horizon = model.configuration.horizon;
  robots.forEach((robot, i) => {
    const mask = robot === 'large' ? [0, 0, 0, 1, 1] : [1, 1, 1, 0, 0];
    expect(Array.from(batch.realDimensions!).slice(i * WIDTH, (i + 1) * WIDTH)).toEqual(mask);
    const chunk = chunkOf(batch, i);
    expect(chunk.every((value, k) => mask[k % WIDTH] === 1 || value === 0)).toBe(true);
    expect(Math.max(...chunk.map(Math.abs))).toBeLessThanOrEqual(5);
    // Back in the robot's own units and order.
    const { part, step } = samples[i];
    const dimension = robot === 'large' ? 2 : 3;
    const raw = encoding.denormaliseActions(chunk, batch.observations[i]);
    expect(raw.length).toBe(horizon * dimension);
    const demonstrated = part.episode.actions.slice(step * dimension, (step + 1) * dimension);
    const size = robot === 'large' ? 1000 : 1;
    raw.slice(0, dimension).forEach((value, d) => {
      expect(Math.abs(value - demonstrated[d]) / size).toBeLessThan(0.5);
    });
  });
  const known = { robot: 'synthetic', state: Float32Array.of(7, 70) };
  const still = encoding.denormaliseActions(encoding.normaliseActions(Float32Array.of(7.1, 70.2, 0.1), known), known);
  [7.1, 70.2, 0.1].forEach((value, d) => {
    expect(still[d]).toBeCloseTo(value, 3);
  });
  expect(() => encoding.denormaliseActions(chunkOf(batch, 0), { robot: 'synthetic', state: null })).toThrow(
    'robot "synthetic": its actions are relative to its state, and the observation has no state',
  );
  const both = ['synthetic', 'large'].map((robot) => batch.observations[robots.indexOf(robot)]);
  const acted = await policy.act(both);
  expect(acted.map(({ length }) => length)).toEqual([horizon * 3, horizon * 2]);
  await expect(policy.act([{ ...both[0], robot: undefined }])).rejects.toThrow(
    'this model was trained on the robots synthetic, large: name one of them',
  );
  model.dispose();
});

test('robots come by their weights, which a run goes on with', async () => {
  const members = [
    { dataset: syntheticDataset(), slots: { ...ownSlotMap(syntheticDataset()), width: WIDTH }, weight: 3 },
    { ...otherRobot(), weight: 1 },
  ];
  const dataset = mixDatasets(members);
  expect(dataset.weights).toEqual({ synthetic: 3, large: 1 });
  const { split } = prepareData(dataset, 3);
  const examples = Array.from({ length: 10 }, (_, step) =>
    exampleSampler(split, { seed: 3, cotrain: 0 }, dataset).batch(step, 8),
  ).flat();
  const large = examples.filter((example) => 'part' in example && example.part.episode.robot === 'large');
  expect(large.length / examples.length).toBeCloseTo(0.25, 1);
  expect(() => mixDatasets([members[0], { ...members[1], weight: undefined }])).toThrow(
    'mixture: the weight of "large" is not a number above 0',
  );
  const { policy, settings } = await train('pi0', 'weighted.safetensors', { dataset, steps: 1 });
  policy.model.dispose();
  expect(settings.data.weights).toEqual({ synthetic: 3, large: 1 });
  const resume = await openCheckpoint(join(folder, 'weighted.safetensors'));
  await expect(train('pi0', 'weighted-on.safetensors', { resume })).rejects.toThrow(
    'data set "synthetic,large": weights of its robots none; the run was begun with {"synthetic":3,"large":1}',
  );
  await resume.close();
});

test('dimensions that a robot lacks teach nothing', async () => {
  const { policy, split } = await train('pi05', 'lacking.safetensors', { steps: 1 });
  const { model, encoding } = policy;
  const large = split.train.filter(({ episode }) => episode.robot === 'large');
  const batch = await new BatchMaker(encoding, model.configuration, runSettings({ seed: 3 })).make(
    evaluationSamples(large, 4),
    0,
  );
  model.device.step(() => {
    model.parameters.zeroGradients();
    backward(trainingPass(model, tensorsOf(model.device, trainingInputs(model.architecture, batch))).loss);
  });
  const gradient = await model.parameters.get('action_out_proj.bias').grad!.read();
  expect([...gradient].map((value) => value !== 0)).toEqual([false, false, false, true, true]);
  model.dispose();
});

test('resumed from data on disk it goes on to the same bits', async () => {
  const whole = await train('pi05', 'whole.safetensors');
  const abort = new AbortController();
  const listener = quietListener({ step: (step: number) => step === 2 && abort.abort() } as never);
  const dataset = mixture(unloaded);
  const part = await train('pi05', 'part.safetensors', { dataset, signal: abort.signal, listener });
  const resume = await openCheckpoint(join(folder, 'part.safetensors'));
  const rest = await train('pi05', 'rest.safetensors', { dataset, resume });
  const losses = ({ history }: typeof whole) => history.training.map(({ losses }) => losses.flow);
  expect(losses(rest)).toEqual(losses(whole));
  expect(rest.openLoop!.error).toEqual(whole.openLoop!.error);
  for (const { policy } of [whole, part, rest]) policy.model.dispose();
});

test('robots that cannot be mixed', () => {
  const dataset = syntheticDataset();
  const slots = ownSlotMap(dataset);
  const other = otherRobot();
  const mix = (own: SlotMap) => () => mixDatasets([{ dataset, slots: own }, other]);
  expect(mix(slots)).toThrow('mixture: robot "large" has 5 slots, the first robot 3');
  expect(mix({ ...slots, width: WIDTH, robot: 'large' })).toThrow('robot "large" is there twice, with other slots');
  expect(mix({ ...slots, width: WIDTH, actions: slots.actions.slice(1) })).toThrow('2 action slots');
  const blind = syntheticDataset({ states: false });
  const relative = [{ ...slots.actions[0], relative: true }, ...slots.actions.slice(1)];
  const stateless = { dataset: blind, slots: { ...slots, width: WIDTH, actions: relative } };
  expect(() => mixDatasets([stateless, other])).toThrow('has relative actions, and data set "synthetic" no states');
});
