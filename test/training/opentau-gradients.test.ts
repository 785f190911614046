import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { backward, type Device } from '../../engine/index.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { testDevice } from '../support/devices.ts';
import { normals } from '../support/numbers.ts';

// INSULA_OPENTAU names a Python 3.10 with OpenTau (pip install opentau), whose pi0.5 has knowledge insulation.
const python = process.env.INSULA_OPENTAU;
const program = fileURLToPath(new URL('opentau-gradients.py', import.meta.url));

/** The sizes of opentau-gradients.py. */
const sizes = {
  backbone: { width: 64, hidden: 128 },
  expert: { width: 32, hidden: 96 },
  ...{ depth: 2, heads: 8, kvHeads: 1, headDimension: 16, vocabulary: 800 },
  vision: { width: 32, depth: 2, heads: 2, hidden: 80, patch: 14, imageHeight: 28, imageWidth: 28, cameras: 1 },
  ...{ promptTokens: 12, targetTokens: 5, horizon: 6, actionDimension: 8, stateDimension: 8 },
};

/** Whether a loss gives each parameter a gradient with an element that is not zero; weights are random, so that none vanishes by chance. */
async function reachedBy(objective: string, system: string, device: Device): Promise<Record<string, boolean>> {
  using model = new Model(device, configurationOf(systemNamed(system), sizes));
  for (const [i, parameter] of [...model.parameters].entries())
    device.write(parameter, Float32Array.from(normals(parameter.size, 900 + i, 0.1)));
  const inputs = trainingInputs(model.architecture, randomBatch(model.configuration, 2, 1));
  device.step(() => {
    model.parameters.zeroGradients();
    backward(trainingPass(model, tensorsOf(device, inputs)).objectives[objective].loss);
  });
  const reached: Record<string, boolean> = {};
  for (const { name, grad } of model.parameters)
    reached[name] = grad !== null && (await grad.read()).some((own) => own !== 0);
  return reached;
}

test.skipIf(!python)(
  `gradients are zero where OpenTau's are, insulated and not${python ? '' : ' (skipped: INSULA_OPENTAU names no Python)'}`,
  { timeout: 300_000 },
  async () => {
    const env = { ...process.env, HF_HUB_OFFLINE: '1', OMP_NUM_THREADS: '1' };
    const { stdout } = await promisify(execFile)(python!, [program], { env });
    const theirs: Record<string, Record<string, boolean>> = JSON.parse(stdout.trim().split('\n').at(-1)!);
    // OpenTau's action tokens have an embedding and a head of their own; here they are ids of the one vocabulary.
    const own = /\.(discrete_action_embedding|da_head)\./;
    for (const [system, word, ...counts] of [
      ['knowledge-insulation', 'insulated', 32, 59],
      ['joint-training', 'joint', 84, 59],
    ] as const)
      for (const [i, objective] of ['flow', 'token'].entries()) {
        const reached = await reachedBy(objective, system, await testDevice('normal'));
        const expected = Object.entries(theirs[`${objective}, ${word}`]).filter(([name]) => !own.test(name));
        expect(reached, `${objective}, ${word}`).toEqual(Object.fromEntries(expected));
        expect(Object.values(reached).filter(Boolean).length).toBe(counts[i]);
      }
  },
);
