import { backward, type Tensor } from '../../engine/index.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { lossesOf } from '../../model/training/training-step.ts';
import { testDevice } from '../support/devices.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

export interface TrainingFigures {
  tokenLoss: number;
  flowLoss: number;
  /** L2 norm of every parameter's gradient. */
  gradients: { name: string; norm: number }[];
}

/** One pass and its backward of a tiny model under knowledge insulation. */
export async function trainingFigures(): Promise<TrainingFigures> {
  using model = new Model(await testDevice('normal'), configurationOf(systemNamed('knowledge-insulation'), tinySizes));
  model.initialise(1);
  const losses = model.device.step(() => {
    const pass = trainingPass(
      model,
      tensorsOf(model.device, trainingInputs(model.architecture, randomBatch(model.configuration, 3, 1))),
    );
    backward(pass.loss);
    return lossesOf(pass);
  });
  const read = async (loss: Tensor) => {
    const [value] = await loss.read();
    loss.dispose();
    return value;
  };
  const gradients = [];
  for (const { name, grad } of model.parameters) gradients.push({ name, norm: Math.hypot(...(await grad!.read())) });
  return { tokenLoss: await read(losses.token), flowLoss: await read(losses.flow), gradients };
}
