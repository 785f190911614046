/**
 * Gradient flow: how much gradient each loss sends to each part of a model, and why it sends none.
 *
 * A gradient that is exactly 0 in every element has a cause, which is found by experiment: the smallest change of the table, the initial
 * values and the batch under which it is not 0. Knowledge insulation cuts edges of the table. But no gradient passes a gate that begins at
 * 0 either, which looks like insulation and goes away with the first steps; and a batch without a target, or without a camera, has nothing
 * to send.
 */
import { ParameterSet } from '../../engine/index.ts';
import { blockNamed, type ModelConfiguration } from '../architecture/configuration.ts';
import type { Inputs } from '../architecture/inputs.ts';
import { Model } from '../architecture/model.ts';
import { trainingInputs } from '../architecture/training-pass.ts';
import { type GradientOf, lossGradients, type ModelPart, partsOf } from './loss-gradients.ts';
import { fillZeros, wholeBatch } from './without-zeros.ts';

/** Why a gradient is exactly 0, each cause with its mark. */
export const zeroCauses = {
  table: { mark: 'T', words: 'cut by the table', test: 'with all gradient factors at 1 it is not 0' },
  initialisation: {
    mark: 'I',
    words: 'zero because of initialisation',
    test: 'with random numbers for the zeros of gates and matrices it is not 0, as after the first training steps',
  },
  batch: { mark: 'B', words: 'nothing in this batch', test: 'on random examples without padding it is not 0' },
  frozen: {
    mark: 'F',
    words: 'frozen',
    test: 'the weights want no gradient, or only with random numbers for the zeros of frozen weights it is not 0',
  },
  'no path': {
    mark: 'N',
    words: 'no path',
    test: 'with all of this changed it is still 0; the loss reads nothing that these weights make',
  },
} as const;
export type ZeroCause = keyof typeof zeroCauses;

/** What an experiment changes: gradient factors of the table, initial values of 0, and the examples. */
const changeable = ['table', 'initialisation', 'batch'] as const;
type Changeable = (typeof changeable)[number];

export interface FlowCell {
  /** L2 norm of the gradient, of sums in float64. */
  readonly norm: number;
  /** Whether every element of the gradient is exactly 0. */
  readonly isZero: boolean;
  /** What has to go, all of it, before the gradient is not 0; null for another gradient, and where no reasons are asked for. */
  readonly causes: readonly ZeroCause[] | null;
}

export interface GradientFlow {
  readonly parts: readonly ModelPart[];
  /** By loss: a cell for each part, in their order. */
  readonly losses: Readonly<Record<string, readonly FlowCell[]>>;
}

export interface GradientFlowOptions {
  /** Finds the cause of each gradient of exactly 0, by at most eleven further passes; true by default. */
  readonly reasons?: boolean;
  /** The gradients of all losses, if they are there already. */
  readonly gradients?: Readonly<Record<string, GradientOf>>;
}

/**
 * The gradient flow of a model on the `trainingInputs` of a batch. Its values and an optimizer's state stay as they are; its gradients are
 * overwritten. It runs between two training steps; without reasons the next step may follow at once, before the result is there.
 */
export async function gradientFlow(
  model: Model,
  inputs: Inputs,
  { reasons = true, gradients: given }: GradientFlowOptions = {},
): Promise<GradientFlow> {
  const parts = partsOf(model.architecture);
  const gradients = given ?? (await lossGradients(model, inputs));
  const cells = Object.entries(gradients).map(([loss, own]): [string, FlowCell[]] => [
    loss,
    parts.map((part) => cellOf(part, own)),
  ]);
  if (reasons) await findCauses(model, inputs, parts, cells);
  return { parts, losses: Object.fromEntries(cells) };
}

function cellOf({ parameters }: ModelPart, gradientOf: GradientOf): FlowCell {
  let squares = 0;
  let isZero = true;
  for (const name of parameters)
    for (const value of gradientOf(name)) {
      squares += value * value;
      isZero &&= value === 0;
    }
  return { norm: Math.sqrt(squares), isZero, causes: parameters.length === 0 ? ['frozen'] : null };
}

/** A cell whose gradient is exactly 0 for a reason that is not known yet. */
const isOpen = ({ isZero, causes }: FlowCell) => isZero && causes === null;

/** The causes of a cell whose gradient stays 0 as long as no frozen value changes. */
const behindFrozen: readonly ZeroCause[] = ['frozen'];
const isBehindFrozen = ({ causes }: FlowCell) => causes === behindFrozen;

async function findCauses(
  { device, configuration, architecture, parameters }: Model,
  inputs: Inputs,
  parts: readonly ModelPart[],
  losses: readonly (readonly [string, FlowCell[]])[],
): Promise<void> {
  if (!losses.some(([, cells]) => cells.some(isOpen))) return;
  const open = withFactors(configuration, 1);
  using filled = new ParameterSet(device, architecture.parameters);
  await Promise.all([...parameters].map(async (own) => filled.get(own.name).write(await own.read())));
  const possible: Record<Changeable, boolean> = {
    table: JSON.stringify(open) !== JSON.stringify(configuration),
    initialisation: await fillZeros({ architecture, parameters: filled }),
    batch: true,
  };
  const experiments = subsetsOf(changeable.filter((own) => possible[own]));
  /** Gives the causes to those of the cells whose gradient is exactly 0 under the changes, or to those whose gradient is another. */
  const explain = async (
    isChosen: (cell: FlowCell) => boolean,
    changed: readonly Changeable[],
    zero: boolean,
    causes: readonly ZeroCause[],
  ) => {
    const left = losses.filter(([, cells]) => cells.some(isChosen));
    if (left.length === 0) return;
    const has = (own: Changeable) => changed.includes(own);
    const other = new Model(device, has('table') ? open : configuration, has('initialisation') ? filled : parameters);
    const batch = has('batch') ? trainingInputs(other.architecture, wholeBatch(configuration, 2, 0)) : inputs;
    const gradients = await lossGradients(
      other,
      batch,
      left.map(([loss]) => loss),
    );
    for (const [loss, cells] of left)
      cells.forEach((cell, i) => {
        if (isChosen(cell) && cellOf(parts[i], gradients[loss]).isZero === zero) cells[i] = { ...cell, causes };
      });
  };
  const all = experiments.pop()!;
  await explain(isOpen, all, true, behindFrozen);
  for (const changes of experiments) await explain(isOpen, changes, false, changes);
  for (const [, cells] of losses)
    for (const [i, cell] of cells.entries()) if (isOpen(cell)) cells[i] = { ...cell, causes: all };
  // No training step opens a frozen zero, so that others beside it are no cause of their own.
  await fillZeros({ architecture, parameters: filled }, true);
  await explain(isBehindFrozen, [...all, 'initialisation'], true, ['no path']);
  const others = all.filter((own) => own !== 'initialisation');
  for (const changes of [[], ...subsetsOf(others)])
    await explain(isBehindFrozen, [...changes, 'initialisation'], false, ['frozen', ...changes]);
}

/** All subsets but the empty one, small ones first. */
function subsetsOf<T>(all: readonly T[]): T[][] {
  const subsets = all.reduce<T[][]>((some, own) => some.concat(some.map((subset) => subset.concat(own))), [[]]);
  return subsets.slice(1).sort((a, b) => a.length - b.length);
}

/**
 * The model with one factor of the gradient on the edges that insulation is about: those that its table stops or scales, and those between
 * experts. In interleaved history, edges to earlier control steps are no part of the table and stay open.
 */
export function withFactors(configuration: ModelConfiguration, factor: number): ModelConfiguration {
  const expertOf = (name: string) => blockNamed(configuration, name).weights;
  const edges = configuration.edges.map(({ query, key, edge }) => {
    const { keyGradient, valueGradient, mask } = edge;
    const isChanged = mask !== 'none' && (keyGradient < 1 || valueGradient < 1 || expertOf(query) !== expertOf(key));
    return { query, key, edge: isChanged ? { ...edge, keyGradient: factor, valueGradient: factor } : edge };
  });
  return { ...configuration, edges };
}
