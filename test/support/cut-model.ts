/** Models of a preset's widths and of few layers, in bf16 and in f32 with the same weights. */
import { type Device, withoutTape } from '../../engine/index.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { act } from '../../model/policy/acting.ts';
import { configurationOf, type ModelSizes, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { normals } from './numbers.ts';

/** Losses of a batch of one example, and the chunk of its observation. */
interface Results {
  readonly losses: Readonly<Record<string, number>>;
  readonly actions: Float32Array;
}

async function resultsOf(model: Model): Promise<Results> {
  const { device, architecture, configuration } = model;
  const batch = randomBatch(configuration, 1, 1);
  const inputs = trainingInputs(architecture, batch);
  const pass = () => Object.values(trainingPass(model, tensorsOf(device, inputs)).objectives).map(({ loss }) => loss);
  const tensors = device.step(() => withoutTape(device, pass));
  const losses = await Promise.all(tensors.map((loss) => loss.read()));
  for (const loss of tensors) loss.dispose();
  const noise = normals(configuration.horizon * configuration.actionDimension, 2);
  return {
    losses: Object.fromEntries(model.objectives.map(({ name }, i) => [name, losses[i][0]])),
    actions: (await act(model, batch, { noise, steps: 2 }))!,
  };
}

/** Knowledge insulation at these sizes in bf16, and in f32 with the weights that bf16 rounded; gates are open. */
export async function inBothPrecisions(device: Device, sizes: ModelSizes): Promise<Record<'bf16' | 'f32', Results>> {
  const system = systemNamed('knowledge-insulation');
  const open: ModelSizes = { ...sizes, initialValues: 'uniform', rules: [{ match: '*', gateBias: 1 }] };
  using half = new Model(device, configurationOf(system, { ...open, precision: 'bf16' }));
  half.initialise(1);
  using whole = new Model(device, configurationOf(system, open));
  for (const parameter of half.parameters) whole.parameters.get(parameter.name).write(await parameter.read());
  return { bf16: await resultsOf(half), f32: await resultsOf(whole) };
}
