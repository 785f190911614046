import { expect, test } from 'vitest';
import { backward } from '../../engine/index.ts';
import { tensorsOf, trainingInputs } from '../../model/architecture/inputs.ts';
import { trainingPass } from '../../model/architecture/losses.ts';
import { Model } from '../../model/architecture/model.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { testDevice } from '../support/devices.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

/** The largest absolute value of a loss's gradient on each group of parameters of a whole model. */
async function largestGradients(system: string, loss: 'tokenLoss' | 'flowLoss'): Promise<Record<string, number>> {
  const device = await testDevice('normal');
  using model = new Model(device, configurationOf(systemNamed(system), tinySizes));
  model.initialise(3);
  // Gates of an adaptive norm begin at zero, and with them every way from the expert back to the prefix.
  for (const parameter of model.parameters)
    if (/dense\.(weight|bias)$/.test(parameter.name))
      parameter.write(Float32Array.from({ length: parameter.size }, (_, i) => Math.sin(i) / 4));
  device.step(() => {
    model.parameters.zeroGradients();
    const inputs = tensorsOf(device, trainingInputs(model.configuration, randomBatch(model.configuration, 2, 1)));
    backward(trainingPass(model, inputs)[loss]!);
  });
  const largest: Record<string, number> = {};
  for (const { group, tensors } of model.parameters.arenas)
    for (const tensor of tensors) {
      const gradient = await tensor.grad!.read();
      largest[group] = Math.max(largest[group] ?? 0, ...gradient.map(Math.abs));
    }
  return largest;
}

test('knowledge insulation: the flow loss reaches nothing but the expert, the token loss nothing of it, to the last bit', async () => {
  const flow = await largestGradients('knowledge-insulation', 'flowLoss');
  expect(flow).toEqual({ vision: 0, backbone: 0, expert: expect.any(Number) });
  expect(flow.expert).toBeGreaterThan(0);
  const token = await largestGradients('knowledge-insulation', 'tokenLoss');
  expect(token).toEqual({ vision: expect.any(Number), backbone: expect.any(Number), expert: 0 });
  expect(Math.min(token.vision, token.backbone)).toBeGreaterThan(0);
});

test('joint training, which differs by the stop-gradient alone: the flow loss reaches everything', async () => {
  const flow = await largestGradients('joint-training', 'flowLoss');
  expect(Math.min(flow.vision, flow.backbone, flow.expert)).toBeGreaterThan(0);
});
