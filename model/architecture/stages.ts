/** The two stages of a pass: the blocks of encoders run first, and then all others, which read encoders and images as memory. */
import type { ParameterSet, Tensor } from '../../engine/index.ts';
import { cast, embedding, reshape, sliceTokens } from '../../kernels/index.ts';
import type { FirstRows } from './blocks.ts';
import { blockNamed, isMemory, type ModelConfiguration, stepsInSequence } from './configuration.ts';
import type { MemoryContents } from './cross-attention.ts';
import { type Inputs, type InputTensors, inputNamed, type ObservationBatch } from './inputs.ts';
import { memoryContents, memoryOfPass, type Reader, readerInputs, readersOf } from './memory.ts';
import type { Cache, MixturePass, MixtureResult, PerExpert } from './mixture.ts';
import type { Architecture, Model } from './model.ts';
import type { RowsReader } from './objectives/index.ts';
import { mapped } from './records.ts';
import { inSequence, type RunningBlock, rowsOf, sequenceInputs } from './sequence.ts';

/** The prefix of the names of the encoders' inputs. */
const ENCODER = 'encoder/';

export interface Stages {
  /** Blocks of encoders, which run first, and of images that run through no expert. */
  readonly memory: readonly RunningBlock[];
  readonly running: readonly RunningBlock[];
  /** The experts of `running` that read memory. */
  readonly readers: readonly Reader[];
}

/**
 * The stages of a pass through `blocks`, which is one part of a pass through `all`. If `all` are blocks of encoders, nothing reads them as
 * memory, and they run in the second stage.
 */
export function stagesOf(
  configuration: ModelConfiguration,
  blocks: readonly RunningBlock[],
  all: readonly RunningBlock[] = blocks,
): Stages {
  const alone = all.every((block) => isMemory(configuration, block));
  const memory = alone ? [] : blocks.filter((block) => isMemory(configuration, block));
  const running = blocks.filter((block) => !memory.includes(block));
  return { memory, running, readers: readersOf(configuration, running, memory) };
}

const throughEncoders = ({ memory }: Stages) => memory.filter((block) => !block.memory);

/** The rows [batch, rows, width] of each block of memory. */
export type MemoryByBlock = Readonly<Record<string, Tensor>>;

interface StepsPass extends Omit<MixturePass, 'queries' | 'table' | 'lossBlocks' | 'liveBlocks'> {
  /** The blocks of a control step that run, in order, one entry for each copy. */
  readonly blocks: readonly RunningBlock[];
  /** The blocks with a loss on their final hidden states. */
  readonly lossBlocks?: readonly string[];
}

interface StagesPass
  extends Pick<StepsPass, 'conditions' | 'recompute' | 'onAttention' | 'finalRows' | 'lossBlocks' | 'stopped'> {
  /** The cache of the second stage; encoders need none. */
  readonly cache?: Cache;
  /** All readers of the memory, in this pass or in later ones; by default those of the pass. */
  readonly allReaders?: readonly Reader[];
  /** Replaces the rows of memory before they are read. */
  readonly memoryRows?: (rows: MemoryByBlock) => MemoryByBlock;
}

/** Padding masks and rotary tables of the stages. */
export function stageInputs(configuration: ModelConfiguration, observation: ObservationBatch, stages: Stages): Inputs {
  return {
    ...sequenceInputs(configuration, observation, stages.running),
    ...sequenceInputs(configuration, observation, throughEncoders(stages), [], ENCODER),
    ...readerInputs(configuration, observation, stages.readers),
  };
}

/** Runs both stages, from `stageInputs`. Also gives the keys and values of the memory, by the expert that reads them. */
export function runStages(
  { architecture, parameters }: Model,
  inputs: InputTensors,
  first: Pick<FirstRows, 'rows' | 'memory'>,
  stages: Stages,
  { cache, allReaders = stages.readers, memoryRows = (rows) => rows, ...pass }: StagesPass,
): { result: MixtureResult; contents: PerExpert<MemoryContents> } {
  const run = (blocks: readonly RunningBlock[], at: string, more: Pick<StepsPass, 'cache' | 'memory'>) => {
    if (blocks.length === 0) return [];
    const own = Object.entries(first.rows).filter(([name]) => blocks.some(({ weights }) => weights === name));
    const result = runSteps(architecture, parameters, {
      ...{ ...pass, ...more, blocks, inputs: Object.fromEntries(own) },
      validity: inputNamed(inputs, `${at}validity`),
      rotaryTable: inputNamed(inputs, `${at}rotaryTable`),
    });
    return [result];
  };
  const encoding = throughEncoders(stages);
  const encoded = run(encoding, ENCODER, {});
  const rowsOfEncoder = rowsReader(encoding, joined(encoded));
  const names = allReaders.flatMap(({ memory }) => memory.map(({ name }) => name));
  const rows = memoryRows(
    Object.fromEntries([...new Set(names)].map((name) => [name, first.memory[name] ?? rowsOfEncoder(name)])),
  );
  const contents = memoryContents(architecture, parameters, allReaders, rows);
  const memory = memoryOfPass(architecture, inputs, stages.readers, contents);
  const own = run(stages.running, '', { cache, memory });
  return { result: joined([...encoded, ...own]), contents };
}

/**
 * Runs the mixture. The streams, given and returned, are those of control steps: [control steps, rows of one, width]. The padding mask
 * and the rotary table are those of sequences, as `sequenceInputs` makes them.
 */
function runSteps(architecture: Architecture, values: ParameterSet, pass: StepsPass): MixtureResult {
  const steps = stepsInSequence(architecture.configuration);
  const blocks = inSequence(architecture.configuration, pass.blocks);
  const together = (x: Tensor) => {
    const [count, rows, ...others] = x.shape;
    return steps === 1 ? x : reshape(x, [count / steps, steps * rows, ...others]);
  };
  const { lossBlocks, stopped = [] } = pass;
  const live = blocks.filter(({ weights }) => !stopped.includes(weights));
  const result = architecture.mixture.run(values, {
    ...pass,
    inputs: mapped(pass.inputs, together),
    blocks,
    queries: blocks.map(({ tableName }) => tableName),
    table: architecture.table(pass.blocks, stopped),
    lossBlocks: lossBlocks && live.filter(({ name }) => lossBlocks.includes(name)).map((own) => own.tableName),
    liveBlocks: stopped.length > 0 ? live.map((own) => own.tableName) : undefined,
  });
  if (steps === 1) return result;
  // Chosen rows are numbered through the batch, and stay as they are.
  const apart = (x: Tensor, expert: string) =>
    x.size === pass.inputs[expert].size ? reshape(x, pass.inputs[expert].shape) : x;
  return {
    hidden: mapped(result.hidden, apart),
    residuals: result.residuals.map((streams) => mapped(streams, apart)),
  };
}

/** The results of passes through different experts as one. */
function joined(results: readonly MixtureResult[]): MixtureResult {
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
    const stream = layer === undefined ? hidden[weights] : cast(residuals[layer][weights], 'f32');
    const { start, length, of, parts } = rowsOf(blocks, name);
    const [batch, , width] = stream.shape;
    if (at) return embedding(at, reshape(stream, [batch * of, width]));
    if (length * parts === of) return stream;
    return sliceTokens(reshape(stream, [batch * parts, of / parts, width]), start, length);
  };
}
