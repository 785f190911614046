/** `insula systems`: every system by family, in a line or in full; of systems by name their tables, parameters and cost. */
import { aligned, digits } from '../bench/measure/table.ts';
import { InputError, openDevice, planningDevice } from '../engine/index.ts';
import { MeasuredStep, measuredConfiguration, measuredSystem, type StepSizes } from '../model/inspect/measured-step.ts';
import { differencesFromParent, historyWords, systemTables, type TableOf } from '../model/inspect/system-tables.ts';
import { families, type System, settingsOf, systems } from '../model/systems/index.ts';
import { presetNamed } from '../model/training/presets.ts';
import { command } from './command.ts';
import { flag, hanging, terminalWidth, wrapped } from './options.ts';
import { expectUsedSizes, stepSizeOptions } from './step-options.ts';

export const systemsCommand = command({
  options: { ...stepSizeOptions, long: flag('every system with its source, differences, losses and tables') },
  names: 'NAME ... of systems; without one all are listed, a line each',
  async run({ long, ...sizes }, { names }) {
    const [size] = Object.keys(sizes);
    if (names.length > 0) {
      if (long)
        throw new InputError('systems: --long changes nothing with the name of a system, which is shown in full');
      const described: Description[] = [];
      for (const name of names) described.push(await descriptionOf(name, sizes));
      return { json: { systems: described as Summary[] }, lines: described.flatMap(descriptionLines) };
    }
    if (size !== undefined) throw new InputError(`systems: --${size} changes nothing without the name of a system`);
    const all = systems.map((system) => summaryOf(system, {}));
    return { json: { systems: all }, lines: long ? all.flatMap(summaryLines) : overviewLines(terminalWidth()) };
  },
});

type Summary = ReturnType<typeof summaryOf>;

function summaryOf(system: System, sizes: StepSizes) {
  const { name, parent, description, source } = system;
  return {
    ...{ name, parent, description, source },
    differences: differencesFromParent(system),
    settings: settingsOf(system),
    ...systemTables(measuredConfiguration(name, sizes)),
  };
}

/** A system in a line or two, under the title of its family. */
function overviewLines(width: number): string[] {
  const column = 5 + Math.max(...systems.map(({ name }) => name.length));
  const listed = families.filter((family) => family.systems.length > 0);
  return [
    ...listed.flatMap(({ title, papers, systems: own }) => [
      `${title} (${papers})`,
      ...own.flatMap(({ name, description }) => hanging(`  ${name}`, description, column, width)),
      '',
    ]),
    'insula systems NAME shows who attends to whom, which loss reaches what, and the cost; insula systems --long lists all in full',
  ];
}

const LINE = 116;
const indented = (texts: readonly string[]) => texts.flatMap((text) => wrapped(`  ${text}`, LINE));

/** A system in words, and its differences from its parent. */
function headLines({ name, parent, description, source, differences, settings }: Summary): string[] {
  const own = differences.map(({ words }) => words).join('; ');
  const from = parent === null ? [] : [`differs from ${parent} by: ${own}`];
  return [name, ...indented([description, `source: ${source}`, ...from, settings.join('; ')])];
}

/** A system in a few lines, its tables in words. */
function summaryLines(own: Summary): string[] {
  const rows = (table: TableOf<string>, without: string) =>
    Object.entries(table).map(([row, cells]) => {
      const columns = Object.keys(cells).filter((column) => cells[column] !== without);
      const values = [...new Set(columns.map((column) => cells[column]))];
      const of = (value: string) => columns.filter((column) => cells[column] === value).join(', ');
      return `${row} -> ${columns.length === 0 ? 'nothing' : ''}${values.map((value) => `${of(value)}: ${value}`).join(', ')}`;
    });
  const losses = own.objectives.map(({ name, weight }) => `${name} (weight ${weight})`);
  return [
    ...headLines(own),
    ...indented([
      `losses: ${losses.join(', ')}`,
      `attention: ${rows(own.attention, '-').join('; ')}`,
      `gradients: ${rows(own.gradients, 'not read').join('; ')}`,
    ]),
    '',
  ];
}

type Description = Awaited<ReturnType<typeof descriptionOf>>;

/** The tables and the cost of a system. Dawn's null backend captures the step, so that no adapter is needed, and nothing is allocated. */
async function descriptionOf(name: string, sizes: StepSizes) {
  const preset = presetNamed(sizes.preset ?? 'tiny');
  const system = measuredSystem(name, sizes.depth ?? preset.depth);
  expectUsedSizes('systems', [name], sizes);
  const batch = sizes.batch ?? preset.batch;
  using device = await openDevice({ adapter: 'null' });
  using planning = planningDevice(device);
  using measured = new MeasuredStep(planning, name, measuredConfiguration(name, sizes), batch, sizes);
  await measured.run();
  const { dispatches, arenaBytes } = measured.step.stats();
  return {
    ...summaryOf(system, sizes),
    preset: preset.name,
    step: {
      batch,
      gigaflop: measured.step.list().reduce((sum, { flops = 0 }) => sum + flops, 0) / 1e9,
      dispatches,
      activationBytes: arenaBytes.reduce((sum, bytes) => sum + bytes, 0),
    },
  };
}

function descriptionLines(own: Description): string[] {
  const { blocks, history, attention, gradients, objectives, parameters, step, preset } = own;
  const ofBlock = ({ name, input, weights, length, after }: (typeof blocks)[number]) => {
    return [name, input, weights, String(length), after.join(', ')];
  };
  const total = Object.values(parameters).reduce((sum, size) => sum + size, 0);
  const sizes = Object.entries({ ...parameters, total }).map(([group, size]) => [group, String(size)]);
  return [
    ...headLines(own),
    '',
    `blocks, preset ${preset}: what their rows are made from, and the blocks that their positions come after`,
    ...aligned([['block', 'input', 'weights', 'rows', 'after'], ...blocks.map(ofBlock)], 5),
    '',
    'attention: rows are queries, columns keys; insulated: full, behind a stop-gradient; x 0.1: a tenth of the gradient passes',
    ...tableLines(attention),
    ...(blocks.some((block) => Object.values(attention[block.name]).some((own) => own.startsWith('cross')))
      ? ['  cross: read by cross-attention; the rows of an encoder run first, those of memory through no expert']
      : []),
    ...[historyWords(history) ?? []].flat().map((line) => `  ${line}`),
    '',
    'gradients: which loss reaches which group of parameters',
    ...tableLines(gradients),
    '',
    ...aligned(
      [
        ['loss', 'weight', 'acts', 'meaning'],
        ...objectives.map(({ name, weight, acts, meaning }) => [name, String(weight), acts ?? '-', meaning]),
      ],
      4,
    ),
    '',
    ...aligned([['group', 'parameters'], ...sizes], 1),
    '',
    `a training step of ${step.batch} examples: ${digits(step.gigaflop)} GFLOP in ${step.dispatches} dispatches, ${digits(step.activationBytes / 1e6)} MB of activations`,
    '',
  ];
}

function tableLines(table: TableOf<string>): string[] {
  const columns = Object.keys(Object.values(table)[0]);
  const rows = Object.entries(table).map(([row, cells]) => [row, ...columns.map((column) => cells[column])]);
  return aligned([['', ...columns], ...rows], columns.length + 1);
}
