/** One forward pass over the whole sequence, with the losses of all objectives. */
import type { Tensor } from '../../engine/index.ts';
import { add, embedding, multiply, reshape, scale, sliceTokens } from '../../kernels/index.ts';
import type { FirstRows } from './blocks.ts';
import { blockNamed, isMemory, type ModelConfiguration } from './configuration.ts';
import { expectInputs, floats, type Inputs, type InputTensors, inputNamed, type TrainingBatch } from './inputs.ts';
import { memoryContents, memoryOfPass, type Reader, readerInputs, readersOf } from './memory.ts';
import type { ChosenRows, MixtureOptions, MixturePass, MixtureResult, PerExpert } from './mixture.ts';
import type { Architecture, Model } from './model.ts';
import type { Begun, LossResult, RowsReader } from './objectives/index.ts';
import { type RunningBlock, rowsOf, sequenceInputs, trainingBlocks } from './sequence.ts';

/** Begins the names of the inputs of encoders. */
export const ENCODER = 'encoder/';

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
}

/** The blocks of a training pass: those of encoders, which run first, the others, and the experts of these that read memory. */
function partsOf(configuration: ModelConfiguration) {
  const blocks = trainingBlocks(configuration);
  const encoding = blocks.filter((block) => isMemory(configuration, block));
  const running = blocks.filter((block) => !encoding.includes(block));
  const memory = configuration.blocks.filter((block) => isMemory(configuration, block));
  return { blocks, encoding, running, readers: readersOf(configuration, running, memory) };
}

/**
 * All inputs of `trainingPass`.
 *
 * @throws InputError if the batch lacks an input, or has one that does not fit the model
 */
export function trainingInputs({ configuration, blockInputs, objectives }: Architecture, batch: TrainingBatch): Inputs {
  const { encoding, running, readers } = partsOf(configuration);
  const inputs: Inputs = Object.assign(
    {},
    blockInputs.inputs(batch, configuration.blocks, { copies: true }),
    sequenceInputs(configuration, batch, running),
    sequenceInputs(configuration, batch, encoding, [], ENCODER),
    readerInputs(configuration, batch, readers),
    ...objectives.map((objective) => objective.inputs(batch)),
  );
  expectInputs(inputs);
  return inputs;
}

/** From `trainingInputs`; must run inside a step. */
export function trainingPass(
  model: Model,
  inputs: InputTensors,
  { allRows = false, ...options }: PassOptions = {},
): TrainingPass {
  const { configuration, architecture, parameters: values, objectives } = model;
  const begun = objectives.map((objective) => objective.begin?.(values, inputs));
  const merged = <K extends keyof Begun>(key: K): Begun[K] => Object.assign({}, ...begun.map((own) => own?.[key]));
  const conditions = merged('conditions');
  const first = architecture.blockInputs.run(values, inputs, configuration.blocks, merged('rows'));
  const { blocks, encoding, running, readers } = partsOf(configuration);
  const withLoss = new Set([
    ...objectives.flatMap((objective) => objective.blocks),
    ...readers.flatMap(({ memory }) => memory.map(({ name }) => name)),
  ]);
  const run = (blocks: readonly RunningBlock[], at = '', memory?: MixturePass['memory']) =>
    architecture.mixture.run(values, {
      ...passOf(architecture, inputs, first, blocks, at),
      ...{ memory, conditions, ...options },
      lossBlocks: blocks.flatMap(({ name, tableName }) => (withLoss.has(name) ? [tableName] : [])),
      finalRows: allRows ? undefined : finalRows(model, inputs),
    });
  const { encoded, contents } = encode(model, first, encoding, readers, (own) => run(own, ENCODER));
  const memory = memoryOfPass(architecture, inputs, readers, contents);
  const result = joined([...encoded, run(running, '', memory)]);
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

/** The part of a pass that its blocks decide; the names of its inputs begin with `at`. */
export function passOf(
  architecture: Architecture,
  inputs: InputTensors,
  { rows }: Pick<FirstRows, 'rows'>,
  blocks: readonly RunningBlock[],
  at = '',
): MixturePass {
  const own = Object.entries(rows).filter(([name]) => blocks.some(({ weights }) => weights === name));
  return {
    ...{ inputs: Object.fromEntries(own), blocks, queries: blocks.map(({ tableName }) => tableName) },
    table: architecture.table(blocks),
    validity: inputNamed(inputs, `${at}validity`),
    rotaryTable: inputNamed(inputs, `${at}rotaryTable`),
  };
}

/** Runs the blocks of encoders, if there are any, and makes keys and values of what the experts behind them read. */
export function encode(
  { architecture, parameters }: Model,
  { memory }: Pick<FirstRows, 'memory'>,
  encoding: readonly RunningBlock[],
  readers: readonly Reader[],
  run: (blocks: readonly RunningBlock[]) => MixtureResult,
) {
  const encoded = encoding.length > 0 ? [run(encoding)] : [];
  const read = rowsReader(encoding, joined(encoded));
  return {
    encoded,
    contents: memoryContents(architecture, parameters, readers, (block) => memory[block] ?? read(block)),
  };
}

/** The results of passes through different experts as one. */
export function joined(results: readonly MixtureResult[]): MixtureResult {
  const merged = (parts: readonly PerExpert<Tensor>[]): PerExpert<Tensor> => Object.assign({}, ...parts);
  const [{ residuals }] = results.length > 0 ? results : [{ residuals: [] }];
  return {
    hidden: merged(results.map(({ hidden }) => hidden)),
    residuals: residuals.map((_, layer) => merged(results.map((own) => own.residuals[layer]))),
  };
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
