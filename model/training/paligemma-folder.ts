/** The vision-language part of a model as a folder that transformers opens as PaliGemma: weights, config.json and tokenizer. */
import { InputError } from '../../engine/files/errors.ts';
import { writeSafetensors } from '../../engine/files/safetensors-writer.ts';
import { locationNames } from '../../tokenizers/index.ts';
import { backboneOf } from '../architecture/backbones/index.ts';
import { Architecture, type Model } from '../architecture/model.ts';
import { Encoding, type EncodingSettings } from '../policy/encoding.ts';
import { tokenizerFiles } from './lerobot-policy.ts';
import { PUBLIC_FILE } from './public-tensors.ts';
import { tensorToWrite } from './saved-model.ts';
import { askingConfiguration } from './vision-language-file.ts';

/** The names of the parameters are transformers' own below this root. */
const ROOT = 'paligemma_with_expert.paligemma.';

/**
 * Writes a vision-language model, or that of a policy. The file of config.json comes last: without it no program opens the folder.
 *
 * @throws InputError if PaliGemma computes something else, or for errors of the file system
 */
export async function writePaliGemma(folder: string, model: Model, settings: EncodingSettings): Promise<void> {
  const { backbone, backboneVariant, experts, vision, precision, ...sizes } = model.configuration;
  const towers = Object.entries(vision?.towers ?? {});
  const refusal = (why: string) => new InputError(`PaliGemma is another model: ${why}`);
  if (backbone !== 'gemma' || backboneVariant) throw refusal(`this one has a backbone of ${backbone} or a variant`);
  if (!vision || towers.length !== 1 || vision.imageHeight !== vision.imageWidth)
    throw refusal(`this one has ${towers.length} vision towers, or images that are not square`);
  const { parameters } = model;
  const kept = new Architecture(askingConfiguration(model.configuration)).parameters;
  const odd = kept.find(({ name }) => !name.startsWith(ROOT) || !parameters.has(name));
  if (odd) throw refusal(`${odd.name} has no place in it`);
  const { join } = await import('node:path');
  const { ensureFolder, writeJson } = await import('../../engine/files/files.ts');
  await ensureFolder(folder);
  const write = (name: string, json: unknown) => writeJson(join(folder, name), json);
  const dtypeOf = (name: string) => (parameters.get(name).dtype === 'bf16' ? 'BF16' : 'F32');
  const tensors = kept.map(({ name }) => ({
    ...tensorToWrite(name, parameters.get(name), dtypeOf(name)),
    name: name.slice(ROOT.length),
  }));
  await writeSafetensors(join(folder, PUBLIC_FILE), tensors, { metadata: { format: 'pt' } });

  const encoding = new Encoding(settings);
  const text = tokenizerFiles(settings.text, placesAndImage(encoding, settings, sizes.vocabulary));
  await write('tokenizer.json', text.tokenizer);
  await write('tokenizer_config.json', text.config);
  const { width, hidden } = experts.backbone;
  const [[, tower]] = towers;
  const { special } = encoding.text;
  const { norm, rotary } = backboneOf({ backbone });
  await write('config.json', {
    ...{ architectures: ['PaliGemmaForConditionalGeneration'], model_type: 'paligemma' },
    ...{ image_token_index: sizes.vocabulary, projection_dim: width, hidden_size: width },
    ...{ bos_token_id: special.bos, eos_token_id: special.eos, pad_token_id: special.pad },
    torch_dtype: precision === 'bf16' ? 'bfloat16' : 'float32',
    text_config: {
      ...{ model_type: 'gemma', hidden_size: width, intermediate_size: hidden, vocab_size: sizes.vocabulary },
      ...{ num_hidden_layers: sizes.depth, num_attention_heads: sizes.heads, num_key_value_heads: sizes.kvHeads },
      ...{ head_dim: sizes.headDimension, rms_norm_eps: norm.epsilon, rope_theta: rotary.base },
      ...{ num_image_tokens: (vision.imageHeight / vision.patch) ** 2, hidden_activation: 'gelu_pytorch_tanh' },
      ...{ bos_token_id: special.bos, eos_token_id: special.eos, pad_token_id: special.pad },
    },
    vision_config: {
      ...{ model_type: 'siglip_vision_model', hidden_size: tower.width, intermediate_size: tower.hidden },
      ...{ num_hidden_layers: tower.depth, num_attention_heads: tower.heads, projection_dim: width },
      ...{ image_size: vision.imageHeight, patch_size: vision.patch, vision_use_head: false },
    },
  });
}

/** PaliGemma's location tokens, where the model has them, and its placeholder of images behind the last row of the embeddings. */
function placesAndImage({ text }: Encoding, { locations }: EncodingSettings, rows: number) {
  const places = locations ? locationNames().map((content, i) => ({ id: text.vocabularySize + i, content })) : [];
  return [...places, { id: rows, content: '<image>' }];
}
