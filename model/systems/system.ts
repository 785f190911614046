/**
 * A system is a value: a handful of settings that make the one model pi0, pi0-FAST, knowledge insulation ... Its attention is a
 * table of blocks, and the table is the documentation.
 */
import type { Edge } from '../../kernels/index.ts';
import type {
  BlockSettings,
  ModelConfiguration,
  TransformerSizes,
  VisionSizes,
} from '../architecture/configuration.ts';
import { tokensPerImage } from '../architecture/configuration.ts';

/** Blocks that systems speak of: camera images, prompt, discrete action tokens, state token and continuous actions of the expert. */
export type BlockName = 'image' | 'language' | 'fast' | 'state' | 'action';

export interface System {
  readonly name: string;
  /** One line: what it is and where it comes from. */
  readonly description: string;
  /** Discrete action tokens, learned by next-token loss on the backbone. */
  readonly tokens: 'fast' | null;
  /** Action expert, learned by flow matching, and how it is told the time. */
  readonly expert: 'adaptive' | 'concatenate' | null;
  /** The state as numbers in the prompt, or as a token of the expert. */
  readonly state: 'text' | 'expert';
  /** Who sees whom, and where gradient stops. */
  readonly attention: Readonly<Partial<Record<BlockName, Readonly<Partial<Record<BlockName, Edge>>>>>>;
  /** Weight of the flow loss beside the token loss. */
  readonly alpha: number;
}

/** What the data and the preset decide. */
export interface ModelSizes {
  readonly backbone: TransformerSizes & { readonly vocabulary: number };
  readonly expert: TransformerSizes;
  readonly depth: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDimension: number;
  /** null for data without images. */
  readonly vision: VisionSizes | null;
  /** Most tokens of a prompt, and of the discrete actions of a chunk. */
  readonly languageTokens: number;
  readonly fastTokens: number;
  readonly horizon: number;
  readonly actionDimension: number;
  readonly stateDimension: number;
}

/** The model of a system at given sizes. */
export function configurationOf(system: System, sizes: ModelSizes): ModelConfiguration {
  const { vision, horizon, actionDimension, stateDimension, backbone, depth, heads, kvHeads, headDimension } = sizes;
  const blocks: BlockSettings[] = [];
  const prefix: string[] = [];
  const addBlock = (
    name: BlockName,
    length: number,
    weights: BlockSettings['weights'],
    input: BlockSettings['input'],
    after: readonly string[],
  ) => {
    blocks.push({ name, length, weights, input, after: [...after] });
  };
  if (vision) {
    addBlock('image', vision.cameras * tokensPerImage(vision), 'backbone', 'images', []);
    prefix.push('image');
  }
  addBlock('language', sizes.languageTokens, 'backbone', 'ids', prefix);
  prefix.push('language');
  if (system.tokens) addBlock('fast', sizes.fastTokens, 'backbone', 'ids', prefix);
  if (system.expert) {
    const withState = system.state === 'expert' && stateDimension > 0;
    if (withState) addBlock('state', 1, 'expert', 'state', prefix);
    addBlock('action', horizon, 'expert', 'actions', withState ? [...prefix, 'state'] : prefix);
  }
  const names = blocks.map((block) => block.name);
  const edges = Object.entries(system.attention).flatMap(([query, row]) =>
    Object.entries(row).flatMap(([key, edge]) =>
      names.includes(query) && names.includes(key) ? [{ query, key, edge }] : [],
    ),
  );
  return {
    backbone,
    expert: system.expert && { ...sizes.expert, time: system.expert },
    depth,
    heads,
    kvHeads,
    headDimension,
    vision,
    horizon,
    actionDimension,
    stateDimension,
    blocks,
    edges,
    losses: { token: system.tokens !== null, flow: system.expert !== null, alpha: system.alpha },
  };
}
