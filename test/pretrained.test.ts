import { readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Frame, recordFrames } from '../bench/tabletop/frames.ts';
import { episodeSeed, type SceneSettings } from '../bench/tabletop/scene.ts';
import { askAbout, distancesOf, GROSS } from '../bench/tabletop/seeing.ts';
import { TabletopWorld } from '../bench/tabletop/world.ts';
import { Encoding } from '../model/policy/encoding.ts';
import { Policy } from '../model/policy/policy.ts';
import { pretrainedNames, pretrainedUrl } from '../model/pretrained/index.ts';
import { presetNamed } from '../model/training/presets.ts';
import { expectPresetSizes, openStart } from '../model/training/start.ts';
import { testDevice } from './support/devices.ts';

const path = (name: string) => fileURLToPath(pretrainedUrl(name)!);

test('the shipped models take at most 4 MB together', () => {
  const sizes = pretrainedNames.map((name) => statSync(path(name)).size);
  expect(sizes.reduce((sum, size) => sum + size)).toBeLessThanOrEqual(4 * 2 ** 20);
});

describe.each(pretrainedNames)('the shipped model %s', (name) => {
  /** Beginnings of scenes that no training shows; each has one question of every kind. */
  const frames: Frame[] = [];
  beforeAll(async () => {
    const world = await TabletopWorld.create();
    const settings: SceneSettings = { task: 'place', variation: 'simple' };
    for (let i = 0; i < 4; i++)
      frames.push(...recordFrames(world, episodeSeed('training', 7, 2 ** 21 + i), settings, 1));
    world.delete();
  });
  let policy: Policy;
  afterAll(() => policy?.model.dispose());

  test('has the sizes of its preset, and says how it was made', async () => {
    const file = await openStart(name);
    expectPresetSizes(file, presetNamed(name));
    expect(JSON.parse(readFileSync(path(name).replace('.safetensors', '.json'), 'utf8'))).toEqual(file.made);
    expect(file.made.steps).toBe(presetNamed(name).pretraining.steps);
    const device = await testDevice('normal');
    policy = new Policy(await file.loadModel(device), new Encoding(file.encoding));
    await file.close();
  });

  test('answers questions about scenes that it has not seen, and points', async () => {
    const answered = await askAbout(policy, frames, 1);
    const isRight = (own: (typeof answered)[number]) =>
      ['point', 'task'].includes(own.question.kind)
        ? distancesOf(own).every((distance) => distance <= GROSS)
        : own.answer === own.question.answer;
    const checked = answered.filter(({ question }) => question.kind !== 'caption');
    expect(checked.length).toBeGreaterThanOrEqual(10);
    const wrong = checked
      .filter((own) => !isRight(own))
      .map(({ question, answer }) => [question.prompt, question.answer, answer]);
    expect(wrong.length / checked.length, JSON.stringify(wrong)).toBeLessThan(0.2);
  });
});
