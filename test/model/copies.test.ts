/** Copies of a chunk with noise and time of their own, beside a token of places that is copied with them. */
import { describe, expect, test } from 'vitest';
import { full } from '../../kernels/index.ts';
import { expectRunnable } from '../../model/architecture/check.ts';
import type { TrainingBatch } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingBlocks } from '../../model/architecture/sequence.ts';
import { configurationOf, type System, systemNamed, withDraws, withSubtask } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { testDevice } from '../support/devices.ts';
import { gradientsOfObjective } from '../support/gradients.ts';
import { expectClose, normals } from '../support/numbers.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

const [DRAWS, BATCH] = [3, 2];

const modelOf = (system: System, draws = 1) => {
  const saying = withSubtask(system, { tokens: 4, dimension: 28 })!;
  return configurationOf(withDraws(saying, draws)!, { ...tinySizes, stateDimension: 0 });
};

async function flowOf(model: Model, batch: TrainingBatch) {
  const { loss, gradients } = await gradientsOfObjective(model, batch, 'flow');
  const chosen = Object.entries(gradients).filter(([name]) => /numbers_proj|action_in|expert\.layers\.0/.test(name));
  return { loss, gradients: chosen.flatMap(([, own]) => [...own]) };
}

const pi0 = systemNamed('pi0');
const pi0Token: System = {
  ...pi0,
  name: 'pi0 with the time as a token',
  blocks: [...pi0.blocks.slice(0, 3), { name: 'time', input: 'time', weights: 'expert' }, pi0.blocks[3]],
  attention: { ...pi0.attention, time: { time: full }, action: { ...pi0.attention.action, time: full } },
  time: 'token',
};

describe.each([systemNamed('knowledge-insulation'), pi0, pi0Token])('$name that points', (system) => {
  test('the loss of several draws is the mean of those of each draw, and so are its gradients', async () => {
    const device = await testDevice('normal');
    const several = modelOf(system, DRAWS);
    using together = new Model(device, several);
    using alone = new Model(device, modelOf(system));
    expect([...together.parameters].map((own) => own.name)).toEqual([...alone.parameters].map((own) => own.name));
    for (const model of [together, alone])
      for (const [i, parameter] of [...model.parameters].entries()) parameter.write(normals(parameter.size, i, 0.3));
    const batch = randomBatch(several, BATCH, 5);
    const { loss, gradients } = await flowOf(together, batch);
    const size = batch.noise!.length / (BATCH * DRAWS);
    let [mean, sums] = [0, new Float64Array(gradients.length)];
    for (let draw = 0; draw < DRAWS; draw++) {
      const chunks = Array.from({ length: BATCH }, (_, example) => example * DRAWS + draw);
      const noise = chunks.flatMap((own) => [...batch.noise!.subarray(own * size, (own + 1) * size)]);
      const own = await flowOf(alone, {
        ...batch,
        noise: Float32Array.from(noise),
        time: chunks.map((chunk) => batch.time![chunk]),
      });
      mean += own.loss / DRAWS;
      sums = sums.map((sum, i) => sum + own.gradients[i] / DRAWS);
    }
    expect(gradients.some((own) => own !== 0)).toBe(true);
    expectClose([loss], [mean], 1e-5, 'loss');
    expectClose(gradients, [...sums], 1e-5, 'gradients');
  });
});

test('neighbours through adaptive norms are copied together', () => {
  const { blocks } = modelOf(systemNamed('knowledge-insulation'), 2);
  const names = trainingBlocks({ blocks }).map(({ tableName }) => tableName);
  expect(names).toEqual([
    'image',
    'language',
    'subtask',
    'target',
    'numbers',
    'action',
    'numbers copy 2',
    'action copy 2',
  ]);
});

test('learned rows through adaptive norms cannot be copied', () => {
  const { blocks, attention, ...system } = systemNamed('knowledge-insulation');
  const registers = { name: 'registers', input: 'learned', weights: 'expert', length: 2 } as const;
  const own = {
    ...system,
    blocks: [...blocks.slice(0, 3), registers, blocks[3]],
    attention: { ...attention, registers: { registers: full }, action: { ...attention.action, registers: full } },
  };
  const sizes = { ...tinySizes, stateDimension: 0 };
  expect(() => expectRunnable(configurationOf(own, sizes))).not.toThrow();
  expect(() => expectRunnable(configurationOf(withDraws(own, 2)!, sizes))).toThrow(
    'block "registers" is repeated; only noisy actions, the state and numbers have copies',
  );
});
