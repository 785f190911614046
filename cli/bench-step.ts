/** `insula bench step`: training steps of several systems, compared. */
import { runStepBench } from '../bench/step/run.ts';
import { stepLines } from '../bench/step/text.ts';
import { nearSystems } from '../model/systems/index.ts';
import { presetNamed } from '../model/training/presets.ts';
import { benchOptions, runBench } from './bench-run.ts';
import { command } from './command.ts';
import { stepNotes } from './notes.ts';
import { choices } from './options.ts';
import { expectUsedSizes, measuredSystems, stepSizeOptions } from './step-options.ts';

const DEFAULT_SYSTEMS = ['knowledge-insulation', 'joint-training', 'pi0'];

export const benchStep = command({
  options: {
    system: choices(
      `systems, separated by commas; ${DEFAULT_SYSTEMS.join(',')} by default`,
      measuredSystems,
      {},
      nearSystems,
    ),
    ...stepSizeOptions,
    ...benchOptions(),
  },
  notes: stepNotes,
  interruptible: true,
  async run({ system: systems = DEFAULT_SYSTEMS, ...values }, context) {
    const sizes = Object.fromEntries(
      Object.keys(stepSizeOptions).map((name) => [name, values[name as keyof typeof stepSizeOptions]]),
    ) as Partial<typeof values>;
    expectUsedSizes('bench step', systems, sizes);
    const batch = values.batch ?? presetNamed(values.preset ?? 'tiny').batch;
    return runBench(values, context, {
      ...{ command: 'bench step', lines: stepLines },
      run: (device, budget) => runStepBench(device, { systems, ...sizes, batch }, budget),
    });
  },
});
