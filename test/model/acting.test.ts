/** Acting by objectives that read what must be decoded first, that read nothing, or that cannot act. */
import { expect, test } from 'vitest';
import { causal, full } from '../../kernels/index.ts';
import { Model } from '../../model/architecture/model.ts';
import { act } from '../../model/policy/acting.ts';
import { configurationOf, type System, systemNamed } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { testDevice } from '../support/devices.ts';
import { normals } from '../support/numbers.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

const joint = systemNamed('joint-training');

async function modelOf(system: System): Promise<Model> {
  const model = new Model(await testDevice('normal'), configurationOf(system, tinySizes));
  for (const [seed, parameter] of [...model.parameters].entries()) parameter.write(normals(parameter.size, seed, 0.3));
  return model;
}

/** pi0.5: the subtask is text, and the actions see it. */
const subtaskFirst: System = {
  ...joint,
  blocks: joint.blocks.map((block) =>
    block.name === 'action' ? { ...block, after: ['image', 'language', 'target'] } : block,
  ),
  attention: { ...joint.attention, action: { image: full, language: full, target: full, action: full } },
};

test('a target that the actions see is decoded first, and decides them', async () => {
  using model = await modelOf(subtaskFirst);
  const observation = randomBatch(model.configuration, 2, 1);
  const noise = normals(2 * 4 * 3, 2);
  const chosen: string[] = [];
  const actionsAfter = (ids: readonly number[]) => {
    const written = [0, 0];
    return act(model, observation, {
      noise,
      writer: {
        allowed(sample, target) {
          chosen.push(target);
          const id = ids[written[sample]++];
          return id === undefined ? null : [id];
        },
        write: () => true,
      },
    });
  };
  const first = await actionsAfter([3, 4]);
  expect(new Set(chosen)).toEqual(new Set(['target']));
  expect(chosen.length).toBe(6);
  expect(await actionsAfter([3, 4])).toEqual(first);
  expect(await actionsAfter([3, 5])).not.toEqual(first);
  expect(await actionsAfter([])).not.toEqual(first);
});

test('a flow that reads its own block alone acts', async () => {
  const { action } = joint.attention;
  using model = await modelOf({
    ...joint,
    blocks: joint.blocks.filter(({ name }) => name === 'action'),
    attention: { action: { action: action.action } },
    objectives: joint.objectives.slice(1),
  });
  const observation = randomBatch(model.configuration, 2, 1);
  const actions = await act(model, observation, { noise: normals(2 * 4 * 3, 2) });
  expect(actions!.length).toBe(24);
  expect(actions!.every(Number.isFinite)).toBe(true);
});

test('tokens that read the noisy actions are refused, and the flow acts', async () => {
  const hybrid: System = {
    ...joint,
    attention: { ...joint.attention, target: { image: full, language: full, target: causal, action: full } },
    // The order of objectives does not decide: tokens that cannot be decoded do not act.
    objectives: [...joint.objectives].reverse(),
  };
  using model = await modelOf(hybrid);
  const observation = randomBatch(model.configuration, 2, 1);
  const objective = model.objectives.find(({ name }) => name === 'token');
  await expect(act(model, observation, { objective })).rejects.toThrow(
    'no objective of this model acts; the token loss cannot: target "target" cannot be decoded: it reads block "action", which changes with the noisy actions or their flow time',
  );
  expect((await act(model, observation, { noise: normals(2 * 4 * 3, 2) }))!.length).toBe(24);
});
