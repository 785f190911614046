import { backward, type Tensor } from '../../engine/index.ts';
import { tensorsOf, trainingInputs } from '../../model/architecture/inputs.ts';
import { trainingPass } from '../../model/architecture/losses.ts';
import { Model } from '../../model/architecture/model.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
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
  const { tokenLoss, flowLoss } = model.device.step(() => {
    const pass = trainingPass(
      model,
      tensorsOf(model.device, trainingInputs(model.configuration, randomBatch(model.configuration, 3, 1))),
    );
    backward(pass.loss);
    return { tokenLoss: pass.tokenLoss!, flowLoss: pass.flowLoss! };
  });
  const read = async (loss: Tensor) => {
    const [value] = await loss.read();
    loss.dispose();
    return value;
  };
  const gradients = [];
  for (const { name, grad } of model.parameters) gradients.push({ name, norm: Math.hypot(...(await grad!.read())) });
  return { tokenLoss: await read(tokenLoss), flowLoss: await read(flowLoss), gradients };
}
