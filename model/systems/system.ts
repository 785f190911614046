/**
 * A system is a value: a few settings that turn the one model into pi0, pi0-FAST, knowledge insulation ... Its blocks and its attention
 * table are the documentation.
 */
import type { Edge } from '../../kernels/index.ts';
import type { ActionTokenKind } from '../../tokenizers/index.ts';
import type { BackboneName, BackboneVariant } from '../architecture/backbones/index.ts';
import {
  type BlockSettings,
  type ModelConfiguration,
  type ParameterRule,
  type TowerSettings,
  type TransformerSizes,
  tokensPerImage,
} from '../architecture/configuration.ts';
import type { ObjectiveSettings } from '../architecture/objectives/settings.ts';

/** A block of a system. Lengths that the data determine are left out. */
export interface SystemBlock
  extends Pick<BlockSettings, 'name' | 'input' | 'weights' | 'source' | 'repeats' | 'dimension'> {
  /** The blocks whose real tokens come before its first position; by default the images, prompts and numbers before it. */
  readonly after?: readonly string[];
  /** Rows; for learned rows and zeros, 'actions' means as many as a chunk has actions, 'elements' as it has elements. */
  readonly length?: number | 'actions' | 'elements';
}

export interface System {
  readonly name: string;
  /** The system that it differs from by what its source says; null for the first of a family. */
  readonly parent: string | null;
  /** One line: its losses and experts. */
  readonly description: string;
  /** The paper or program that it is taken from. */
  readonly source: string;
  /** The family of its language model; 'gemma' by default. */
  readonly backbone?: BackboneName;
  readonly backboneVariant?: BackboneVariant;
  /** Camera images, prompt, target tokens, state, noisy actions ..., in the order of tokens. */
  readonly blocks: readonly SystemBlock[];
  /** The blocks that each block attends to, and the edges that stop the gradient. Edges of blocks that the data lack are left out. */
  readonly attention: Readonly<Record<string, Readonly<Record<string, Edge>>>>;
  readonly objectives: readonly ObjectiveSettings[];
  /** Kind of the discrete action tokens in its targets; null for none. */
  readonly actionTokens: ActionTokenKind | null;
  /** The prompt contains the state in words. A block of the state is in `blocks`. */
  readonly stateAsText: boolean;
  /** The flow time conditions the norms of the expert of the noisy actions, or is concatenated to them; null without a flow. */
  readonly time: 'adaptive' | 'concatenate' | null;
  /** Vision towers by name, each of the preset's sizes; one by default. */
  readonly towers?: readonly string[];
  /** Settings of parameters by group or name: rates, freezing. */
  readonly rules?: readonly ParameterRule[];
}

/** The system with a factor of the gradient in place of each stop of its edges; null if it has none. */
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

/** Sizes that the data and the preset determine. */
export interface ModelSizes {
  readonly backbone: TransformerSizes;
  readonly vocabulary: number;
  /** Sizes of every expert beside the backbone. */
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
  /** Length of a prompt, and of a target. */
  readonly promptTokens: number;
  readonly targetTokens: number;
  readonly horizon: number;
  readonly actionDimension: number;
  /** 0 for data without a state. */
  readonly stateDimension: number;
  readonly rules?: readonly ParameterRule[];
}

/** Inputs that a later block's positions count by default: those that are there before anything is predicted. */
const given: readonly string[] = ['images', 'prompt', 'state', 'numbers'];

/** The model of a system at given sizes. */
export function configurationOf(system: System, sizes: ModelSizes): ModelConfiguration {
  const { backbone, vocabulary, expert, vision, depth, heads, kvHeads, headDimension, rules = [] } = sizes;
  const { horizon, actionDimension, stateDimension } = sizes;
  const present = system.blocks.filter(
    ({ input }) => (input !== 'images' || vision !== null) && (input !== 'state' || stateDimension > 0),
  );
  const names = present.map(({ name }) => name);
  const blocks = present.map(({ length, after, ...block }, i): BlockSettings => {
    const before = present.slice(0, i).filter(({ input }) => given.includes(input));
    const own = after?.filter((name) => names.includes(name)) ?? before.map(({ name }) => name);
    return { ...block, length: lengthOf({ ...block, length }, sizes), after: own };
  });
  const edges = Object.entries(system.attention).flatMap(([query, row]) =>
    Object.entries(row).flatMap(([key, edge]) =>
      names.includes(query) && names.includes(key) ? [{ query, key, edge }] : [],
    ),
  );
  const noisy = present.find(({ input }) => input === 'noisyActions');
  const experts = [...new Set(['backbone', ...present.map(({ weights }) => weights)])];
  const all = [...(system.rules ?? []), ...rules];
  return {
    backbone: system.backbone ?? 'gemma',
    ...(system.backboneVariant && { backboneVariant: system.backboneVariant }),
    vocabulary,
    experts: Object.fromEntries(
      experts.map((name) => {
        const adaptive = system.time === 'adaptive' && name === noisy?.weights;
        return [name, { ...(name === 'backbone' ? backbone : expert), ...(adaptive && { adaptive }) }];
      }),
    ),
    ...{ depth, heads, kvHeads, headDimension },
    vision: vision && visionOf(vision, system.towers ?? ['vision']),
    ...{ horizon, actionDimension, stateDimension },
    blocks,
    edges,
    objectives: system.objectives,
    ...(all.length > 0 && { rules: all }),
  };
}

function visionOf(
  { width, depth, heads, hidden, ...images }: NonNullable<ModelSizes['vision']>,
  towers: readonly string[],
) {
  return { ...images, towers: Object.fromEntries(towers.map((name) => [name, { width, depth, heads, hidden }])) };
}

function lengthOf({ input, length }: Pick<SystemBlock, 'input' | 'length'>, sizes: ModelSizes): number {
  const { vision, horizon, actionDimension } = sizes;
  if (length === 'elements') return horizon * actionDimension;
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
      return 1;
    default:
      return horizon;
  }
}
