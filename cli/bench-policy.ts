/** `insula bench policy`: the latency by part of policies of several systems, compared. */
import { provenanceLine } from '../bench/measure/provenance.ts';
import { courseLine } from '../bench/measure/run.ts';
import { aligned, digits, quartiles } from '../bench/measure/table.ts';
import { type PolicyRun, runPolicyBench } from '../bench/step/policy.ts';
import { sizesText } from '../bench/step/run.ts';
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

export function policyLines(run: PolicyRun): string[] {
  const { rows, options } = run;
  const parts = [...new Set(rows.flatMap((row) => row.parts.map(({ name }) => name)))];
  const partCell = (row: PolicyRun['rows'][number], part: string) => {
    const own = row.parts.find(({ name }) => name === part);
    if (!own) return '-';
    return own.times === 1 ? digits(own.median) : `${own.times} x ${digits(own.median / own.times)}`;
  };
  const cells = rows.map((row) => [
    row.system,
    ...parts.map((part) => partCell(row, part)),
    ...[digits(row.time.median), quartiles(row.time), row.tokens === null ? '-' : String(row.tokens)],
  ]);
  return [
    provenanceLine(run),
    `${sizesText(options)}, random weights; milliseconds, medians; ${courseLine(run)}`,
    ...aligned([['system', ...parts, 'total', 'quartiles', 'tokens'], ...cells], 1),
    'total: from an encoded observation to the chunk on the host, in calls of their own; where parts are timed, each waits for the adapter. tokens: those of a smooth chunk.',
  ];
}
