import { expect, test } from 'vitest';
import { systems } from '../../model/systems/index.ts';
import { expectRules } from '../../model/training/parameter-rules.ts';
import { presetNamed } from '../../model/training/presets.ts';
import { recommendedSettings } from '../../model/training/recommended.ts';
import { systemOf } from '../../model/training/run-settings.ts';

test('a policy begins from the model of its preset, and its pretrained parameters learn slowly', () => {
  const { from, rates, subtask, draws, gates } = recommendedSettings({ preset: presetNamed('small') });
  expect({ from, rates, subtask, draws, gates }).toEqual({
    ...{ from: 'small', rates: { vision: 0.1, backbone: 0.2 }, subtask: 'places', draws: 8, gates: 1 },
  });
  expect(recommendedSettings({ from: null }).rates).toBeNull();
  expect(recommendedSettings({ subtask: null, draws: 2 })).toMatchObject({ subtask: null, draws: 2 });
});

test('an action expert is what lets the backbone learn slowly: action tokens begin anew', () => {
  expect(recommendedSettings({ system: 'pi0-fast' })).toMatchObject({ rates: { vision: 0.1 }, draws: 1, gates: null });
  expect(recommendedSettings({ system: 'openvla-oft' })).toMatchObject({ subtask: null, draws: 1 });
});

test.each(systems.map((system) => [system.name, system] as const))(
  '%s can be trained so, whatever is frozen',
  (system, { blocks, rules = [] }) => {
    const hasExpert = blocks.some(({ weights }) => weights !== 'backbone') && rules.length === 0;
    for (const freeze of [
      null,
      ...(rules.length > 0 ? [] : [['vision']]),
      ...(hasExpert ? [['vision', 'backbone'], ['paligemma*']] : []),
    ]) {
      const settings = recommendedSettings({ system, freeze });
      expect(() => systemOf(settings)).not.toThrow();
      expect(() => expectRules(settings, { images: true, state: true })).not.toThrow();
    }
  },
);
