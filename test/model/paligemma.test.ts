/** The whole of preset paligemma, 3.3 billion parameters, on whatever adapter is there. */
import { expect } from 'vitest';
import { openDevice } from '../../engine/index.ts';
import { AdamW } from '../../kernels/index.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs } from '../../model/architecture/training-pass.ts';
import { act } from '../../model/policy/acting.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { memoryPlan } from '../../model/training/memory-plan.ts';
import { presetNamed } from '../../model/training/presets.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { DEFAULT_SYSTEM } from '../../model/training/recommended.ts';
import { runSettings } from '../../model/training/run-settings.ts';
import { TrainingStep } from '../../model/training/training-step.ts';
import { longTest } from '../support/long.ts';
import { normals } from '../support/numbers.ts';

const HOUR = 3_600_000;
const MOST_BYTES = 24e9;
const TOKENS = 3;
const LEARNING_RATE = 1e-3;

const preset = presetNamed('paligemma');
const { image, ...vision } = preset.vision;
/** The thin matrices learn, with the heads and projections of the expert; the tower keeps its values too. */
const adapted = {
  lora: { rank: 8 },
  rules: [
    { match: 'vision', frozen: true },
    // Closed gates would keep the gradient of the first step from the branches of the expert.
    { match: '*', gateBias: 1 },
  ],
};
const configuration = configurationOf(systemNamed(DEFAULT_SYSTEM), {
  ...preset,
  vocabulary: preset.vocabulary!,
  vision: { ...vision, imageHeight: image, imageWidth: image, cameras: 1 },
  ...{ promptTokens: 24, targetTokens: 24, horizon: 10, actionDimension: 7, stateDimension: 7 },
  precision: 'bf16',
  ...adapted,
});

longTest(
  'an observation is acted on, and a step of low-rank adaptation trains, within an hour and 24 GB',
  async () => {
    using device = await openDevice();
    const settings = runSettings({ system: DEFAULT_SYSTEM, preset, batch: 1, recompute: true, precision: 'bf16' });
    const { parameters, total } = await memoryPlan(device, configuration, settings);
    expect(parameters).toBeGreaterThan(3.3e9);
    expect(total).toBeLessThan(MOST_BYTES);
    using model = new Model(device, configuration);
    model.initialise(1);
    const batch = randomBatch(configuration, 1, 1);

    const noise = normals(configuration.horizon * configuration.actionDimension, 2);
    const actions = (await act(model, batch, { noise, steps: 2 }))!;
    expect(actions.length).toBe(noise.length);
    expect(actions.every(Number.isFinite)).toBe(true);
    expect(actions).not.toEqual(noise);

    const said: number[] = [];
    const writer = {
      allowed: () => (said.length < TOKENS ? ('all' as const) : null),
      write: (_: number, id: number) => Boolean(said.push(id)),
    };
    await act(model, batch, { objective: model.objectives.find(({ acts }) => acts === 'tokens'), writer });
    expect(said.length).toBe(TOKENS);

    const valuesOf = (name: string) => model.parameters.get(name).read();
    const names = model.architecture.parameters.map(({ name }) => name);
    const up = names.filter((name) => name.endsWith('.lora_B.weight'));
    const kept = names.filter((name) => name.endsWith('layers.0.self_attn.k_proj.weight'));
    expect([up.length > 0, kept.length]).toEqual([true, 3]);
    const before = await Promise.all(kept.map(valuesOf));
    {
      using optimizer = new AdamW(model.parameters, {
        weightDecay: preset.weightDecay,
        maximumNorm: preset.maximumNorm,
      });
      using step = new TrainingStep(model, optimizer, { recompute: true });
      const losses: Promise<Float32Array>[] = [];
      await step.run([trainingInputs(model.architecture, batch)], LEARNING_RATE, (own) => {
        for (const loss of Object.values(own)) losses.push(loss.read());
      });
      for (const [loss] of await Promise.all(losses)) expect(Number.isFinite(loss)).toBe(true);
      expect(device.memory.bytes).toBeLessThan(MOST_BYTES);
    }
    expect(await Promise.all(kept.map(valuesOf))).toEqual(before);
    // B begins at zero; a gradient reaches it in the first step, and A only then.
    const learned = await Promise.all(up.map(async (name) => (await valuesOf(name)).some((value) => value !== 0)));
    expect(learned.every((own) => own)).toBe(true);
  },
  HOUR,
);
