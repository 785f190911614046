/** Names and shapes of all parameters, as in the public PyTorch checkpoints of pi0 and pi0.5. */
import type { ParameterSpecification, Shape } from '../../engine/index.ts';
import { type ModelConfiguration, tokensPerImage, type VisionSizes } from './configuration.ts';

export const prefixes = {
  vision: 'paligemma_with_expert.paligemma.model.vision_tower.vision_model',
  projector: 'paligemma_with_expert.paligemma.model.multi_modal_projector.linear',
  backbone: 'paligemma_with_expert.paligemma.model.language_model',
  expert: 'paligemma_with_expert.gemma_expert.model',
} as const;

/** The distribution of a parameter's initial values; see initialise.ts. */
type Initialisation = 'zero' | 'one' | 'embedding' | 'position' | 'matrix';

export interface ModelParameter extends ParameterSpecification {
  readonly group: 'vision' | 'backbone' | 'expert';
  readonly initialisation: Initialisation;
}

export function parametersOf(configuration: ModelConfiguration): ModelParameter[] {
  const { backbone, expert, vision, depth } = configuration;
  const made: ModelParameter[] = [];
  const collect = (group: ModelParameter['group']) => (name: string, shape: Shape, initialisation: Initialisation) => {
    made.push({ name, shape, group, initialisation });
  };
  if (vision) visionParameters(collect('vision'), vision, backbone.width);
  collect('backbone')(`${prefixes.backbone}.embed_tokens.weight`, [backbone.vocabulary, backbone.width], 'embedding');
  transformerParameters(collect('backbone'), prefixes.backbone, configuration, backbone, depth, false);
  if (expert) {
    const add = collect('expert');
    transformerParameters(add, prefixes.expert, configuration, expert, depth, expert.time === 'adaptive');
    actionParameters(add, configuration);
  }
  return made;
}

type Add = (name: string, shape: Shape, initialisation: Initialisation) => void;

function affine(add: Add, name: string, outputs: number, inputs: number): void {
  add(`${name}.weight`, [outputs, inputs], 'matrix');
  add(`${name}.bias`, [outputs], 'zero');
}

function visionParameters(add: Add, vision: VisionSizes, backboneWidth: number): void {
  const { width, depth, hidden, patch } = vision;
  const norm = (name: string) => {
    add(`${name}.weight`, [width], 'one');
    add(`${name}.bias`, [width], 'zero');
  };
  const root = prefixes.vision;
  add(`${root}.embeddings.patch_embedding.weight`, [width, 3, patch, patch], 'matrix');
  add(`${root}.embeddings.patch_embedding.bias`, [width], 'zero');
  add(`${root}.embeddings.position_embedding.weight`, [tokensPerImage(vision), width], 'position');
  for (let layer = 0; layer < depth; layer++) {
    const at = `${root}.encoder.layers.${layer}`;
    norm(`${at}.layer_norm1`);
    norm(`${at}.layer_norm2`);
    for (const projection of ['q_proj', 'k_proj', 'v_proj', 'out_proj'])
      affine(add, `${at}.self_attn.${projection}`, width, width);
    affine(add, `${at}.mlp.fc1`, hidden, width);
    affine(add, `${at}.mlp.fc2`, width, hidden);
  }
  norm(`${root}.post_layernorm`);
  affine(add, prefixes.projector, backboneWidth, width);
}

function transformerParameters(
  add: Add,
  root: string,
  { heads, kvHeads, headDimension }: ModelConfiguration,
  { width, hidden }: { width: number; hidden: number },
  depth: number,
  adaptive: boolean,
): void {
  const norm = (name: string) => {
    if (!adaptive) return add(`${name}.weight`, [width], 'zero');
    add(`${name}.dense.weight`, [3 * width, width], 'zero');
    add(`${name}.dense.bias`, [3 * width], 'zero');
  };
  for (let layer = 0; layer < depth; layer++) {
    const at = `${root}.layers.${layer}`;
    norm(`${at}.input_layernorm`);
    add(`${at}.self_attn.q_proj.weight`, [heads * headDimension, width], 'matrix');
    add(`${at}.self_attn.k_proj.weight`, [kvHeads * headDimension, width], 'matrix');
    add(`${at}.self_attn.v_proj.weight`, [kvHeads * headDimension, width], 'matrix');
    add(`${at}.self_attn.o_proj.weight`, [width, heads * headDimension], 'matrix');
    norm(`${at}.post_attention_layernorm`);
    add(`${at}.mlp.gate_proj.weight`, [hidden, width], 'matrix');
    add(`${at}.mlp.up_proj.weight`, [hidden, width], 'matrix');
    add(`${at}.mlp.down_proj.weight`, [width, hidden], 'matrix');
  }
  norm(`${root}.norm`);
}

function actionParameters(add: Add, { expert, actionDimension, stateDimension, blocks }: ModelConfiguration): void {
  const { width, time } = expert!;
  affine(add, 'action_in_proj', width, actionDimension);
  affine(add, 'action_out_proj', actionDimension, width);
  if (blocks.some((block) => block.input === 'state')) affine(add, 'state_proj', width, stateDimension);
  const name = time === 'adaptive' ? 'time_mlp' : 'action_time_mlp';
  affine(add, `${name}_in`, width, time === 'adaptive' ? width : 2 * width);
  affine(add, `${name}_out`, width, width);
}
