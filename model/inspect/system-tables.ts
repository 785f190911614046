/** A system as tables, from its settings alone: who attends to whom, which loss reaches which parameters, and how many there are. */
import { counted } from '../../engine/files/errors.ts';
import { elementCount } from '../../engine/index.ts';
import { blockNamed, type HistorySettings, isMemory, type ModelConfiguration } from '../architecture/configuration.ts';
import { Architecture } from '../architecture/model.ts';
import { groupsNotReached } from '../architecture/reach.ts';
import { groupsOf } from '../architecture/rules.ts';
import { type Difference, differencesOf, edgeText, type System, systemNamed } from '../systems/index.ts';

/**
 * Whether a loss gives the parameters of a group a gradient, or the reason why not. 'yes' follows from the attention table alone: a model
 * with fewer layers than there are edges on the way from the loss to the group gives none.
 */
export type GradientCell = 'yes' | 'cut by the table' | 'not read' | 'frozen';

/** A value for each pair of names. */
export type TableOf<T> = Readonly<Record<string, Readonly<Record<string, T>>>>;

export interface SystemTables {
  readonly blocks: ModelConfiguration['blocks'];
  /** The window of control steps; null without one. In an interleaved one, a block also sees all of the control steps before its own. */
  readonly history: HistorySettings | null;
  /** By query block and key block, within a control step: `edgeText`, with 'cross' before it if the keys are read by cross-attention. */
  readonly attention: TableOf<string>;
  /** By objective and group of parameters. */
  readonly gradients: TableOf<GradientCell>;
  readonly objectives: readonly {
    readonly name: string;
    readonly weight: number;
    readonly meaning: string;
    /** It acts by a chunk of actions, or by tokens; null if it does not act. */
    readonly acts: 'chunk' | 'tokens' | null;
  }[];
  /** Numbers of parameters by group. */
  readonly parameters: Readonly<Record<string, number>>;
}

/** The control steps that a system sees together, in words; undefined without a history. */
export function historyWords(history: HistorySettings | null | undefined): string | undefined {
  if (!history) return undefined;
  const { window, interleaved } = history;
  return interleaved
    ? `A window of ${counted(window, 'control step')} is one sequence: every block also sees all of the control steps before its own.`
    : `The transformer sees each of a window of ${counted(window, 'control step')} by itself; the head reads the window.`;
}

/** The differences of a system from its parent; empty if it has none. */
export function differencesFromParent(system: System): Difference[] {
  return system.parent === null ? [] : differencesOf(system, systemNamed(system.parent));
}

/** @throws InputError if a model of this configuration cannot run */
export function systemTables(configuration: ModelConfiguration): SystemTables {
  const architecture = new Architecture(configuration);
  const { parameters, objectives } = architecture;
  const { blocks, edges, history = null } = configuration;
  const cell = (query: string, key: string) => {
    const own = edges.find((edge) => edge.query === query && edge.key === key);
    const isRead = [key, query].map((name) => isMemory(configuration, blockNamed(configuration, name)));
    return `${own && isRead[0] && !isRead[1] ? 'cross ' : ''}${own ? edgeText(own.edge) : '-'}`;
  };
  const names = blocks.map(({ name }) => name);
  const groups = groupsOf(parameters);
  const sizeOf = (group: string) =>
    parameters.reduce((sum, own) => sum + (own.group === group ? elementCount(own.shape) : 0), 0);
  return {
    ...{ blocks, history },
    attention: tableOf(names, names, cell),
    gradients: gradientTable(architecture),
    objectives: objectives.map(({ name, weight, meaning, acts = null }) => ({ name, weight, meaning, acts })),
    parameters: Object.fromEntries(groups.map((group) => [group, sizeOf(group)])),
  };
}

function gradientTable({ configuration, parameters, objectives }: Architecture): TableOf<GradientCell> {
  const groups = groupsOf(parameters);
  const cell = (objective: string, group: string): GradientCell => {
    if (parameters.every((own) => own.group !== group || own.frozen)) return 'frozen';
    const { blocks, reads = blocks } = objectives.find(({ name }) => name === objective)!;
    const missing = groupsNotReached(configuration, reads).find((own) => own.group === group);
    if (!missing) return 'yes';
    return missing.reason === 'cut by the table' ? missing.reason : 'not read';
  };
  return tableOf(
    objectives.map(({ name }) => name),
    groups,
    cell,
  );
}

function tableOf<T>(rows: readonly string[], columns: readonly string[], cell: (row: string, column: string) => T) {
  return Object.fromEntries(
    rows.map((row) => [row, Object.fromEntries(columns.map((column) => [column, cell(row, column)]))]),
  );
}
