/** Everything that determines a model: plain data, stored in the checkpoint. */
import { InputError } from '../../engine/files/errors.ts';
import type { Edge } from '../../kernels/index.ts';
import type { BackboneName, BackboneVariant } from './backbones/index.ts';
import type { LowRankSettings } from './layers.ts';
import type { ObjectiveSettings } from './objectives/settings.ts';
import type { Precision } from './precision.ts';

export interface TransformerSizes {
  readonly width: number;
  /** Width of the gated MLP. */
  readonly hidden: number;
}

/** The weights of one expert. All experts of a mixture have the same depth, heads and head dimension. */
export interface ExpertSettings extends TransformerSizes {
  /** The flow time conditions its RMSNorms; otherwise it is a token, if there is a block 'time', or concatenated to the noisy actions. */
  readonly adaptive?: boolean;
  /**
   * The blocks of encoders run first, by themselves. Blocks of other experts read their final hidden states by cross-attention; an edge
   * to a block of an encoder is such an edge.
   */
  readonly encoder?: boolean;
  /** Its blocks read memory (blocks of encoders, or `BlockSettings.memory`) by cross-attention; see cross-attention.ts. */
  readonly crossAttention?: CrossAttentionSettings;
}

export interface CrossAttentionSettings {
  /** The distance of its layers: 2 means before layers 0, 2, 4 ... */
  readonly every: number;
  /** Flamingo's branch, with gates that begin closed; otherwise a plain one, with the norm of the expert. */
  readonly gated: boolean;
}

/** Sizes of a perceiver resampler; see resampler.ts. */
export interface ResamplerSettings {
  /** Rows that it makes of an image. */
  readonly latents: number;
  readonly depth: number;
  readonly heads: number;
  readonly headDimension: number;
  readonly hidden: number;
}

/** Sizes of one vision transformer. */
export interface TowerSettings {
  readonly width: number;
  readonly depth: number;
  readonly heads: number;
  readonly hidden: number;
}

export interface VisionSettings {
  /**
   * The features of all towers are concatenated along channels, in this order, before the projection into the backbone. A tower's name
   * is the group of its parameters; see `projectorGroup`.
   */
  readonly towers: Readonly<Record<string, TowerSettings>>;
  /** Side of a square patch, in pixels. */
  readonly patch: number;
  readonly imageHeight: number;
  readonly imageWidth: number;
  readonly cameras: number;
  /** Stands behind the towers and before the projection. The rows of an image are its latents, in place of the patches. */
  readonly resampler?: ResamplerSettings;
  /** Every camera has towers of its own, without shared weights. */
  readonly towerPerCamera?: boolean;
}

const tokenInputs = ['images', 'prompt', 'target'] as const;
export const blockInputs = [...tokenInputs, 'state', 'numbers', 'noisyActions', 'time', 'learned', 'zeros'] as const;

/**
 * The rows that a block is made from: camera images; token ids of a prompt; token ids to be predicted; the state, or other
 * numbers, by an affine map; actions on their way from noise, and their flow time; learned vectors; zeros.
 */
export type BlockInput = (typeof blockInputs)[number];

/** A block of the token sequence. */
export interface BlockSettings {
  readonly name: string;
  readonly length: number;
  /** The expert that its rows run through. */
  readonly weights: string;
  readonly input: BlockInput;
  /** The prompt, target or numbers of the example that it is made from; by default those of its own name. */
  readonly source?: string;
  /** The positions of this block start after the real tokens of these blocks. */
  readonly after: readonly string[];
  /**
   * Copies of the block, each with noise and time of its own. A copy sees what the block sees and itself, not the other copies,
   * and has the block's positions and padding. The token loss and acting know one copy.
   */
  readonly repeats?: number;
  /** false: its rows have queries only, and no block attends to it. Default true. */
  readonly keys?: boolean;
  /** Its rows, of images, run through no expert: blocks read them by cross-attention. They have the width of `weights`. */
  readonly memory?: boolean;
  /** Numbers in a row of a 'numbers' block. */
  readonly dimension?: number;
}

/**
 * Control steps that a policy sees together (RoboVLMs: Li et al. 2024, arXiv 2412.14058). The batch of a model with history counts
 * control steps, those of an example one after another, oldest first; each has its own chunk and its own loss.
 */
export interface HistorySettings {
  /** Control steps of an example. */
  readonly window: number;
  /**
   * The blocks of the control steps follow one another in one sequence of tokens, and those of a step see all of the steps before;
   * otherwise every step is a sequence of its own, and a head with a temporal part reads them together.
   */
  readonly interleaved: boolean;
}

/** Settings of the parameters whose group or name matches. The last rule that matches decides. */
export interface ParameterRule {
  /** The name of a group (an expert, a vision tower, or `projector`), or a pattern of parameter names in which * stands for any characters. */
  readonly match: string;
  /** Factor on the learning rate. */
  readonly rate?: number;
  /** The parameters keep their values and get no gradient. */
  readonly frozen?: boolean;
  /** Initial bias of the gates of adaptive norms: at 0 every branch is closed when training begins, at 1 open. */
  readonly gateBias?: number;
}

/**
 * Low-rank adaptation (LoRA: Hu et al. 2021, arXiv 2106.09685): beside each matrix of the transformers of some experts, two thin ones learn.
 * These transformers keep their values, and with the backbone's the token embeddings and the matrix of the logits, unless a rule says
 * otherwise; the modulation of adaptive norms is trained whole.
 */
export interface LoraSettings {
  readonly rank: number;
  /** The product of the thin matrices is multiplied by alpha / rank; default: the rank. */
  readonly alpha?: number;
  /** Names of the experts. */
  readonly experts: readonly string[];
}

/** Everything that determines a model's parameters and its passes. */
export interface ModelConfiguration {
  /** The family of the language model, and the settings in which the model differs from it. */
  readonly backbone: BackboneName;
  readonly backboneVariant?: BackboneVariant;
  readonly vocabulary: number;
  /** The experts by name; 'backbone' is the first, and embeds and predicts tokens. */
  readonly experts: Readonly<Record<string, ExpertSettings>>;
  readonly depth: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDimension: number;
  readonly vision: VisionSettings | null;
  /** Actions in a chunk. */
  readonly horizon: number;
  readonly actionDimension: number;
  readonly stateDimension: number;
  /** Their order is the order of tokens. */
  readonly blocks: readonly BlockSettings[];
  readonly edges: readonly { readonly query: string; readonly key: string; readonly edge: Edge }[];
  readonly objectives: readonly ObjectiveSettings[];
  /** An example is a window of control steps; without it, one. */
  readonly history?: HistorySettings;
  readonly rules?: readonly ParameterRule[];
  readonly lora?: LoraSettings;
  /** Number format of weights and activations; default f32. See precision.ts. */
  readonly precision?: Precision;
  /** The distribution of random initial values; default normal. See initialise.ts. */
  readonly initialValues?: InitialValues;
}

/** The layers of all experts, towers and heads, each with parameters of its own. */
export function layersOf({ experts, depth, vision, objectives }: ModelConfiguration): number {
  const { towers = {}, towerPerCamera = false, cameras = 1, resampler } = vision ?? {};
  const ofTowers = Object.values(towers).reduce((sum, own) => sum + own.depth, 0);
  const ofHeads = objectives.map((own) => {
    const trunk = 'trunk' in own ? own.trunk : 'head' in own && own.head && 'trunk' in own.head ? own.head.trunk : null;
    const blocks = 'head' in own && own.head && 'blocks' in own.head ? own.head.blocks : 0;
    return blocks + (trunk && 'layers' in trunk ? (trunk.layers ?? 0) : 0) + ('layers' in own ? (own.layers ?? 0) : 0);
  });
  const all = [Object.keys(experts).length * depth, (towerPerCamera ? cameras : 1) * ofTowers, resampler?.depth ?? 0];
  return [...all, ...ofHeads].reduce((sum, own) => sum + own, 0);
}

/** The low-rank adaptation of the matrices of an expert; null if they have none. */
export function lowRankOf({ lora }: Pick<ModelConfiguration, 'lora'>, expert: string): LowRankSettings | null {
  if (!lora?.experts.includes(expert)) return null;
  const { rank, alpha = rank } = lora;
  return { rank, scale: alpha / rank };
}

/** Normal numbers are drawn on the host; uniform ones on the device, in seconds for billions of them. */
export const initialValueKinds = ['normal', 'uniform'] as const;
export type InitialValues = (typeof initialValueKinds)[number];

/** The control steps of an example in a batch: those of its window, oldest first. */
export const windowOf = ({ history }: Pick<ModelConfiguration, 'history'>): number => history?.window ?? 1;

/**
 * The numbers of the examples' last control steps among the control steps of a batch.
 *
 * @throws InputError if the batch does not consist of whole windows
 */
export const lastSteps = (configuration: Pick<ModelConfiguration, 'history'>, batch: number): number[] => {
  const window = windowOf(configuration);
  if (batch % window !== 0)
    throw new InputError(`${batch} control steps are no whole windows: this model takes ${window} for each example`);
  return Array.from({ length: batch / window }, (_, example) => (example + 1) * window - 1);
};

/** The control steps that lie in one sequence of tokens: the window of interleaved history, or one. */
export const stepsInSequence = ({ history }: Pick<ModelConfiguration, 'history'>): number =>
  history?.interleaved ? history.window : 1;

/**
 * The projection of a single tower belongs to its group. That of several, and a resampler with its projection, have a group of their own,
 * so that one tower can be frozen.
 */
export function projectorGroup({ towers, resampler }: VisionParts): string {
  const [first, ...more] = Object.keys(towers);
  return more.length > 0 || resampler ? 'projector' : first;
}

/** The facts that decide the groups of vision. */
export interface VisionParts {
  readonly towers: Readonly<Record<string, unknown>>;
  readonly resampler?: unknown;
}

type ImageSizes = Pick<VisionSettings, 'imageHeight' | 'imageWidth' | 'patch'>;

/** The features that a tower makes of an image. */
export function patchesPerImage({ imageHeight, imageWidth, patch }: ImageSizes): number {
  return Math.floor(imageHeight / patch) * Math.floor(imageWidth / patch);
}

/** The rows of an image in its block. */
export function tokensPerImage(vision: ImageSizes & Pick<VisionSettings, 'resampler'>): number {
  return vision.resampler?.latents ?? patchesPerImage(vision);
}

/** @throws Error if there is no block of this name */
export function blockNamed({ blocks }: Pick<ModelConfiguration, 'blocks'>, name: string): BlockSettings {
  const found = blocks.find((block) => block.name === name);
  if (!found)
    throw new Error(`the model has no block '${name}'; it has ${blocks.map((block) => block.name).join(', ')}`);
  return found;
}

/** Whether the rows of a block have keys and values, which others may attend to. */
export const hasKeys = ({ keys = true }: Pick<BlockSettings, 'keys'>): boolean => keys;

/** Whether the rows of a block run through an expert. */
export const runsThrough = ({ weights, memory = false }: Pick<BlockSettings, 'weights' | 'memory'>, expert: string) =>
  weights === expert && !memory;

/** Whether blocks of other experts read a block by cross-attention. */
export const isMemory = (
  { experts }: Pick<ModelConfiguration, 'experts'>,
  { weights, memory = false }: BlockSettings,
): boolean => memory || (experts[weights].encoder ?? false);

/** The blocks of memory that those of an expert read, in the order of tokens. */
export function memoryOf(
  { experts, blocks, edges }: Pick<ModelConfiguration, 'experts' | 'blocks' | 'edges'>,
  expert: string,
): BlockSettings[] {
  if (!experts[expert].crossAttention) return [];
  const own = new Set(blocks.filter((block) => runsThrough(block, expert)).map(({ name }) => name));
  const read = new Set(edges.flatMap(({ query, key, edge }) => (own.has(query) && edge.mask !== 'none' ? [key] : [])));
  return blocks.filter((block) => read.has(block.name) && isMemory({ experts }, block));
}

/** The name under which an example holds the contents of a block. */
export const sourceOf = ({ name, source = name }: BlockSettings): string => source;

/**
 * The block that ends with the row before a block's first: the last that it comes after and that runs through the same expert. An
 * example may lack a target, so the blocks before it follow, up to the first that is none. Empty if there is no such block.
 */
export function blocksBefore({ blocks }: Pick<ModelConfiguration, 'blocks'>, block: BlockSettings): BlockSettings[] {
  const candidates = block.after
    .flatMap((name) => blocks.find((other) => other.name === name && runsThrough(other, block.weights)) ?? [])
    .reverse();
  const last = candidates.findIndex(({ input }) => input !== 'target');
  return last < 0 ? candidates : candidates.slice(0, last + 1);
}

/** The block of noisy actions, which a flow or a diffusion makes into actions; null if there is none. */
export function noisyBlock({ blocks }: Pick<ModelConfiguration, 'blocks'>): BlockSettings | null {
  return blocks.find(({ input }) => input === 'noisyActions') ?? null;
}

/** The block that holds their flow time as a token; null if there is none. */
export function timeBlock({ blocks }: Pick<ModelConfiguration, 'blocks'>): BlockSettings | null {
  return blocks.find(({ input }) => input === 'time') ?? null;
}
