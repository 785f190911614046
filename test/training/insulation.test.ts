/**
 * Knowledge insulation in a whole model: the flow loss gives no gradient to the backbone and its vision encoder, not
 * even a rounding error, and the token loss none to the expert. Joint training at the same weights and batch shows that
 * the test can fail.
 */
import { describe, expect, test } from 'vitest';
import { backward } from '../../engine/index.ts';
import { backboneOf } from '../../model/architecture/backbones/index.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { Architecture, Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { configurationOf, type System, systemNamed, withStopsAt } from '../../model/systems/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { testDevice } from '../support/devices.ts';
import { normals } from '../support/numbers.ts';
import { tinySizes } from '../support/tiny-sizes.ts';

/** A system by its name, or knowledge insulation that lets a factor of the gradient pass. */
const systemOf = (system: string | number): System =>
  typeof system === 'string' ? systemNamed(system) : withStopsAt(systemNamed('knowledge-insulation'), system)!;
const configuration = (system: string | number) => configurationOf(systemOf(system), tinySizes);

/** Names of the parameters in these groups, sorted. */
function namesOf(system: string, ...groups: string[]): string[] {
  return new Architecture(configuration(system)).parameters
    .filter(({ group }) => groups.includes(group))
    .map(({ name }) => name)
    .sort();
}

/** The gradients of this loss by the names of parameters; those of no gradient are left out. */
async function gradientsOf(system: string | number, loss: 'flow' | 'token'): Promise<Map<string, Float32Array>> {
  using model = new Model(await testDevice('normal'), configuration(system));
  // A fresh model's gates are zero, and the expert's attention has no gradient behind them. Here every path is open.
  for (const [seed, parameter] of [...model.parameters].entries()) parameter.write(normals(parameter.size, seed, 0.2));
  const batch = randomBatch(model.configuration, 3, 1);
  model.device.step(() =>
    backward(
      trainingPass(model, tensorsOf(model.device, trainingInputs(model.architecture, batch))).objectives[loss].loss,
    ),
  );
  const gradients = new Map<string, Float32Array>();
  for (const { name, grad } of model.parameters) {
    const numbers = await grad?.read();
    if (numbers?.some((element) => element !== 0)) gradients.set(name, numbers);
  }
  return gradients;
}

/** Names of the parameters whose gradient of this loss is +0 or -0 in every element, sorted. */
async function withoutGradient(system: string, loss: 'flow' | 'token'): Promise<string[]> {
  const gradients = await gradientsOf(system, loss);
  return namesOf(system, 'vision', 'backbone', 'expert').filter((name) => !gradients.has(name));
}

/** Leaves out biases of keys: the same for all keys, they change no attention, and their gradient is rounding noise. */
const certain = (names: readonly string[]) => names.filter((name) => !/vision_tower.*k_proj\.bias$/.test(name));

describe('insulation in a whole model', () => {
  test('knowledge insulation: the flow loss reaches every parameter of the expert and no other', async () => {
    expect(await withoutGradient('knowledge-insulation', 'flow')).toEqual(
      namesOf('knowledge-insulation', 'vision', 'backbone'),
    );
  });

  test.each(['knowledge-insulation', 'joint-training'])(
    '%s: the token loss reaches every parameter of backbone and vision encoder and no other',
    async (system) => {
      expect(certain(await withoutGradient(system, 'token'))).toEqual(namesOf(system, 'expert'));
    },
  );

  test('soft insulation: half of the gradient passes an edge, and all of it is joint training', async () => {
    const last = `${backboneOf({ backbone: 'gemma' }).names.expert('backbone')}.layers.${tinySizes.depth - 1}`;
    const values = `${last}.self_attn.v_proj.weight`;
    const joint = await gradientsOf('joint-training', 'flow');
    expect(await gradientsOf(1, 'flow')).toEqual(joint);
    const half = await gradientsOf(0.5, 'flow');
    expect([...half.keys()]).toEqual([...joint.keys()]);
    // These values are read by the expert alone, and a half is exact.
    expect(half.get(values)).toEqual(joint.get(values)!.map((element) => element / 2));
    expect(withStopsAt(systemNamed('pi0'), 0.5)).toBeNull();
  });

  test('joint training: the flow loss reaches the backbone up to the keys and values of its last layer', async () => {
    const stack = backboneOf({ backbone: 'gemma' }).names.expert('backbone');
    const last = `${stack}.layers.${tinySizes.depth - 1}`;
    // The expert reads keys and values of the backbone's last layer, and nothing behind them.
    const behind = ['self_attn.q_proj', 'self_attn.o_proj', 'post_attention_layernorm', 'mlp'].map(
      (part) => `${last}.${part}.`,
    );
    const unread = namesOf('joint-training', 'backbone').filter(
      (name) => behind.some((part) => name.startsWith(part)) || name === `${stack}.norm.weight`,
    );
    expect(unread.length).toBe(7);
    expect(certain(await withoutGradient('joint-training', 'flow'))).toEqual(unread);
  });
});
