/**
 * A system is a value: a few settings that turn the one model into pi0, pi0-FAST, knowledge insulation ... Its blocks and its attention
 * table are the documentation. A new system is a file beside this one (knowledge-insulation.ts is an example) and a line in index.ts;
 * after that `insula train --system NAME` trains it. What cannot run is refused with the reason (architecture/check.ts).
 */
import type { Edge } from '../../kernels/index.ts';
import type { ActionTokenKind } from '../../tokenizers/index.ts';
import type { BackboneName, BackboneVariant } from '../architecture/backbones/index.ts';
import {
  type BlockSettings,
  type ExpertSettings,
  type HistorySettings,
  type InitialValues,
  type LoraSettings,
  type ModelConfiguration,
  type ParameterRule,
  patchesPerImage,
  type TowerSettings,
  type TransformerSizes,
  tokensPerImage,
  type VisionSettings,
} from '../architecture/configuration.ts';
import type { ObjectiveSettings } from '../architecture/objectives/settings.ts';
import type { Precision } from '../architecture/precision.ts';

/** The names of two blocks of `withSubtask`: the subtask, which a policy says before it acts, and the numbers that an action expert gets. */
export const [SUBTASK, NUMBERS] = ['subtask', 'numbers'];
/** The name of the block of the state, as numbers or as tokens. */
export const STATE = 'state';

/** A block of a system: `BlockSettings` without the fields that the data determine. Blocks of images or state are left out if the data have none. */
export interface SystemBlock extends Omit<BlockSettings, 'length' | 'after'> {
  /** Its positions start after these blocks; by default after the images, prompts, subtask, state, numbers and flow time before it. */
  readonly after?: readonly string[];
  /**
   * The number of its rows, which learned rows and zeros may choose: 'actions' means one for each action of a chunk (the default),
   * 'elements' one for each number of a chunk, 'state' one for each number of the state. The data determine the others, where a system
   * does not state it.
   */
  readonly length?: number | 'actions' | 'elements' | 'state';
}

/** How a system is trained, beside its model: defaults of `insula train`, which options replace. */
export interface Recipe {
  /** Fraction of every batch that is vision-language questions, where the data have images. */
  readonly cotrain?: number;
  /** The subtask that the policy says before it acts, where the data have one. */
  readonly subtask?: 'words';
  /** Noise and time draws of each chunk in a training step. */
  readonly draws?: number;
  /** Control steps in a chunk. */
  readonly horizon?: number;
  /** Instructions are paraphrased in sentence forms that fit every instruction. */
  readonly paraphrases?: 'forms';
  /** All weights begin at random: training does not start from a vision-language model. */
  readonly scratch?: boolean;
}

export interface System {
  /** Lower case with dashes: the value of --system. */
  readonly name: string;
  /** The system that it differs from by what its source says; null for the first of a family. */
  readonly parent: string | null;
  /** One line: its losses and experts. */
  readonly description: string;
  /** The paper or program that it is taken from. */
  readonly source: string;
  /** The family of its transformer; 'gemma' by default. */
  readonly backbone?: BackboneName;
  readonly backboneVariant?: BackboneVariant;
  /** Camera images, prompt, target tokens, state, noisy actions ..., in the order of tokens. */
  readonly blocks: readonly SystemBlock[];
  /** The key blocks that each query block attends to, and how: full, causal, or insulated (full, behind a stop-gradient). */
  readonly attention: Readonly<Record<string, Readonly<Record<string, Edge>>>>;
  readonly objectives: readonly ObjectiveSettings[];
  /** The kind of discrete action tokens in its target block; null for none. `insula train --tokens` replaces it. */
  readonly actionTokens: ActionTokenKind | null;
  /** The prompt contains the state, in bins. A continuous state is a block with the input 'state' instead. */
  readonly stateAsText: boolean;
  /**
   * The flow time conditions the norms of the noisy actions' expert (never the backbone), is concatenated to them, or is the token of a
   * block 'time'; null without noisy actions.
   */
  readonly time: 'adaptive' | 'concatenate' | 'token' | null;
  /** Vision towers by name, each of the preset's sizes; one by default. */
  readonly towers?: readonly string[];
  /** Every camera has towers of its own, without shared weights. */
  readonly towerPerCamera?: boolean;
  /** A perceiver resampler of a tower's sizes stands behind the towers. It has a quarter as many latents as an image has patches, at most 64. */
  readonly resampler?: boolean;
  /** Experts that are encoders, or read memory by cross-attention. */
  readonly experts?: Readonly<Record<string, Pick<ExpertSettings, 'encoder' | 'crossAttention'>>>;
  /** The most cameras that it sees; all by default. */
  readonly cameras?: number;
  /** The control steps that it sees together; one by default. */
  readonly history?: HistorySettings;
  /** Settings of parameters by group or name: rates, freezing. Those of vision have no effect without images. */
  readonly rules?: readonly ParameterRule[];
  readonly recipe?: Recipe;
}

/** Soft insulation: the system with this factor of the gradient, from 0 to 1, in place of each stop of its edges; null if it has none. */
export function withStopsAt(system: System, factor: number): System | null {
  let stops = 0;
  const passing = (own: number) => {
    if (own > 0) return own;
    stops += 1;
    return factor;
  };
  const attention = Object.entries(system.attention).map(([query, row]) => {
    const edges = Object.entries(row).map(([key, { keyGradient, valueGradient, ...edge }]) => [
      key,
      { ...edge, keyGradient: passing(keyGradient), valueGradient: passing(valueGradient) },
    ]);
    return [query, Object.fromEntries(edges)];
  });
  return stops === 0 ? null : { ...system, attention: Object.fromEntries(attention) };
}

/** The system with this number of draws of noise and time for each chunk in a training step; null if it has no noisy actions. */
export function withDraws(system: System, draws: number): System | null {
  const noisy = system.blocks.find(({ input }) => input === 'noisyActions');
  if (!noisy) return null;
  // Adaptive norms condition each copy by its own time, and with it all that shares the expert.
  const shares = system.time === 'adaptive';
  const isRepeated = (block: SystemBlock) =>
    block === noisy || block.input === 'time' || (shares && block.weights === noisy.weights);
  const blocks = system.blocks.map((block) => (isRepeated(block) ? { ...block, repeats: draws } : block));
  return draws === 1 ? system : { ...system, blocks };
}

/** The system with training-time real-time chunking, up to this delay in control steps; null if it has no flow of a block. */
export function withMaximumDelay(system: System, maximumDelay: number): System | null {
  const objectives = system.objectives.map((own) => (own.kind === 'flow' ? { ...own, maximumDelay } : own));
  return objectives.some(({ kind }) => kind === 'flow') ? { ...system, objectives } : null;
}

/** Sizes that the data and the preset determine, and rules that the user gives. */
export interface ModelSizes {
  readonly backbone: TransformerSizes;
  readonly vocabulary: number;
  /** Sizes of every other expert. */
  readonly expert: TransformerSizes;
  readonly depth: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDimension: number;
  /** null for data without images. */
  readonly vision:
    | (TowerSettings & {
        readonly patch: number;
        readonly imageHeight: number;
        readonly imageWidth: number;
        readonly cameras: number;
      })
    | null;
  /** Lengths in tokens of a prompt, and of a target; a subtask states its own. */
  readonly promptTokens: number;
  readonly targetTokens: number;
  readonly horizon: number;
  readonly actionDimension: number;
  /** 0 for data without a state. */
  readonly stateDimension: number;
  readonly rules?: readonly ParameterRule[];
  /** Low-rank adaptation, of all experts by default. */
  readonly lora?: Omit<LoraSettings, 'experts'> & Partial<LoraSettings>;
  readonly precision?: Precision;
  readonly initialValues?: InitialValues;
}

/** By default, positions of later blocks come after blocks with these inputs, which are there before anything is predicted. */
const given: readonly string[] = ['images', 'prompt', 'state', 'numbers', 'time'];

/** The model of a system at given sizes. */
export function configurationOf(system: System, sizes: ModelSizes): ModelConfiguration {
  const { backbone, vocabulary, expert, depth, heads, kvHeads, headDimension } = sizes;
  const { rules = [], lora, precision = 'f32', initialValues } = sizes;
  const vision = sizes.vision && visionOf(sizes.vision, system);
  const { horizon, actionDimension, stateDimension } = sizes;
  const ofState = ({ input, length }: SystemBlock) => input === 'state' || length === 'state';
  const present = system.blocks.filter(
    (block) => (block.input !== 'images' || vision !== null) && (!ofState(block) || stateDimension > 0),
  );
  const names = present.map(({ name }) => name);
  const blocks = present.map(({ length, after, ...block }, i): BlockSettings => {
    const before = present.slice(0, i).filter(({ name, input }) => given.includes(input) || name === SUBTASK);
    const own = after?.filter((name) => names.includes(name)) ?? before.map(({ name }) => name);
    return { ...block, length: lengthOf({ ...block, length }, sizes, vision), after: own };
  });
  const edges = Object.entries(system.attention).flatMap(([query, row]) =>
    Object.entries(row).flatMap(([key, edge]) =>
      names.includes(query) && names.includes(key) ? [{ query, key, edge }] : [],
    ),
  );
  const noisy = present.find(({ input }) => input === 'noisyActions');
  const experts = [...new Set(['backbone', ...present.map(({ weights }) => weights)])];
  const towers = system.towers ?? ['vision'];
  const ofVision = ({ match }: ParameterRule) => match === 'projector' || towers.includes(match);
  const all = [...(system.rules ?? []).filter((rule) => vision || !ofVision(rule)), ...rules];
  return {
    backbone: system.backbone ?? 'gemma',
    ...(system.backboneVariant && { backboneVariant: system.backboneVariant }),
    vocabulary,
    experts: Object.fromEntries(
      experts.map((name) => {
        const adaptive = system.time === 'adaptive' && name === noisy?.weights;
        const sizes = name === 'backbone' ? backbone : expert;
        return [name, { ...sizes, ...(adaptive && { adaptive }), ...system.experts?.[name] }];
      }),
    ),
    ...{ depth, heads, kvHeads, headDimension },
    vision,
    ...{ horizon, actionDimension, stateDimension },
    blocks,
    edges,
    objectives: system.objectives,
    ...(system.history && { history: system.history }),
    ...(all.length > 0 && { rules: all }),
    ...(lora && { lora: { experts, ...lora } }),
    ...(precision !== 'f32' && { precision }),
    ...(initialValues === 'uniform' && { initialValues }),
  };
}

function visionOf(
  { width, depth, heads, hidden, ...images }: NonNullable<ModelSizes['vision']>,
  { towers = ['vision'], resampler, towerPerCamera }: System,
): VisionSettings {
  const own = { width, depth, heads, hidden };
  const latents = Math.min(64, Math.ceil(patchesPerImage(images) / 4));
  return {
    ...images,
    towers: Object.fromEntries(towers.map((name) => [name, own])),
    ...(resampler && { resampler: { latents, depth, heads, headDimension: width / heads, hidden } }),
    ...(towerPerCamera && { towerPerCamera }),
  };
}

function lengthOf(
  { input, length }: Pick<SystemBlock, 'input' | 'length'>,
  sizes: ModelSizes,
  vision: VisionSettings | null,
): number {
  const { horizon, actionDimension } = sizes;
  if (length === 'elements') return horizon * actionDimension;
  if (length === 'state') return sizes.stateDimension;
  if (typeof length === 'number') return length;
  switch (input) {
    case 'images':
      return vision!.cameras * tokensPerImage(vision!);
    case 'prompt':
      return sizes.promptTokens;
    case 'target':
      return sizes.targetTokens;
    case 'state':
    case 'numbers':
    case 'time':
      return 1;
    default:
      return horizon;
  }
}
