/** The settings of objectives in a configuration: plain data, with the schemas that check it in a file. */
import * as v from 'valibot';
import { count, float32 } from '../../../engine/files/json-schema.ts';
import { trunkSchema } from '../heads/settings.ts';
import { MOST_LAYERS } from '../limits.ts';

const common = {
  /** Names its loss in histories, reports and gradients: 'token', 'flow', ... */
  name: v.string(),
  /** Factor of its loss in the sum that is trained. */
  weight: float32,
  /** Its head only helps to train: an exported model is without it. */
  auxiliary: v.optional(v.boolean()),
};

/** Next-token loss of the backbone, on the rows that the batch marks. */
const nextToken = v.object({
  kind: v.literal('nextToken'),
  ...common,
  /** The loss of an example is the sum of a mean for each of its targets, so that a short one weighs as much as a long one. */
  perTarget: v.optional(v.boolean()),
});

/** Flow matching, which predicts the velocity of a block of noisy actions, or diffusion, which predicts its noise; see process.ts. */
const diffusion = v.object({ kind: v.literal('diffusion'), ...common, block: v.string() });
const flow = v.object({
  ...diffusion.entries,
  kind: v.literal('flow'),
  /** Training-time real-time chunking: the most first actions of a training chunk that are clean, at a time 0 of their own. Default 0. */
  maximumDelay: v.optional(count()),
});

/**
 * The rows that a head reads: those of a block after the final norm; with `layer`, those of the residual stream that enters this
 * layer, counted from 0; or the features of a vision tower, a row for each patch.
 */
const rows = v.union([v.object({ block: v.string(), layer: v.optional(count()) }), v.object({ tower: v.string() })]);

/** Numbers by regression: the actions of the chunk, or numbers of the batch for each row. */
const regression = v.object({
  kind: v.literal('regression'),
  ...common,
  rows,
  error: v.picklist(['l1', 'squared', 'huber']),
  /** Numbers in a row of the batch's targets; without it the target is the chunk of actions. */
  dimension: v.optional(count(1)),
  /** Rows of one control step: its actions are predicted from their hidden states side by side. Default 1. */
  rowsPerStep: v.optional(count(1)),
  /** The hidden states are those one row before, as in next-token prediction. */
  before: v.optional(v.boolean()),
  /**
   * OpenVLA-OFT's residual MLP of this width, or RoboVLMs' policy head, which predicts the chunk of a control step from all rows of a
   * block side by side; default: an affine map of each row.
   */
  head: v.optional(
    v.union([
      v.object({ width: count(1), blocks: count(0, MOST_LAYERS) }),
      v.object({ kind: v.literal('policy'), trunk: trunkSchema }),
    ]),
  ),
  /** The last dimension of the actions is a gripper, which the policy head chooses; its loss, a cross-entropy, counts by `weight`. */
  gripper: v.optional(v.object({ weight: float32 })),
});

/** A class for each row, by a linear map. */
const classification = v.object({
  kind: v.literal('classification'),
  ...common,
  rows,
  classes: count(2),
  /** A mean over examples of means over the classes that each has, so that a class of few rows weighs as much as one of many. */
  balanced: v.optional(v.boolean()),
});

/** Denoising of the chunk by a small network on the features of a control step: its rows side by side; see denoising-head.ts. */
const denoisingHead = v.object({
  kind: v.literal('denoisingHead'),
  ...common,
  rows,
  /** Turns the features of the control steps of a window into those that the network reads. */
  trunk: v.optional(trunkSchema),
  process: v.picklist(['flow', 'diffusion']),
  /** Width of the network, an even number; default: that of the features that it reads. */
  width: v.optional(count(4)),
  /** Its residual layers. Default 3. */
  layers: v.optional(count(0, MOST_LAYERS)),
});

export const objectiveSchema = v.variant('kind', [
  nextToken,
  flow,
  diffusion,
  regression,
  classification,
  denoisingHead,
]);

export type RowsOf = Readonly<v.InferOutput<typeof rows>>;
export type NextTokenSettings = Readonly<v.InferOutput<typeof nextToken>>;
export type DenoisingSettings = Readonly<v.InferOutput<typeof flow> | v.InferOutput<typeof diffusion>>;
export const maximumDelayOf = (settings: ObjectiveSettings): number =>
  settings.kind === 'flow' ? (settings.maximumDelay ?? 0) : 0;
export type RegressionSettings = Readonly<v.InferOutput<typeof regression>>;
export type ClassificationSettings = Readonly<v.InferOutput<typeof classification>>;
export type DenoisingHeadSettings = Readonly<v.InferOutput<typeof denoisingHead>>;
export type ObjectiveSettings =
  | NextTokenSettings
  | DenoisingSettings
  | DenoisingHeadSettings
  | RegressionSettings
  | ClassificationSettings;
