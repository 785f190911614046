/** A small vision-language model with random weights and auxiliary heads, as after pretraining. */
import type { Device } from '../../engine/index.ts';
import type { ModelConfiguration } from '../../model/architecture/configuration.ts';
import { Model } from '../../model/architecture/model.ts';
import { Encoding, type EncodingSettings } from '../../model/policy/encoding.ts';
import { configurationOf, systemNamed } from '../../model/systems/index.ts';
import { type Made, saveVisionLanguageModel } from '../../model/training/vision-language-file.ts';
import { defaultTokenizerJson } from '../../tokenizers/index.ts';
import { minutePreset } from './synthetic-dataset.ts';

export const made: Made = {
  ...{ command: 'insula pretrain', commit: 'abc', adapter: 'test', steps: 3, seconds: 1.5 },
  scores: { 'place within 4 pixels': 0.5, colours: null },
};

export const seeingEncoding: EncodingSettings = {
  text: defaultTokenizerJson(),
  stateAsText: true,
  stateBins: minutePreset.stateBins,
  cameras: ['front'],
  statistics: null,
  actions: null,
  locations: true,
};

/** A model of `minutePreset`'s sizes. */
export function seeingModel(device: Device, encoding = seeingEncoding, preset = minutePreset): Model {
  const { image, ...vision } = preset.vision;
  const plain = configurationOf(systemNamed('pi0-fast'), {
    ...preset,
    vocabulary: new Encoding(encoding).vocabularySize,
    vision: { ...vision, imageHeight: image, imageWidth: image, cameras: 1 },
    ...{ promptTokens: 24, targetTokens: 8, horizon: 1, actionDimension: 1, stateDimension: 0 },
  });
  const configuration: ModelConfiguration = {
    ...plain,
    objectives: [
      ...plain.objectives,
      { kind: 'classification', name: 'kind', weight: 1, auxiliary: true, rows: { tower: 'vision' }, classes: 5 },
    ],
  };
  const model = new Model(device, configuration);
  model.initialise(7);
  return model;
}

/** Writes the file of such a model. */
export async function writeSeeing(path: string, device: Device, encoding = seeingEncoding, preset = minutePreset) {
  using model = seeingModel(device, encoding, preset);
  await saveVisionLanguageModel(path, model, encoding, made);
}
