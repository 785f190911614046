import * as v from 'valibot';
import { InputError, quote } from '../../../engine/files/errors.ts';
import { float32, positive32 } from '../../../engine/files/json-schema.ts';
import type { Backbone } from './backbone.ts';
import { gemma } from './gemma.ts';
import { llama } from './llama.ts';

export type { Backbone } from './backbone.ts';

export const backboneNames = ['gemma', 'llama'] as const;
export type BackboneName = (typeof backboneNames)[number];

/** A new family is a file beside these, and a line here. */
const backbones: Readonly<Record<BackboneName, Backbone>> = { gemma, llama };

/** The settings in which models of one family differ; see `Backbone`. The family decides those that are missing. */
export const backboneVariantSchema = v.strictObject({
  tied: v.optional(v.boolean()),
  epsilon: v.optional(positive32),
  rotary: v.optional(
    v.strictObject({
      base: v.optional(v.pipe(float32, v.gtValue(1))),
      layout: v.optional(v.picklist(['halves', 'pairs'])),
    }),
  ),
});
export type BackboneVariant = Readonly<v.InferOutput<typeof backboneVariantSchema>>;

/** @throws InputError if there is no such family */
export function backboneOf({
  backbone,
  backboneVariant: { tied, epsilon, rotary } = {},
}: {
  readonly backbone: BackboneName;
  readonly backboneVariant?: BackboneVariant;
}): Backbone {
  if (!Object.hasOwn(backbones, backbone))
    throw new InputError(`there is no backbone ${quote(backbone)}; there are ${backboneNames.join(', ')}`);
  const family = backbones[backbone];
  return {
    ...family,
    tied: tied ?? family.tied,
    norm: { ...family.norm, epsilon: epsilon ?? family.norm.epsilon },
    rotary: { base: rotary?.base ?? family.rotary.base, layout: rotary?.layout ?? family.rotary.layout },
  };
}
