/** The model of knowledge insulation a second time, as its formulas read: its losses in float64, made of the reference operations. */

import * as reference from '../../kernels/reference/index.ts';
import { backboneOf } from './backbones/index.ts';
import type { ModelConfiguration } from './configuration.ts';
import type { Inputs } from './inputs.ts';
import type { Architecture } from './model.ts';
import { trainingBlocks } from './sequence.ts';

type Values = ReadonlyMap<string, Float64Array>;

/** Rows of `width` numbers through the linear layer of a name. */
const denseOf =
  (values: Values) =>
  (x: reference.Numbers, name: string, width: number, others?: Parameters<typeof reference.linear>[3]) =>
    reference.linear(x, values.get(`${name}.weight`)!, width, { bias: values.get(`${name}.bias`), ...others });

/** One image tower and its projection: tokens [batch, patches, width of the backbone]. */
function imageTokens(configuration: ModelConfiguration, values: Values, images: reference.Numbers) {
  const { imageHeight: height, imageWidth: width, patch, towers } = configuration.vision!;
  const { names } = backboneOf(configuration);
  const tower = towers.vision;
  const dense = denseOf(values);
  const root = names.tower('vision', true);
  const get = (name: string) => values.get(`${root}.${name}`)!;
  const norm = (x: Float64Array, name: string) => reference.layerNorm(x, get(`${name}.weight`), get(`${name}.bias`));
  const patches = ['patch_embedding.weight', 'patch_embedding.bias', 'position_embedding.weight'];
  const parts = [images, ...patches.map((name) => get(`embeddings.${name}`))];
  let x = reference.patchEmbedding(parts, { height, width, patch });
  const length = (height * width) / patch ** 2;
  const batch = x.length / (length * tower.width);
  const sizes = { batch, heads: tower.heads, kvHeads: tower.heads, headDimension: tower.width / tower.heads };
  const table = {
    layout: { blocks: [{ name: 'image', length }] },
    cells: [[{ mask: 'full' as const, keyGradient: 1, valueGradient: 1 }]],
  };
  for (let layer = 0; layer < tower.depth; layer++) {
    const own = (name: string) => `encoder.layers.${layer}.${name}`;
    const through = (rows: Float64Array, name: string, inputs = tower.width, others = {}) =>
      dense(rows, `${root}.${own(name)}`, inputs, others);
    const normed = norm(x, own('layer_norm1'));
    const [query, key, value] = ['q', 'k', 'v'].map((name) => through(normed, `self_attn.${name}_proj`));
    const validity = new Uint8Array(batch * length).fill(1);
    const { output } = reference.attention({ table, ...sizes, validity, query, key, value });
    const residual = through(output, 'self_attn.out_proj', tower.width, { residual: x });
    const hidden = through(norm(residual, own('layer_norm2')), 'mlp.fc1', tower.width, { activation: 'gelu' });
    x = through(hidden, 'mlp.fc2', tower.hidden, { residual });
  }
  return dense(norm(x, 'post_layernorm'), names.projector, tower.width);
}

/** The token loss and the flow loss, from `trainingInputs`. */
export function exactLosses(
  architecture: Architecture,
  values: Values,
  inputs: Inputs,
): { token: number; flow: number } {
  const { configuration } = architecture;
  const { heads, kvHeads, headDimension: D, depth, experts, actionDimension } = configuration;
  const { names } = backboneOf(configuration);
  const widths = [experts.backbone.width, experts.expert.width];
  const prefixes = ['backbone', 'expert'].map((name) => names.expert(name));
  const get = (name: string) => values.get(name)!;
  const given = (name: string): reference.Numbers => inputs[name].data;
  const dense = denseOf(values);
  const blocks = trainingBlocks(configuration);
  const layout = blocks.map(({ weights, length }) => ({ input: weights === 'backbone' ? 0 : 1, length }));
  const [batch] = inputs.validity.shape;
  const table = architecture.table(blocks);

  const embedding = get(`${names.embedding}.weight`);
  const embedded = (block: string) =>
    reference.embedding(given(`ids/${block}`), embedding, widths[0], Math.sqrt(widths[0]));
  const { noisy, target } = reference.flowInterpolate(given('flow/actions'), given('flow/noise'), given('flow/time'));
  const times = dense(given('timeEmbedding'), 'time_mlp_in', widths[1], { activation: 'swish' });
  const condition = dense(times, 'time_mlp_out', widths[1], { activation: 'swish' });
  const first = [imageTokens(configuration, values, given('images')), embedded('language'), embedded('target')];
  let x = [reference.concatenateTokens(first, batch), dense(noisy, 'action_in_proj', actionDimension)];

  const modulation = (name: string) => dense(condition, `${prefixes[1]}.${name}.dense`, widths[1]);
  const normed = (name: string) => [
    reference.rmsNorm(x[0], get(`${prefixes[0]}.${name}.weight`)),
    reference.adaptiveRmsNorm(x[1], modulation(name), widths[1]),
  ];
  const added = ([branch, gated]: Float64Array[], name: string) => [
    reference.add(x[0], branch),
    reference.gatedResidual(x[1], gated, modulation(name), widths[1]),
  ];
  for (let layer = 0; layer < depth; layer++) {
    const own = (name: string) => `layers.${layer}.${name}`;
    const weights = (name: string) => prefixes.map((prefix) => get(`${prefix}.${own(name)}.weight`));
    const rows = normed(own('input_layernorm'));
    const project = (name: string) => reference.blockLinear(rows, weights(`self_attn.${name}_proj`), layout, batch);
    const turned = (numbers: Float64Array, count: number) => reference.rotary(numbers, given('rotaryTable'), count, D);
    const { output } = reference.attention({
      ...{ table, batch, heads, kvHeads, headDimension: D, validity: given('validity'), value: project('v') },
      query: turned(project('q'), heads),
      key: turned(project('k'), kvHeads),
    });
    const branches = reference.blockSplitLinear(output, weights('self_attn.o_proj'), layout, batch);
    x = added(branches, own('input_layernorm'));
    const [gates, ups, downs] = ['gate', 'up', 'down'].map((name) => weights(`mlp.${name}_proj`));
    const mlp = normed(own('post_attention_layernorm')).map((norm, i) =>
      reference.gatedMlp([norm, gates[i], ups[i], downs[i]], widths[i]),
    );
    x = added(mlp, own('post_attention_layernorm'));
  }
  const [hidden, ofExpert] = normed('norm');
  const tokens = { targets: given('lossTarget'), mask: given('lossMask'), tokens: inputs.lossMask.shape[1] };
  const velocity = dense(ofExpert, 'action_out_proj', widths[1]);
  return {
    token: reference.linearCrossEntropy(hidden, embedding, tokens)[0],
    flow: reference.meanLoss(reference.errors.meanSquaredError, velocity, target)[0],
  };
}
