/**
 * An objective: a loss with all that it needs. Whoever trains, measures, reports or acts goes through the objectives of a model and
 * knows none by name.
 */
import type { Device, ParameterSet, Random, Tensor } from '../../../engine/index.ts';
import type { AllowedIds, RowsOfBlock } from '../../../kernels/index.ts';
import type { BlockSettings } from '../configuration.ts';
import type { Ids, Inputs, InputTensors, ObservationBatch, TrainingBatch } from '../inputs.ts';
import type { Layer } from '../layers.ts';
import type { PerExpert } from '../mixture.ts';
import type { PreviousChunks } from './real-time-chunking.ts';

/** First rows that an objective gives to blocks, and the conditions of adaptive norms. */
export interface Begun {
  readonly rows: Readonly<Record<string, Tensor>>;
  readonly conditions: PerExpert<Tensor>;
}

/**
 * The rows of a block, copies included [batch, rows, width], or [batch * copies, rows, width] where other blocks are copied with it:
 * final hidden states, or the residual stream that enters `layer`; with `at` [batch, rows], those rows among all of its expert, numbered
 * through the batch.
 */
export type RowsReader = (block: string, options?: { layer?: number; at?: Tensor }) => Tensor;

/** The part of a forward pass that objectives see. */
export interface Pass {
  readonly values: ParameterSet;
  readonly inputs: InputTensors;
  readonly rows: RowsReader;
  /** Final hidden states of all rows of an expert, or of those that `Objective.finalRows` chose. */
  expert(name: string): Tensor;
  /** Features of a vision tower [batch * cameras, patches, width]. */
  tower(name: string): Tensor;
  /** The matrix [vocabulary, width]; its products with the backbone's hidden states are logits. */
  readonly tokenHead: Tensor;
  /** Final hidden states and logits of all rows are computed, not only of those with a loss. */
  readonly allRows: boolean;
}

/** The loss [], and tensors on the way to it. */
export type LossResult = Readonly<Record<string, Tensor>> & { readonly loss: Tensor };

/** Predictors that ignore the observation, fitted to the training data. */
export interface Reference {
  /** Mean normalised training chunk: the constant chunk of least mean squared error. */
  readonly meanChunk: Float32Array;
  /** Log-probability of each id by its frequency in the training data; null without action tokens. */
  readonly unigram: Float64Array | null;
}

/** A loss, and the number of examples or elements that it is the mean of. */
export interface Counted {
  readonly loss: number;
  readonly count: number;
}

/** Called after each part of a policy call with its name and duration; every part then waits for the adapter. */
export type OnLatency = (part: string, milliseconds: number) => void;

/** Passes over one batch of observations; keys and values of the rows that ran before are in a cache. */
export interface Session extends Disposable {
  /** Runs the blocks that do not change; they stay in the cache. `work` gets the rows of a block among their hidden states. */
  prefix<T>(work: (rows: RowsReader, values: ParameterSet) => T): Promise<T>;
  /** Runs blocks, or rows of one, behind the prefix. `start` gives them their first rows. */
  suffix<T>(part: string, inputs: Inputs, work: (pass: SuffixPass) => T): Promise<T>;
  /** Runs no blocks: the work of a head on rows that ran before. */
  head<T>(part: string, inputs: Inputs, work: (values: ParameterSet, inputs: InputTensors) => T): Promise<T>;
}

export interface SuffixPass {
  readonly values: ParameterSet;
  readonly inputs: InputTensors;
  run(begun: Begun): RowsReader;
  /** Runs one row of the block of the suffix, from the rows before it in the cache. */
  runRow(row: RowsOfBlock, first: Tensor): Tensor;
}

/** Writes the targets of a batch: what each may say next, and what it said. The adapter chooses. */
export interface TokenWriter {
  /** The ids that may come next in a sample's target; null if it has ended. */
  allowed(sample: number, target: string): AllowedIds;
  /** Takes the chosen id; returns false if the id ends the target and is no part of it. */
  write(sample: number, id: number, target: string): boolean;
}

export interface TokenSampling {
  /** Above 0: the logits are divided by it. */
  readonly temperature: number;
  /** Uniform numbers [batch] in [0, 1) for the next token. */
  draws(): Float32Array;
}

export type OnLogits = (logits: Float32Array, target: string) => void;

/** All that an objective needs to act. */
export interface Acting {
  readonly device: Device;
  readonly observation: ObservationBatch;
  /** Begins passes in which `prefix` runs once and `suffix` again and again; the names are in the order of tokens. */
  open(blocks: { prefix: readonly string[]; suffix: readonly string[] }): Session;
  /** Standard normal numbers of a chunk for each observation. */
  noise(): Float32Array;
  readonly writer: TokenWriter;
  /** Ids are drawn at random; default: the likeliest are taken. */
  readonly sampling?: TokenSampling;
  /** Called with the logits [batch, vocabulary] of each token before it is written; only where somebody looks at them. */
  readonly onLogits?: OnLogits;
  readonly tokenHead: Tensor;
  /** First rows [batch, 1, width] of token ids. */
  embedIds(ids: Tensor): Tensor;
  /** Steps of a flow or a diffusion. */
  readonly steps: number;
  /** Called with the partly denoised chunks after each of them. */
  readonly onState?: (state: Float32Array) => void;
  /** The normalised chunks that new ones are to continue; only for an objective that `continues`. */
  readonly previous?: PreviousChunks;
}

/** A loss in words, for progress, summaries and reports. */
export interface ObjectiveDescription {
  /** The key of its losses and baselines in a run's history. */
  readonly name: string;
  /** 'token loss' */
  readonly title: string;
  /** 'mean cross-entropy of the next token, in nats' */
  readonly meaning: string;
  /** The predictor that ignores the observation: 'unigram predictor', 'best constant velocity'; null if there is none. */
  readonly baseline: string | null;
}

export interface Objective extends Pick<ObjectiveDescription, 'name' | 'meaning'> {
  readonly weight: number;
  /** The layers of its head, in the order of the model's parameters. */
  readonly layers: readonly Layer[];
  /** Layers that condition an expert, whose parameters come last. */
  readonly conditioning?: readonly Layer[];
  /** The blocks that it reads after the last layer. */
  readonly blocks: readonly string[];
  /** The blocks, or the vision tower, that it reads in all; default: `blocks`. */
  readonly reads?: readonly string[];
  /**
   * Where it reads few rows of those blocks: their numbers [count] u32, through the batch, among all rows of their expert. Where no
   * other objective reads that expert, `Pass.expert` has these rows alone [1, count, width].
   */
  finalRows?(inputs: InputTensors): Tensor | undefined;
  /** The numbers that it takes from the host. Throws if the batch lacks them. */
  inputs(batch: TrainingBatch): Inputs;
  /** Numbers that are drawn for each example, from number `first` of the whole batch on. */
  draw?(random: (stream: number) => Random, examples: number, first: number): Partial<TrainingBatch>;
  /** The examples or elements that its mean counts. */
  count(inputs: Inputs): number;
  /** First rows and conditions that it gives to the pass, and tensors that it keeps for its loss. */
  begin?(values: ParameterSet, inputs: InputTensors): Begun & { readonly kept: Readonly<Record<string, Tensor>> };
  loss(pass: Pass, kept: Readonly<Record<string, Tensor>>): LossResult;
  readonly baseline?: { readonly name: string; measure(reference: Reference, batch: TrainingBatch): Counted };
  /** It acts by a chunk of actions, or by tokens; undefined if it does not act. */
  readonly acts?: 'chunk' | 'tokens';
  /** Whether it can continue the chunks before: real-time chunking. */
  readonly continues?: boolean;
  /** Why it cannot act, though its kind of objective does. */
  readonly obstacle?: string | null;
  /** Blocks that acting makes, from which follow those that it reads. */
  readonly makes?: readonly string[];
  /** A chunk of actions [batch * horizon * actionDimension]. */
  act?(acting: Acting): Promise<Float32Array>;
  /** The ids of a target, written one after the other. What the target reads is in the observation. */
  decode?(acting: Acting, target: BlockSettings): Promise<Ids>;
}

/** How many of `length` numbers from `first` on are not 0. */
export function countOf(data: ArrayLike<number>, first: number, length: number): number {
  let count = 0;
  for (let i = first; i < first + length; i++) if (data[i] !== 0) count += 1;
  return count;
}
