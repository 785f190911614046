/** Rules reach the parameters that they name: rates and freezing an update, gate biases the initial values. */
import { describe, expect, test } from 'vitest';
import { backward } from '../../engine/index.ts';
import { AdamW } from '../../kernels/index.ts';
import type { ParameterRule } from '../../model/architecture/configuration.ts';
import { tensorsOf } from '../../model/architecture/inputs.ts';
import { Architecture, Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { testDevice } from '../support/devices.ts';
import { manyObjectives, unevenBatch } from '../support/many-objectives.ts';
import { expectClose, normals } from '../support/numbers.ts';

const withRules = (...rules: ParameterRule[]) => ({ ...manyObjectives, rules });
const { parameters } = new Architecture(manyObjectives);
const namesWhere = (keep: (parameter: (typeof parameters)[number]) => boolean) =>
  parameters.filter(keep).map(({ name }) => name);

/** By name, what one update by AdamW without decay adds to the same random weights; null for a parameter without gradient. */
async function updated(...rules: ParameterRule[]): Promise<Map<string, number[] | null>> {
  using model = new Model(await testDevice('normal'), withRules(...rules));
  const before = [...model.parameters].map(({ name, size }) => {
    const values = normals(
      size,
      parameters.findIndex((own) => own.name === name),
      0.3,
    );
    model.parameters.get(name).write(values);
    return { name, values };
  });
  using optimizer = new AdamW(model.parameters, { weightDecay: 0 });
  const inputs = trainingInputs(model.architecture, unevenBatch(3));
  model.device.step(() => {
    model.parameters.zeroGradients();
    backward(trainingPass(model, tensorsOf(model.device, inputs)).loss);
    optimizer.step(0.01);
  });
  const changes = new Map<string, number[] | null>();
  for (const { name, values } of before) {
    const parameter = model.parameters.get(name);
    const after = await parameter.read();
    const change = Array.from(after, (value, i) => value - values[i]);
    changes.set(name, parameter.grad ? change : change.every((own) => own === 0) ? null : change);
  }
  return changes;
}

describe('rules', () => {
  const cases: { match: string; names: string[] }[] = [
    { match: 'expert', names: namesWhere(({ group }) => group === 'expert') },
    { match: 'vision', names: namesWhere(({ group }) => group === 'vision') },
    { match: '*.mlp.*', names: namesWhere(({ name }) => name.includes('.mlp.')) },
    { match: 'time_mlp_in.*', names: ['time_mlp_in.weight', 'time_mlp_in.bias'] },
    { match: 'readout_embedding.weight', names: ['readout_embedding.weight'] },
  ];

  test.each(cases)('a rate of $match scales its updates alone', async ({ match, names }) => {
    const [plain, ruled] = [await updated(), await updated({ match, rate: 0.25 })];
    expect(names.length).toBeGreaterThan(0);
    for (const [name, change] of plain) {
      const expected = change!.map((value) => value * (names.includes(name) ? 0.25 : 1));
      // Differences of weights near 1 hold a change of 0.01 to five digits.
      expectClose(ruled.get(name)!, expected, 1e-3, name);
    }
  });

  test.each(cases)(
    '$match frozen: no gradient and no update there, and the same elsewhere',
    async ({ match, names }) => {
      const [plain, ruled] = [await updated(), await updated({ match, frozen: true })];
      for (const [name, change] of plain) {
        if (names.includes(name)) expect(ruled.get(name), name).toBeNull();
        else expectClose(ruled.get(name)!, change!, 1e-3, name);
      }
    },
  );

  test.each(['expert', '*.layers.1.input_layernorm.*'])('an initial gate of %s', async (match) => {
    using plain = new Model(await testDevice('normal'), manyObjectives);
    using ruled = new Model(await testDevice('normal'), withRules({ match, gateBias: 1 }));
    for (const model of [plain, ruled]) model.initialise(1);
    const changed: string[] = [];
    for (const { name } of parameters) {
      const [before, after] = [await plain.parameters.get(name).read(), await ruled.parameters.get(name).read()];
      if (before.every((value, i) => value === after[i])) continue;
      changed.push(name);
      expect([...after], name).toEqual([...before.subarray(0, 24), ...Array<number>(12).fill(1)]);
    }
    const gates = namesWhere(({ name }) => name.endsWith('.dense.bias'));
    expect(gates.length).toBe(5);
    expect(changed).toEqual(
      match === 'expert' ? gates : gates.filter((name) => name.includes('layers.1.input_layernorm')),
    );
  });

  test('the last rule that says something decides', () => {
    const rules = [
      { match: '*', frozen: true, rate: 0.5 },
      { match: 'expert', frozen: false },
      { match: 'action_in_proj.*', rate: 2 },
    ];
    const ruled = new Architecture(withRules(...rules)).parameters;
    for (const { name, group, frozen, rate } of ruled) {
      expect(frozen, name).toBe(group !== 'expert');
      expect(rate, name).toBe(name.startsWith('action_in_proj.') ? 2 : 0.5);
    }
  });

  test.each([
    [{ match: 'planner', rate: 2 }, '"planner" matches no parameter; the groups are vision, backbone, expert'],
    [{ match: 'action_in_proj', frozen: true }, '"action_in_proj" matches no parameter;'],
    [{ match: 'backbone', gateBias: 1 }, '"backbone" matches no parameter with a gate;'],
  ])('%j is refused', (rule, message) => {
    expect(() => new Architecture(withRules(rule))).toThrow(message);
  });
});
