import { InputError } from '../../engine/files/errors.ts';
import type { Edge } from '../../kernels/index.ts';
import type { ObjectiveDescription } from '../architecture/objectives/index.ts';
import type { Image } from '../data/dataset.ts';
import type { KeptAnswers } from '../inspect/answers.ts';
import type { SwappedLosses } from '../inspect/swapped.ts';
import type { ActingRow, Losses } from '../training/history.ts';
import type { FilmedEpisode } from './film-strip.ts';

/**
 * The contents of the report of a training run. Lists of points are in the order of their steps. The page leaves out optional
 * parts that are missing. Every number must be finite; strings may hold anything, because they are escaped.
 */
export interface ReportData {
  title: string;
  command: string;
  adapter: string;
  date: string;
  seed: number;
  system: string;
  preset: string;
  /** Settings that differ from the defaults, as options. */
  settings?: readonly string[];
  /** Parameters (numbers, not bytes) of each parameter group of the model. */
  parameters: { group: string; count: number }[];
  data: ReportDataset;
  /** Wall time of each phase in the order they ran: data, compile, train, evaluate. */
  phases: { name: string; seconds: number }[];
  /** The losses of the run in the order in which the page shows them, which also fixes their colours. */
  objectives: ObjectiveDescription[];
  curves: Curves;
  gradients?: Gradients;
  attention?: AttentionDrawing;
  chunks?: Chunks;
  openLoop?: OpenLoop;
  closedLoop?: ClosedLoop;
  /** Acting between training steps. */
  acting?: readonly ActingRow[];
  /** Episodes that are shown. */
  films?: readonly FilmedEpisode[];
  /** Held-out losses with pictures or words of other examples. */
  swapped?: SwappedLosses;
  /** Questions that the start answers, before and after training. */
  kept?: KeptAnswers;
  /** Time of each part of one call of the policy, in the order they run. */
  latency?: { part: string; milliseconds: number }[];
  /** Sentences the reader should know, for instance what the data lacked. */
  notes: string[];
}

interface ReportDataset {
  name: string;
  episodes: number;
  /** The held-out part in words: "5 of 60 episodes". */
  heldOut: string;
  /** Control steps a second. */
  rate: number;
  /** Control steps of a chunk. */
  horizon: number;
  /** The things that the data lack, each in words: "no language", "no images". */
  missing: string[];
}

/** Losses by the name of the objective; one that was not measured at this step is left out. */
export interface LossPoint {
  step: number;
  losses: Losses;
}

interface Curves {
  /** `seconds` since training began, without evaluation. */
  training: (LossPoint & { seconds: number })[];
  heldOut: LossPoint[];
  /** Held-out losses of the predictors that ignore the observation, by the name of the objective. */
  baselines: Losses;
}

export interface Gradients {
  /** L2 norm of the gradient of one loss on all parameters of one group. */
  norms: { step: number; loss: string; group: string; norm: number }[];
  /** Gradients that must be exactly zero, and the reason: "cut by the table". The report marks those that are not. */
  expectedZero?: { loss: string; group: string; reason: string }[];
}

/** The attention table: a pair of blocks without an edge is `none`. */
export interface AttentionDrawing {
  /** Blocks in layout order, lengths in tokens. */
  blocks: { name: string; length: number }[];
  edges: AttentionEdge[];
  /** The history that the system sees, in words. */
  history?: string;
}

export interface AttentionEdge extends Omit<Edge, 'window'> {
  query: string;
  key: string;
}

export interface Chunks {
  /** Unit of the actions: "normalised", "m and rad". */
  unit: string;
  samples: ChunkSample[];
}

/** One held-out observation and its chunks, each [horizon, dimension], row-major. */
export interface ChunkSample {
  instruction?: string;
  image?: Image;
  /** Names of the action's dimensions, or their number: then they are counted from 0. */
  dimensions: readonly string[] | number;
  demonstrated: ArrayLike<number>;
  /** One sample of the policy. */
  predicted: ArrayLike<number>;
  /** Mean of 8 samples of the policy; null for a policy that draws no noise. */
  mean: ArrayLike<number> | null;
  /** Steps before the episode's end; the demonstrated chunk is padding from there on. */
  validSteps: number;
}

/** Errors of predicted chunks on held-out observations. */
interface OpenLoop {
  /** The kind of error: "mean absolute error, normalised actions". */
  measure: string;
  observations: number;
  oneSample: number;
  /** null for a policy that draws no noise. */
  meanOfEight: number | null;
  bestConstant: number;
}

export interface ClosedLoop {
  /** `outcome` is in words. `rightObject` is left out if it is not known which object was taken, or has no meaning. */
  episodes: { instruction: string; outcome?: string; success: boolean; rightObject?: boolean; steps: number }[];
}

export function dimensionNames(dimensions: readonly string[] | number): string[] {
  return typeof dimensions === 'number'
    ? Array.from({ length: dimensions }, (_, i) => `dimension ${i}`)
    : [...dimensions];
}

/** @throws InputError that names the first number, at any depth, that is not finite */
export function refuseNonFinite(value: unknown, where = ''): void {
  if (typeof value === 'number' && !Number.isFinite(value))
    throw new InputError(`the report: ${where} is ${value}, and a report needs finite numbers: did the run diverge?`);
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return;
  for (const [name, part] of Object.entries(value)) refuseNonFinite(part, where ? `${where}.${name}` : name);
}
