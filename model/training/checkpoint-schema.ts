/** The schema of a checkpoint's metadata, checked before anything is built from it, so that an error names the damaged field. */
import * as v from 'valibot';
import { count, dictionary, float32, nonNegative32, positive32, share } from '../../engine/files/json-schema.ts';
import { attentionEntries, type ChosenVariants, matmulSizes } from '../../kernels/index.ts';
import { MOST_BINS } from '../../tokenizers/index.ts';
import { backboneNames, backboneVariantSchema } from '../architecture/backbones/index.ts';
import {
  blockInputs,
  initialValueKinds,
  type ModelConfiguration,
  type ParameterRule,
} from '../architecture/configuration.ts';
import { MOST_LAYERS, MOST_TOKENS } from '../architecture/limits.ts';
import { objectiveSchema } from '../architecture/objectives/settings.ts';
import { precisions } from '../architecture/precision.ts';
import { type SlotMap, statisticsSchema } from '../data/index.ts';
import type { EncodingSettings } from '../policy/encoding.ts';
import { publishedPrompts } from '../policy/token-ranges.ts';
import { historySchema } from './history.ts';
import { type RunSettings, runSettingsSchema } from './run-settings.ts';
import { type RunData, runDataSchema } from './same-run.ts';

/** The version of the format; it increases when the meaning of a checkpoint changes. */
export const CHECKPOINT_FORMAT = 5;

/** More blocks and experts than any model has, and few enough that a damaged number exhausts neither time nor memory. */
const MOST_BLOCKS = 64;
const texts = v.array(v.string());
const few = <T>(own: v.GenericSchema<unknown, T>) => dictionary(own, undefined, MOST_BLOCKS);
/** The length comes first: a list of a million objects is not looked through. */
const fewOf = <T>(own: v.GenericSchema<unknown, T>, most = MOST_BLOCKS) =>
  v.pipe(v.array(v.unknown()), v.maxLength(most), v.array(own));
const sizes = { width: count(1), hidden: count(1) };

const ruleSchema = v.object({
  match: v.string(),
  rate: v.optional(nonNegative32),
  frozen: v.optional(v.boolean()),
  gateBias: v.optional(float32),
}) satisfies v.GenericSchema<unknown, ParameterRule>;

export const configurationSchema = v.object({
  backbone: v.picklist(backboneNames),
  backboneVariant: v.optional(backboneVariantSchema),
  vocabulary: count(1),
  experts: few(
    v.object({
      ...sizes,
      adaptive: v.optional(v.boolean()),
      encoder: v.optional(v.boolean()),
      crossAttention: v.optional(v.object({ every: count(1), gated: v.boolean() })),
    }),
  ),
  depth: count(1, MOST_LAYERS),
  heads: count(1),
  kvHeads: count(1),
  headDimension: count(1),
  vision: v.nullable(
    v.object({
      towers: few(v.object({ ...sizes, depth: count(1, MOST_LAYERS), heads: count(1) })),
      patch: count(1),
      imageHeight: count(1),
      imageWidth: count(1),
      cameras: count(1),
      resampler: v.optional(
        v.object({
          ...{ latents: count(1, MOST_TOKENS), depth: count(1, MOST_LAYERS) },
          ...{ heads: count(1), headDimension: count(1), hidden: count(1) },
        }),
      ),
      towerPerCamera: v.optional(v.boolean()),
    }),
  ),
  horizon: count(1, MOST_TOKENS),
  actionDimension: count(1),
  stateDimension: count(),
  blocks: fewOf(
    v.object({
      name: v.string(),
      length: count(1, MOST_TOKENS),
      weights: v.string(),
      input: v.picklist(blockInputs),
      source: v.optional(v.string()),
      after: fewOf(v.string()),
      repeats: v.optional(count(1)),
      keys: v.optional(v.boolean()),
      memory: v.optional(v.boolean()),
      dimension: v.optional(count(1)),
    }),
  ),
  edges: fewOf(
    v.object({
      query: v.string(),
      key: v.string(),
      edge: v.object({
        mask: v.picklist(['none', 'full', 'causal']),
        window: v.optional(count(1)),
        keyGradient: share,
        valueGradient: share,
      }),
    }),
    MOST_BLOCKS ** 2,
  ),
  objectives: fewOf(objectiveSchema),
  history: v.optional(v.object({ window: count(1, MOST_TOKENS), interleaved: v.boolean() })),
  rules: v.optional(fewOf(ruleSchema)),
  lora: v.optional(v.object({ rank: count(1), alpha: v.optional(positive32), experts: fewOf(v.string()) })),
  precision: v.optional(v.picklist(precisions)),
  initialValues: v.optional(v.picklist(initialValueKinds)),
}) satisfies v.GenericSchema<unknown, ModelConfiguration>;

const slotSchema = v.object({
  name: v.string(),
  slot: count(),
  kind: v.picklist(['joint', 'joint velocity', 'position', 'rotation', 'gripper', 'base', 'other']),
  relative: v.boolean(),
});

const slotMapSchema = v.object({
  robot: v.string(),
  width: count(1),
  actions: v.array(slotSchema),
  state: v.array(slotSchema),
}) satisfies v.GenericSchema<unknown, SlotMap>;

export const encodingSchema = v.object({
  text: v.optional(v.looseObject({})),
  stateAsText: v.boolean(),
  prompt: v.optional(v.picklist(publishedPrompts)),
  stateTokens: v.optional(v.boolean()),
  stateBins: count(1, MOST_BINS),
  cameras: texts,
  statistics: v.nullable(statisticsSchema),
  relative: v.optional(v.array(v.boolean())),
  actions: v.nullable(v.looseObject({})),
  locations: v.optional(v.boolean()),
  leastRows: v.optional(count(1)),
  subtask: v.optional(
    v.object({ words: v.boolean(), places: count(0, MOST_TOKENS), locationStep: count(1, MOST_TOKENS) }),
  ),
  robots: v.optional(v.record(v.string(), v.object({ slots: slotMapSchema, statistics: statisticsSchema }))),
}) satisfies v.GenericSchema<unknown, EncodingSettings>;

const dtype = v.picklist(['f32', 'f16', 'bf16', 'u32']);
const attentionChoiceSchema = v.object({
  entry: v.picklist(attentionEntries),
  dtype,
  headDimension: count(1),
  variant: v.string(),
});
const matmulChoiceSchema = v.object({
  a: dtype,
  b: dtype,
  transposeA: v.boolean(),
  transposeB: v.boolean(),
  sides: v.picklist([1, 2]),
  size: v.picklist(matmulSizes),
  variant: v.string(),
});
const variantsSchema = v.object({
  attention: v.array(attentionChoiceSchema),
  matmul: v.array(matmulChoiceSchema),
}) satisfies v.GenericSchema<unknown, ChosenVariants>;

/** Everything in a checkpoint except tensors and progress. */
export interface CheckpointSettings {
  readonly run: RunSettings;
  readonly data: RunData;
  readonly configuration: ModelConfiguration;
  readonly encoding: EncodingSettings;
  /** Description of the adapter that trained; other adapters round differently. */
  readonly adapter: string;
  /** The kernel variants that trained. */
  readonly variants: ChosenVariants;
}

export const checkpointSchema = v.object({
  format: v.literal(CHECKPOINT_FORMAT),
  settings: v.object({
    run: runSettingsSchema,
    data: runDataSchema,
    configuration: configurationSchema,
    encoding: encodingSchema,
    adapter: v.string(),
    variants: variantsSchema,
  }) satisfies v.GenericSchema<unknown, CheckpointSettings>,
  progress: v.object({ step: count(), history: historySchema }),
  optimizerStep: count(),
  /** The file of the weights that low-rank adaptation keeps as they are, in the checkpoint's folder. */
  base: v.optional(v.object({ file: v.pipe(v.string(), v.regex(/^[^/\\]+$/)), checksum: count() })),
});

/** The steps done and the measurements of a run. */
export type TrainingProgress = Readonly<v.InferOutput<typeof checkpointSchema>['progress']>;
