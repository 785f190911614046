/** The part of a model that an exported checkpoint keeps. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { causal, full } from '../../kernels/index.ts';
import { actingConfiguration } from '../../model/architecture/acting-configuration.ts';
import { Architecture } from '../../model/architecture/model.ts';
import type { ObjectiveSettings } from '../../model/architecture/objectives/index.ts';
import { configurationOf, type System, systemNamed } from '../../model/systems/index.ts';
import { exportCheckpoint, openCheckpoint } from '../../model/training/checkpoint.ts';
import { testDevice } from '../support/devices.ts';
import { tinySizes } from '../support/tiny-sizes.ts';
import { trainRun } from '../support/train-run.ts';

const joint = systemNamed('joint-training');
const modelOf = (system: Partial<System>) => configurationOf({ ...joint, ...system }, tinySizes);
const auxiliary = (name: string) =>
  joint.objectives.map((own): ObjectiveSettings => (own.name === name ? { ...own, auxiliary: true } : own));

test('an auxiliary flow goes with its block and its expert; tokens act', () => {
  const kept = actingConfiguration(modelOf({ objectives: auxiliary('flow') }));
  expect(kept.blocks.map(({ name }) => name)).toEqual(['image', 'language', 'target']);
  expect(Object.keys(kept.experts)).toEqual(['backbone']);
  const { parameters, objectives } = new Architecture(kept);
  expect(new Set(parameters.map(({ group }) => group))).toEqual(new Set(['vision', 'backbone']));
  expect(objectives.map(({ name, acts }) => [name, acts])).toEqual([['token', 'tokens']]);
});

test('what another block reads stays, and a model that cannot run without a flow is refused', () => {
  const { attention } = joint;
  const hybrid = { target: { image: full, language: full, action: full, target: causal } };
  expect(() =>
    actingConfiguration(modelOf({ attention: { ...attention, ...hybrid }, objectives: auxiliary('flow') })),
  ).toThrow('without its auxiliary objectives, this model cannot run: block "action" holds noisy actions, and no flow');
  const both = joint.objectives.map((own) => ({ ...own, auxiliary: true }));
  expect(() => actingConfiguration(modelOf({ objectives: both }))).toThrow('it has no objective');
});

test('without auxiliary objectives all blocks stay', () => {
  const configuration = modelOf({});
  expect(actingConfiguration(configuration)).toEqual(configuration);
});

test.each(['flow', 'token'])('a checkpoint that is exported without %s opens and acts', async (dropped) => {
  const folder = await mkdtemp(join(tmpdir(), 'insula-export-'));
  try {
    const whole = join(folder, 'whole.safetensors');
    const { policy, settings } = await trainRun(whole, { system: 'joint-training', steps: 1 });
    const { model } = policy;
    const configuration = { ...settings.configuration, objectives: auxiliary(dropped) };
    const path = join(folder, 'acting.safetensors');
    await exportCheckpoint(
      path,
      model,
      { ...settings, configuration },
      { step: 1, history: (await progressOf(whole)).history },
    );
    const opened = await openCheckpoint(path);
    using exported = await opened.loadModel(await testDevice('normal'));
    await opened.close();
    for (const parameter of exported.parameters)
      expect(await parameter.read()).toEqual(await model.parameters.get(parameter.name).read());
    expect(exported.objectives.map(({ name }) => name)).not.toContain(dropped);
    model.dispose();
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

async function progressOf(path: string) {
  const checkpoint = await openCheckpoint(path);
  await checkpoint.close();
  return checkpoint.progress;
}
