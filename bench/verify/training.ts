/** A training step of a tiny model of knowledge insulation: losses, every gradient and the update beside float64, and the captured step beside the eager one. */
import { backward, type Device } from '../../engine/index.ts';
import { AdamW } from '../../kernels/index.ts';
import * as reference from '../../kernels/reference/index.ts';
import { exactLosses } from '../../model/architecture/exact-losses.ts';
import { type Inputs, tensorsOf } from '../../model/architecture/inputs.ts';
import { type Architecture, Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { configurationOf, type ModelSizes, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { lossesOf, TrainingStep } from '../../model/training/training-step.ts';
import { normals } from './check.ts';
import { type Comparison, compareTensors, roundingOf } from './compare.ts';

const sizes: ModelSizes = {
  ...{ backbone: { width: 24, hidden: 36 }, expert: { width: 16, hidden: 28 }, vocabulary: 41 },
  ...{ depth: 2, heads: 2, kvHeads: 1, headDimension: 16 },
  vision: { width: 16, depth: 1, heads: 1, hidden: 20, patch: 4, imageHeight: 8, imageWidth: 8, cameras: 1 },
  ...{ promptTokens: 5, targetTokens: 4, horizon: 3, actionDimension: 3, stateDimension: 0 },
};
const RATE = 1e-2;
const settings = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.01 };
const MAXIMUM_NORM = 0.5;
const VANISHING = 1e-4;
/** In roundings of f32, relative to the norm: some thirty ops in turn. */
const [LOSS, GRADIENT, UPDATE] = [16, 64, 16].map((count) => count * roundingOf('f32'));

const subject = (part: string, tensor: string) => ({
  ...{ op: 'training', name: `training step of knowledge insulation, ${part}`, tensor },
  ...{ variant: 'shipped', storage: 'f32' },
});

/** The model before its step; nothing starts at zero, so that no gradient is zero by chance. */
function begun(device: Device): Model {
  const model = new Model(device, configurationOf(systemNamed('knowledge-insulation'), sizes));
  model.initialise(5);
  model.architecture.parameters.forEach(({ name, initialisation }, i) => {
    const parameter = model.parameters.get(name);
    if (initialisation !== 'zero' && initialisation !== 'one') return;
    parameter.write(normals(parameter.size, 100 + i, 0.2).map((value) => value + (initialisation === 'one' ? 1 : 0)));
  });
  return model;
}

type Read = ReadonlyMap<string, Float32Array>;

async function readAll(tensors: Iterable<readonly [string, { read(): Promise<Float32Array> }]>): Promise<Read> {
  const read = new Map<string, Float32Array>();
  for (const [name, tensor] of tensors) read.set(name, await tensor.read());
  return read;
}

/** Parameters before a step, and losses, gradients, parameters and moments after it. */
type Stepped = Record<'before' | 'losses' | 'gradients' | 'state', Read>;

/** Steps a new model: `run` takes the step and returns its losses. */
async function stepped(device: Device, run: (model: Model, optimizer: AdamW) => Promise<Read>): Promise<Stepped> {
  using model = begun(device);
  using optimizer = new AdamW(model.parameters, { ...settings, maximumNorm: MAXIMUM_NORM });
  const parameters = [...model.parameters].map((own) => [own.name, own] as const);
  const before = await readAll(parameters);
  const losses = await run(model, optimizer);
  const gradients = await readAll(parameters.map(([name, { grad }]) => [name, grad!]));
  return { before, losses, gradients, state: await readAll([...parameters, ...optimizer.state().tensors]) };
}

export async function verifyTraining(device: Device): Promise<Comparison[]> {
  using model = begun(device);
  const { architecture, configuration } = model;
  const inputs = trainingInputs(architecture, randomBatch(configuration, 2, 3));
  const eager = await stepped(device, async (model, optimizer) => {
    const losses = device.step(() => {
      model.parameters.zeroGradients();
      const pass = trainingPass(model, tensorsOf(device, inputs));
      backward(pass.loss);
      optimizer.step(RATE);
      return lossesOf(pass);
    });
    const own = await readAll(Object.entries(losses));
    for (const loss of Object.values(losses)) loss.dispose();
    return own;
  });
  const captured = await stepped(device, async (model, optimizer) => {
    using step = new TrainingStep(model, optimizer);
    let losses: Promise<Read> | null = null;
    await step.run([inputs], RATE, (own) => {
      losses = readAll(Object.entries(own));
    });
    return (await losses)!;
  });
  return [
    ...compareWithExact(architecture, inputs, eager),
    ...compareUpdate(architecture, eager),
    ...compareBits(eager, captured),
    ...(await compareInsulation(model, inputs)),
  ];
}

const groupsOf = ({ parameters }: Architecture) => [...new Set(parameters.map(({ group }) => group))];
const namesIn = ({ parameters }: Architecture, group: string) =>
  parameters.filter((row) => row.group === group).map(({ name }) => name);
const normOfGroup = (architecture: Architecture, group: string, gradients: Read) =>
  reference.gradientNorm(namesIn(architecture, group).map((name) => gradients.get(name)!));

/**
 * The loss by a number t that moves one parameter along random numbers r has the derivative gradient . r, a normal number times the
 * gradient's norm: divided by that norm, these are the elements that are compared, one for each parameter. The stop-gradient leaves the
 * backbone the token loss alone, and the token loss does not depend on the expert.
 */
function compareWithExact(architecture: Architecture, inputs: Inputs, { before, losses, gradients }: Stepped) {
  const values = new Map([...before].map(([name, numbers]) => [name, Float64Array.from(numbers)]));
  const exact = exactLosses(architecture, values, inputs);
  const rows = architecture.parameters.map(({ name, group }, i) => {
    const value = values.get(name)!;
    const gradient = gradients.get(name)!;
    // Softmax does not see a bias of all keys: its gradient is zero but for rounding, beside those of its group.
    const [own, all] = [reference.gradientNorm([gradient]), normOfGroup(architecture, group, gradients)];
    const norm = own > VANISHING * all ? own : all;
    const direction = normals(value.length, 1000 + i);
    const along = ([t]: Float64Array[]) => {
      const moved = new Map([...values, [name, value.map((number, at) => number + t[0] * direction[at])]]);
      const { token, flow } = exactLosses(architecture, moved, inputs);
      return Float64Array.of(group === 'expert' ? flow : token);
    };
    const [expected] = reference.differentiate(along, [new Float64Array(1)], 0, [1]);
    const actual = gradient.reduce((sum, slope, at) => sum + slope * direction[at], 0);
    return { name, group, actual: actual / norm, expected: expected / norm };
  });
  return [
    ...(['token', 'flow'] as const).map((name) =>
      compareTensors(subject('forward', `${name} loss`), losses.get(name)!, [exact[name]], LOSS),
    ),
    ...groupsOf(architecture).map((group) => {
      const title = subject('backward', `gradients of ${group} along random directions`);
      const of = rows.filter((row) => row.group === group);
      const [actual, expected] = (['actual', 'expected'] as const).map((key) => of.map((row) => row[key]));
      const result = compareTensors(title, actual, expected, GRADIENT);
      return result.departs ? { ...result, tensor: `gradient of ${of[result.departs.index].name}` } : result;
    }),
  ];
}

/** AdamW from the gradients that the device has, clipped by group. */
function compareUpdate(architecture: Architecture, { before, gradients, state }: Stepped): Comparison[] {
  return groupsOf(architecture).flatMap((group) => {
    const factor = Math.min(1, MAXIMUM_NORM / normOfGroup(architecture, group, gradients));
    const names = namesIn(architecture, group);
    const moved = names.map((name) => {
      const value = Float64Array.from(before.get(name)!);
      const made = { value, first: new Float64Array(value.length), second: new Float64Array(value.length) };
      const gradient = Float64Array.from(gradients.get(name)!, (g) => g * factor);
      reference.adamw(made, gradient, settings, 1, RATE);
      return made;
    });
    return (['value', 'first', 'second'] as const).map((what) => {
      const actual = names.flatMap((name) => [...state.get(what === 'value' ? name : `${what}Moment/${name}`)!]);
      const expected = moved.flatMap((made) => [...made[what]]);
      const title = subject('AdamW', `${what === 'value' ? 'parameters' : `${what} moments`} of ${group}`);
      return compareTensors(title, actual, expected, UPDATE);
    });
  });
}

/** A captured step gives the bits of an eager one. */
function compareBits(eager: Stepped, captured: Stepped): Comparison[] {
  return (['losses', 'gradients', 'state'] as const).map((what) => {
    const names = [...eager[what].keys()];
    const numbers = (of: Stepped) => names.flatMap((name) => [...of[what].get(name)!]);
    return compareTensors(subject('captured', `${what} beside an eager step`), numbers(captured), numbers(eager), 0);
  });
}

/** The flow loss leaves the backbone, and the token loss the expert, gradients of exactly zero. */
async function compareInsulation(model: Model, inputs: Inputs): Promise<Comparison[]> {
  const compared: Comparison[] = [];
  for (const [loss, group] of Object.entries({ flow: 'backbone', token: 'expert' })) {
    model.device.step(() => {
      model.parameters.zeroGradients();
      backward(trainingPass(model, tensorsOf(model.device, inputs)).objectives[loss].loss);
    });
    const grads = namesIn(model.architecture, group).flatMap((name) => model.parameters.get(name).grad ?? []);
    const numbers = (await Promise.all(grads.map((grad) => grad.read()))).flatMap((read) => [...read]);
    const title = subject('insulation', `gradients of ${group} by the ${loss} loss alone, exactly zero`);
    compared.push(compareTensors(title, numbers, new Float32Array(numbers.length), 0));
  }
  return compared;
}
