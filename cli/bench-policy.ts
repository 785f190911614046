/** `insula bench policy`: the latency by part of policies of several systems, compared. */
import { policyLines, runPolicyBench } from '../bench/step/policy.ts';
import { nearSystems } from '../model/systems/index.ts';
import { benchOptions, runBench } from './bench-run.ts';
import { command } from './command.ts';
import { choices, number } from './options.ts';
import { systemNames } from './run-options.ts';
import { expectUsedSizes, stepSizeOptions } from './step-options.ts';

const { preset, prompt, horizon, depth } = stepSizeOptions;

export const benchPolicy = command({
  options: {
    system: choices('systems, separated by commas; all by default', systemNames, {}, nearSystems),
    ...{ preset, prompt, horizon, depth },
    batch: number('observations that are acted on at once; 1 by default', 1),
    steps: number('steps of a flow or a diffusion; 10 by default', 1),
    ...benchOptions(),
  },
  notes: [
    'A call goes from an encoded observation to the normalised chunk. Policies that decode say the tokens of one smooth chunk, whatever their logits are, so that every call does the same work.',
  ],
  interruptible: true,
  async run(values, context) {
    const { system: systems = systemNames, preset, prompt, horizon, depth, batch = 1, steps } = values;
    expectUsedSizes('bench policy', systems, { preset, steps });
    const options = { systems, preset, prompt, horizon, depth, batch, steps: steps ?? 10 };
    return runBench(values, context, {
      ...{ command: 'bench policy', lines: policyLines },
      run: (device, budget) => runPolicyBench(device, options, budget),
    });
  },
});
