/** `insula inspect`: measurements of a model, each with lines, JSON and a page. */
import { provenance } from '../bench/measure/provenance.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { InputError } from '../engine/index.ts';
import { inspectPage } from '../model/report/inspect-page.ts';
import { command } from './command.ts';
import { attention } from './inspect-attention.ts';
import { gradients, interference } from './inspect-gradients.ts';
import { probe } from './inspect-probe.ts';
import { inspectStep } from './inspect-step.ts';
import { type SubjectValues, subjectOptions, withSubject } from './inspect-subject.ts';
import { swap } from './inspect-swap.ts';
import { linesOf, type Measurement, sectionsOf } from './measurement.ts';
import { flag } from './options.ts';
import type { Progress } from './progress.ts';

const measurements: Readonly<Record<string, Measurement>> = { gradients, interference, attention, probe, swap };

export const inspect = command({
  options: {
    step: flag('the operations of a captured training step: kernel, grid, FLOPs, bytes, arenas'),
    gradients: flag(gradients.help),
    interference: flag(interference.help),
    attention: flag(attention.help),
    probe: flag(probe.help),
    swap: flag(swap.help),
    ...subjectOptions,
    ...interference.options,
    ...attention.options,
    ...probe.options,
  },
  async run(values, { progress, signal }) {
    const kinds = ['step', ...Object.keys(measurements)];
    const chosen = Object.keys(values).filter((name) => kinds.includes(name));
    if (chosen.length !== 1)
      throw new InputError(
        `inspect: give one of ${kinds.map((kind) => `--${kind}`).join(', ')}, which say what to show`,
      );
    const { json, lines } =
      values.step === undefined
        ? await measured(measurements[chosen[0]], values, progress, signal)
        : await inspectStep(values, progress);
    if (values.out !== undefined) await writeFileSafely(values.out, [`${JSON.stringify(json, null, 1)}\n`]);
    return { json, lines };
  },
});

function measured(
  { measure, needsReal = false }: Measurement,
  values: SubjectValues,
  progress: Progress,
  signal: AbortSignal,
) {
  return withSubject(values, needsReal, progress, async (inspected) => {
    const { system, model } = inspected;
    const title = values.table === undefined ? inspected.title : `${inspected.title}, attention table ${values.table}`;
    const result = await measure(inspected, values, { progress, signal });
    const { examples = inspected.examples } = result;
    const where = `measured on ${model.device.description}`;
    if (values.page !== undefined)
      await writeFileSafely(values.page, [inspectPage(title, [examples, where], await sectionsOf(result))]);
    const json = { ...provenance(model.device), system, title, examples, ...result.json };
    return { json, lines: [`${title}; ${examples}`, '', ...linesOf(result), where] };
  });
}
