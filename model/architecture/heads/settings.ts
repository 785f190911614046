/** The settings of trunks in a configuration: plain data, with the schemas that check it in a file. */
import * as v from 'valibot';
import { count } from '../../../engine/files/json-schema.ts';
import { MOST_LAYERS } from '../limits.ts';

/** Width of a trunk's outputs; by default that of the features that it reads, and 1024 in RoboVLMs. */
const width = v.optional(count(1));

export const trunkSchema = v.variant('kind', [
  /** Two affine maps; the hidden layer between them has half the width of the features. */
  v.object({ kind: v.literal('mlp'), width }),
  /** Default: 4 layers. */
  v.object({ kind: v.literal('lstm'), width, layers: v.optional(count(1, MOST_LAYERS)) }),
  /** Default: 8 layers of 8 heads. */
  v.object({
    kind: v.literal('transformer'),
    width,
    layers: v.optional(count(1, MOST_LAYERS)),
    heads: v.optional(count(1)),
  }),
]);

export type TrunkSettings = Readonly<v.InferOutput<typeof trunkSchema>>;
