/**
 * A system is a value: a few settings that turn the one model into pi0, pi0-FAST, knowledge insulation ... Its
 * attention is a table of blocks, and the table is the documentation.
 */
import type { Edge } from '../../kernels/index.ts';
import type {
  BlockSettings,
  ModelConfiguration,
  TransformerSizes,
  VisionSizes,
} from '../architecture/configuration.ts';
import { tokensPerImage } from '../architecture/configuration.ts';

/** Camera images, prompt, and discrete action tokens on the backbone; state token and noisy actions on the action expert. */
type BlockName = 'image' | 'language' | 'fast' | 'state' | 'action';

export interface System {
  readonly name: string;
  /** One line: its losses and experts, and its source. */
  readonly description: string;
  /** Discrete action tokens, trained by next-token loss on the backbone. */
  readonly tokens: 'fast' | null;
  /** The action expert, trained by flow matching, and the way the flow time conditions it; null for none. */
  readonly expert: 'adaptive' | 'concatenate' | null;
  /** The state as numbers in the prompt, or as a token of the action expert. */
  readonly state: 'text' | 'expert';
  /** The blocks that each block attends to, and the edges that stop the gradient. */
  readonly attention: Readonly<Partial<Record<BlockName, Readonly<Partial<Record<BlockName, Edge>>>>>>;
  /** Weight of the flow loss; the token loss has weight 1. */
  readonly alpha: number;
}

/** Sizes that the data and the preset determine. */
export interface ModelSizes {
  readonly backbone: TransformerSizes & { readonly vocabulary: number };
  readonly expert: TransformerSizes;
  readonly depth: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDimension: number;
  /** null for data without images. */
  readonly vision: VisionSizes | null;
  /** Length of the prompt block, and of the block of discrete action tokens. */
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
