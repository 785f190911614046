/** One forward pass over the whole sequence, with the losses of all objectives. */
import type { Tensor } from '../../engine/index.ts';
import { add, embedding, multiply, reshape, scale, sliceTokens } from '../../kernels/index.ts';
import type { FirstRows } from './blocks.ts';
import { blockNamed } from './configuration.ts';
import { expectInputs, floats, type Inputs, type InputTensors, inputNamed, type TrainingBatch } from './inputs.ts';
import { runSteps } from './interleave.ts';
import type { ChosenRows, MixtureOptions, MixtureResult, PerExpert } from './mixture.ts';
import type { Architecture, Model } from './model.ts';
import type { Begun, LossResult, RowsReader } from './objectives/index.ts';
import { type RunningBlock, rowsOf, sequenceInputs, trainingBlocks } from './sequence.ts';

export interface TrainingPass {
  /** The sum of the losses times their weights; of a part of a batch, each also times its share in the loss of the whole. */
  readonly loss: Tensor;
  /** The loss of each objective by its name, and tensors on the way to it. */
  readonly objectives: Readonly<Record<string, LossResult>>;
  readonly hidden: PerExpert<Tensor>;
  readonly residuals: readonly PerExpert<Tensor>[];
  readonly conditions: PerExpert<Tensor>;
}

interface PassOptions extends MixtureOptions {
  /** Final hidden states and logits of all rows are computed, not only of those with a loss. */
  readonly allRows?: boolean;
  /** Replaces the first rows, which a measurement perturbs, or takes the gradient of. */
  readonly firstRows?: (rows: FirstRows) => FirstRows;
}

/**
 * All inputs of `trainingPass`.
 *
 * @throws InputError if the batch lacks an input, or has one that does not fit the model
 */
export function trainingInputs({ configuration, blockInputs, objectives }: Architecture, batch: TrainingBatch): Inputs {
  const inputs: Inputs = Object.assign(
    {},
    blockInputs.inputs(batch, configuration.blocks, { copies: true }),
    sequenceInputs(configuration, batch, trainingBlocks(configuration)),
    ...objectives.map((objective) => objective.inputs(batch)),
  );
  expectInputs(inputs);
  return inputs;
}

/** From `trainingInputs`; must run inside a step. */
export function trainingPass(
  model: Model,
  inputs: InputTensors,
  { allRows = false, firstRows = (rows) => rows, ...options }: PassOptions = {},
): TrainingPass {
  const { configuration, architecture, parameters: values, objectives } = model;
  const begun = objectives.map((objective) => objective.begin?.(values, inputs));
  const merged = <K extends keyof Begun>(key: K): Begun[K] => Object.assign({}, ...begun.map((own) => own?.[key]));
  const conditions = merged('conditions');
  const first = firstRows(architecture.blockInputs.run(values, inputs, configuration.blocks, merged('rows')));
  const blocks = trainingBlocks(configuration);
  const result = runSteps(architecture, values, {
    ...{ inputs: first.rows, blocks, conditions, ...options },
    validity: inputNamed(inputs, 'validity'),
    rotaryTable: inputNamed(inputs, 'rotaryTable'),
    lossBlocks: objectives.flatMap((objective) => objective.blocks),
    finalRows: allRows ? undefined : finalRows(model, inputs),
  });
  const pass = {
    ...{ values, inputs, allRows },
    rows: rowsReader(blocks, result),
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
  const entries = Object.entries(experts).flatMap(([name, { adaptive }]): [string, ChosenRows][] => {
    const own = blocks.filter(({ weights }) => weights === name).map((block) => block.name);
    const readers = objectives.filter((objective) => objective.blocks.some((block) => own.includes(block)));
    if (readers.length === 0) return [];
    // The condition of an adaptive norm belongs to a sample, and the chosen rows of all samples become one.
    const chosen = readers.length === 1 && !adaptive ? readers[0].finalRows?.(inputs) : undefined;
    return [[name, chosen ?? 'all']];
  });
  return Object.fromEntries(entries);
}

/** Reads rows of the hidden states, or of the residual streams, of a pass over these blocks. */
export function rowsReader(blocks: readonly RunningBlock[], { hidden, residuals }: MixtureResult): RowsReader {
  return (name, { layer, at } = {}) => {
    const { weights } = blockNamed({ blocks }, name);
    const stream = layer === undefined ? hidden[weights] : residuals[layer][weights];
    const { start, length, of, parts } = rowsOf(blocks, name);
    const [batch, , width] = stream.shape;
    if (at) return embedding(at, reshape(stream, [batch * of, width]));
    if (length * parts === of) return stream;
    return sliceTokens(reshape(stream, [batch * parts, of / parts, width]), start, length);
  };
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
