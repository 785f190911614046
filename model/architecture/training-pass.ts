/** One forward pass over the whole sequence, with the losses of all objectives. */
import type { Tensor } from '../../engine/index.ts';
import { add, multiply, scale } from '../../kernels/index.ts';
import type { ModelConfiguration } from './configuration.ts';
import { expectInputs, floats, type Inputs, type InputTensors, type TrainingBatch } from './inputs.ts';
import type { ChosenRows, MixtureOptions, PerExpert } from './mixture.ts';
import type { Architecture, Model } from './model.ts';
import type { Begun, LossResult } from './objectives/index.ts';
import { imagesAsMemory, trainingBlocks } from './sequence.ts';
import { type MemoryByBlock, rowsReader, runStages, type Stages, stageInputs, stagesOf } from './stages.ts';

export interface TrainingPass {
  /** The sum of the losses times their weights; of a part of a batch, each also times its share in the loss of the whole. */
  readonly loss: Tensor;
  /** The loss of each objective by its name, and tensors on the way to it. */
  readonly objectives: Readonly<Record<string, LossResult>>;
  readonly hidden: PerExpert<Tensor>;
  readonly residuals: readonly PerExpert<Tensor>[];
  readonly conditions: PerExpert<Tensor>;
}

export interface PassOptions extends MixtureOptions {
  /** Final hidden states and logits of all rows are computed, not only of those with a loss. */
  readonly allRows?: boolean;
  /** Replaces the first rows of the experts, [batch, rows, width] each: what a measurement perturbs, or takes the gradient of. */
  readonly firstRows?: (rows: PerExpert<Tensor>) => PerExpert<Tensor>;
  /** Replaces the rows of memory in the same way. */
  readonly memoryRows?: (rows: MemoryByBlock) => MemoryByBlock;
}

const trainingStages = (configuration: ModelConfiguration): Stages =>
  stagesOf(configuration, [...imagesAsMemory(configuration), ...trainingBlocks(configuration)]);

/**
 * All inputs of `trainingPass`.
 *
 * @throws InputError if the batch lacks an input, or has one that does not fit the model
 */
export function trainingInputs({ configuration, blockInputs, objectives }: Architecture, batch: TrainingBatch): Inputs {
  const inputs: Inputs = Object.assign(
    {},
    blockInputs.inputs(batch, configuration.blocks, { copies: true }),
    stageInputs(configuration, batch, trainingStages(configuration)),
    ...objectives.map((objective) => objective.inputs(batch)),
  );
  expectInputs(inputs);
  return inputs;
}

/** From `trainingInputs`; must run inside a step. */
export function trainingPass(
  model: Model,
  inputs: InputTensors,
  { allRows = false, firstRows, ...options }: PassOptions = {},
): TrainingPass {
  const { configuration, architecture, parameters: values, objectives } = model;
  const begun = objectives.map((objective) => objective.begin?.(values, inputs));
  const merged = <K extends keyof Begun>(key: K): Begun[K] => Object.assign({}, ...begun.map((own) => own?.[key]));
  const conditions = merged('conditions');
  const first = architecture.blockInputs.run(values, inputs, configuration.blocks, merged('rows'));
  const stages = trainingStages(configuration);
  const read = stages.readers.flatMap(({ memory }) => memory.map(({ name }) => name));
  // Rows of a measurement may want a gradient whatever is frozen.
  const isMeasured = firstRows !== undefined || options.memoryRows !== undefined;
  const rows = firstRows ? firstRows(first.rows) : first.rows;
  const { result } = runStages(model, inputs, { ...first, rows }, stages, {
    ...{ conditions, ...options, stopped: isMeasured ? [] : architecture.stopped },
    lossBlocks: [...objectives.flatMap((objective) => objective.blocks), ...read],
    finalRows: allRows ? undefined : finalRows(model, inputs),
  });
  const pass = {
    ...{ values, inputs, allRows },
    rows: rowsReader(trainingBlocks(configuration), result),
    expert: (name: string) => result.hidden[name],
    tower: (name: string) => first.features[name],
    tokenHead: architecture.tokenHead(values),
  };
  const results = objectives.map((objective, i) => objective.loss(pass, begun[i]?.kept ?? {}));
  const terms = objectives.map(({ name, weight }, i) => {
    const weighted = weight === 1 ? results[i].loss : scale(results[i].loss, weight);
    // A part of a batch brings its shares in the losses of the whole.
    const share = inputs[shareOf(name)];
    return share ? multiply(weighted, share) : weighted;
  });
  return {
    loss: terms.reduce((sum, term) => add(sum, term)),
    objectives: Object.fromEntries(objectives.map(({ name }, i) => [name, results[i]])),
    ...result,
    conditions,
  };
}

/** By expert: the rows that objectives read after the last layer. */
function finalRows({ configuration, objectives }: Model, inputs: InputTensors): PerExpert<ChosenRows> {
  const { blocks, experts } = configuration;
  const entries = Object.entries(experts).flatMap(([name, { adaptive, encoder }]): [string, ChosenRows][] => {
    if (encoder) return [[name, 'all']];
    const own = blocks.filter(({ weights }) => weights === name).map((block) => block.name);
    const readers = objectives.filter((objective) => objective.blocks.some((block) => own.includes(block)));
    if (readers.length === 0) return [];
    // The condition of an adaptive norm belongs to a sample, and the chosen rows of all samples become one.
    const chosen = readers.length === 1 && !adaptive ? readers[0].finalRows?.(inputs) : undefined;
    return [[name, chosen ?? 'all']];
  });
  return Object.fromEntries(entries);
}

const shareOf = (objective: string) => `share/${objective}`;

/** By objective: the share of one part of a batch in the loss of the whole. */
export type LossShares = Readonly<Record<string, number>>;

/**
 * The shares of the parts of a batch, whose gradients are added up one after the other. Each loss keeps its definition over the whole
 * batch: it is a mean over examples or elements, so a part counts by these.
 */
export function lossShares({ objectives }: Pick<Model, 'objectives'>, parts: readonly Inputs[]): LossShares[] {
  const counts = parts.map((part) => objectives.map((objective) => objective.count(part)));
  const totals = objectives.map((_, i) => counts.reduce((sum, own) => sum + own[i], 0));
  return counts.map((own) =>
    Object.fromEntries(objectives.map(({ name }, i) => [name, totals[i] === 0 ? 0 : own[i] / totals[i]])),
  );
}

/** A part of a batch with its shares, which `trainingPass` multiplies its losses by. */
export function withShares(inputs: Inputs, shares: LossShares): Inputs {
  const scalars = Object.entries(shares).map(([name, share]) => [shareOf(name), floats(Float32Array.of(share), [])]);
  return { ...inputs, ...Object.fromEntries(scalars) };
}
