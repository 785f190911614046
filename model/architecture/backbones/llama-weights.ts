/** Pretrained Llama language models: one safetensors file under Meta's or Hugging Face's names, into a model. */
import { InputError, quote } from '../../../engine/files/errors.ts';
import { readSafetensors, type SafetensorsFile } from '../../../engine/index.ts';
import type { Model } from '../model.ts';
import { backboneOf } from './index.ts';

const metaNames: Readonly<Record<string, string>> = {
  'model.embed_tokens': 'tok_embeddings',
  'model.norm': 'norm',
  lm_head: 'output',
};

/** In a layer. */
const metaPartNames: Readonly<Record<string, string>> = {
  input_layernorm: 'attention_norm',
  'self_attn.q_proj': 'attention.wq',
  'self_attn.k_proj': 'attention.wk',
  'self_attn.v_proj': 'attention.wv',
  'self_attn.o_proj': 'attention.wo',
  post_attention_layernorm: 'ffn_norm',
  'mlp.gate_proj': 'feed_forward.w1',
  'mlp.up_proj': 'feed_forward.w3',
  'mlp.down_proj': 'feed_forward.w2',
};

/** Tables of rotary angles, which the configuration determines. */
const ROTARY_TABLE = /(^|\.)(rope\.freqs|rotary_emb\.inv_freq)$/;

/** Meta's name of a parameter of the language model, from Hugging Face's; null for other parameters. */
export function metaName(name: string): string | null {
  const at = name.replace(/\.weight$/, '');
  const [, layer, part] = /^model\.(layers\.\d+)\.(.+)$/.exec(at) ?? [];
  const own = layer === undefined ? metaNames[at] : metaPartNames[part] && `${layer}.${metaPartNames[part]}`;
  return own ? `${own}.weight` : null;
}

/**
 * The rows of a query or key matrix [heads * headDimension, width] in the order for rotary embedding on halves or on pairs, from
 * the other order: in each head, row 2i + p for pairs is row p D/2 + i for halves. (Hugging Face, convert_llama_weights_to_hf.py.)
 */
export function rowsForRotary(
  weight: Float32Array,
  headDimension: number,
  width: number,
  layout: 'halves' | 'pairs',
): Float32Array {
  const moved = new Float32Array(weight.length);
  for (let row = 0; row < weight.length / width; row++) {
    const i = row % headDimension;
    const inHalves = row - i + (i % 2) * (headDimension / 2) + Math.floor(i / 2);
    const [from, to] = layout === 'halves' ? [row, inHalves] : [inHalves, row];
    moved.set(weight.subarray(from * width, (from + 1) * width), to * width);
  }
  return moved;
}

/**
 * Loads a pretrained language model into a model with a Llama backbone: `await loadLlama(model, 'model.safetensors')`.
 *
 * The file has Meta's names and rotates pairs, or Hugging Face's names and rotates halves; where the model rotates the other way,
 * the rows of query and key are reordered. Parameters beside the language model (vision, other experts, heads of objectives) keep
 * their values. Nothing is written unless names and shapes fit.
 *
 * @param source a path (node), a Blob, bytes, or any byte source
 * @throws InputError that says what is missing, does not fit or has no place in the model
 */
export async function loadLlama(model: Model, source: Parameters<typeof readSafetensors>[0]): Promise<void> {
  const { configuration } = model;
  const { name: family, rotary } = backboneOf(configuration);
  if (family !== 'llama') throw new InputError(`the model's backbone is ${quote(family)}; Llama weights need "llama"`);
  const file = await readSafetensors(source);
  try {
    const isMeta = file.has('tok_embeddings.weight');
    const own = [...model.parameters].flatMap((parameter) => {
      const name = metaName(parameter.name);
      return name === null ? [] : [{ parameter, name: isMeta ? name : parameter.name }];
    });
    expectSame(
      file,
      own.map(({ name }) => name),
    );
    for (const { parameter, name } of own) file.entry(name, { shape: parameter.shape });
    const layout = isMeta ? 'pairs' : 'halves';
    for (const { parameter, name } of own) {
      const isRotated = /\.self_attn\.[qk]_proj\./.test(parameter.name) && rotary.layout !== layout;
      if (!isRotated) {
        await file.readInto(name, parameter);
        continue;
      }
      const { shape } = parameter;
      const values = await file.readFinite(name, { shape });
      parameter.write(rowsForRotary(values, configuration.headDimension, shape[1], rotary.layout));
    }
  } finally {
    await file.close();
  }
}

/** The file has these tensors and no other. */
function expectSame(file: SafetensorsFile, names: readonly string[]): void {
  const missing = names.filter((name) => !file.has(name));
  const extra = [...file.tensors.keys()].filter((name) => !names.includes(name) && !ROTARY_TABLE.test(name));
  const [listed, complaint] = missing.length > 0 ? [missing, 'lacks'] : [extra, 'has, and the model has no place for,'];
  if (listed.length === 0) return;
  const more = listed.length > 3 ? ` and ${listed.length - 3} more` : '';
  const isHead = listed.every((name) => /^(lm_head|output)\.weight$/.test(name));
  const remedy = isHead
    ? `make the model with backboneVariant { tied: ${missing.length > 0} }`
    : 'its depth, or its kind of model, is another';
  throw new InputError(
    `${file.name}: the file ${complaint} ${listed.slice(0, 3).map(quote).join(', ')}${more}: ${remedy}`,
  );
}
