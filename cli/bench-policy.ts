/** `insula bench policy`: the latency by part of policies of several systems, compared. */
import { LEAST_ROUNDS } from '../bench/measure/measure.ts';
import { readSavedRun } from '../bench/measure/saved-run.ts';
import { openTunedDevice } from '../bench/measure/tuning.ts';
import { policyRunSchema, runPolicyBench } from '../bench/step/policy.ts';
import { policyComparison, policyLines } from '../bench/step/policy-text.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { nearSystems } from '../model/systems/index.ts';
import { command } from './command.ts';
import { deviceOptions } from './device.ts';
import { choices, number, outputFile, text } from './options.ts';
import { systemNames } from './run-options.ts';
import { expectSameSizes, expectUsedSizes, stepSizeOptions } from './step-options.ts';

const { preset, prompt, horizon, depth } = stepSizeOptions;

export const benchPolicy = command({
  options: {
    system: choices('systems, separated by commas; all by default', systemNames, {}, nearSystems),
    ...{ preset, prompt, horizon, depth },
    batch: number('observations that are acted on at once; 1 by default', 1),
    steps: number('steps of a flow or a diffusion; 10 by default', 1),
    rounds: number('rounds that interleave the systems; 10 by default, at least 3', LEAST_ROUNDS),
    seconds: number('time limit: no round starts that would exceed it; 60 by default'),
    out: outputFile('file for the run as JSON'),
    compare: text('file of an earlier run: results as ratios to it'),
    ...deviceOptions,
  },
  notes: [
    'A call goes from an encoded observation to the normalised chunk. Policies that decode say the tokens of one smooth chunk, whatever their logits are, so that every call does the same work.',
  ],
  async run(
    {
      system: systems = systemNames,
      rounds = 10,
      seconds = 60,
      batch = 1,
      steps,
      out,
      compare,
      adapter,
      floor,
      tuning,
      ...given
    },
    { progress },
  ) {
    expectUsedSizes('bench policy', systems, { preset: given.preset, steps });
    const sizes = { ...given, batch, steps: steps ?? 10 };
    const before = compare === undefined ? null : await readSavedRun(compare, policyRunSchema, 'insula bench policy');
    if (before) expectSameSizes(compare!, before.sizes, sizes);
    using device = (await openTunedDevice({ adapter, floor, tuning }, (line) => progress.note(line))).device;
    const result = await runPolicyBench(device, { systems, rounds, seconds, ...sizes }, (what, done, total) =>
      progress.count(what, done, total),
    );
    if (out !== undefined) await writeFileSafely(out, [`${JSON.stringify(result, null, 1)}\n`]);
    const lines = [...policyLines(result), ...(before ? ['', ...policyComparison(before, result)] : [])];
    return { json: result, lines };
  },
});
