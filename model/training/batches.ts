import { type Random, randomStream, streams } from '../../engine/index.ts';
import { sampleTimes } from '../../kernels/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import type { TrainingBatch } from '../architecture/inputs.ts';
import type { Image } from '../data/dataset.ts';
import {
  augment,
  chunk,
  colourAugmentation,
  type Example,
  loadExamples,
  resizeWithPadding,
  type Sample,
  stateAt,
  type VisionLanguage,
} from '../data/index.ts';
import { type Encoding, padIds, type RawObservation } from '../policy/encoding.ts';
import type { RunSettings } from './run-settings.ts';

/** A training batch together with the examples that it was made from. */
export interface MadeBatch extends TrainingBatch {
  readonly examples: readonly Example[];
  readonly observations: readonly RawObservation[];
  /** [batch, horizon * actionDimension], normalised; zero for vision-language examples. */
  readonly chunks: readonly Float32Array[];
  /** Target ids of the token loss, by example: a text, action tokens or both, then the end of sequence. */
  readonly targets: readonly number[][];
}

/** The observation at a control step of an episode. */
export async function observationAt(sample: Sample, cameras: readonly string[]): Promise<RawObservation> {
  const { part, step, instruction } = sample;
  const { episode } = part;
  const images: Record<string, Image | null> = {};
  for (const camera of cameras) images[camera] = await episode.image(camera, step);
  return { images, state: stateAt(episode, step), instruction, robot: episode.robot };
}

async function observationOf(example: Example, cameras: readonly string[]): Promise<RawObservation> {
  if (example.kind === 'action') return observationAt(example.sample, cameras);
  if (example.kind === 'action with language')
    return { ...(await observationAt(example.sample, cameras)), request: 'subtask' };
  return questionObservation(example.question, cameras);
}

/** A question as an observation; its image takes the place of the first camera's. */
export async function questionObservation(
  { image, prompt }: Pick<VisionLanguage, 'image' | 'prompt'>,
  cameras: readonly string[],
): Promise<RawObservation> {
  return { images: { [cameras[0]]: await image() }, state: null, instruction: prompt, request: 'answer' };
}

/** Augmentation as in openpi (model.py), at the model's image size. Images of wrist cameras only change their colours. */
function augmented(
  observations: readonly RawObservation[],
  cameras: readonly string[],
  { vision }: ModelConfiguration,
  random: Random,
  first: number,
): RawObservation[] {
  if (!vision) return [...observations];
  return observations.map((observation, sample) => {
    const images = cameras.map((camera, i) => {
      const image = observation.images[camera];
      if (!image) return [camera, null];
      const how = /wrist/i.test(camera) ? colourAugmentation : undefined;
      const resized = resizeWithPadding(image, vision.imageWidth, vision.imageHeight);
      return [camera, augment(resized, random, (first + sample) * cameras.length + i, how)];
    });
    return { ...observation, images: Object.fromEntries(images) };
  });
}

/** Whether element `i` of the actions is robot data, and not padding at an episode's end or in a padded dimension. */
export function isDemonstrated({ batch, actions, actionValid, realDimensions }: MadeBatch, i: number): boolean {
  const size = actions!.length / batch;
  const width = actions!.length / actionValid!.length;
  const real = realDimensions?.[Math.floor(i / size) * width + (i % width)] ?? 1;
  return actionValid![Math.floor(i / width)] === 1 && real === 1;
}

/** The most rows of an example that have a token loss: the last row of the prompt, and all rows of the token block after it. */
export function lossRowsOf({ blocks }: ModelConfiguration): number {
  return 1 + (blocks.find(({ name }) => name === 'fast')?.length ?? 0);
}

/** Makes batches from examples of any kind. Noise and times depend on seed and step alone, so a batch can be made again. */
export class BatchMaker {
  /** Examples with target tokens that were made so far, and those among them that were truncated to the token block. */
  readonly counts = { examples: 0, truncated: 0 };

  constructor(
    private readonly encoding: Encoding,
    private readonly configuration: ModelConfiguration,
    private readonly settings: Pick<RunSettings, 'seed' | 'augment'>,
  ) {}

  /**
   * The batch of training step `step`, or the part of it that begins with example number `first`: a part has the noise, times and
   * augmentation that it has in the whole batch. Images are augmented only for training, and if the settings say so.
   */
  async make(
    listed: readonly Example[],
    step: number,
    { use = 'measuring', first = 0 }: { use?: 'training' | 'measuring'; first?: number } = {},
  ): Promise<MadeBatch> {
    const { encoding, configuration, settings } = this;
    const { horizon, actionDimension } = configuration;
    const { cameras, robots } = encoding.settings;
    const random = (stream: number): Random => randomStream(settings.seed, step, stream);
    const examples = await loadExamples(listed);
    const original = await Promise.all(examples.map((example) => observationOf(example, cameras)));
    const observations =
      use === 'training' && settings.augment
        ? augmented(original, cameras, configuration, random(streams.augmentation), first)
        : original;
    const size = horizon * actionDimension;
    const parts = examples.map((example, i) => {
      if (example.kind === 'vision-language') {
        const [data, valid, real] = [new Float32Array(size), new Uint8Array(horizon), new Uint8Array(actionDimension)];
        return { data, valid, real, ids: encoding.answerTokens(example.question.answer) };
      }
      const { part, step } = example.sample;
      const { robot } = part.episode;
      const { data: raw, valid } = chunk(part, step, horizon);
      const data = encoding.normaliseActions(raw, observations[i]);
      const actionIds = configuration.losses.token ? encoding.actionTokens(data, horizon, robot) : [];
      const before = example.kind === 'action' ? [] : encoding.subtaskTokens(example.answer);
      return { data, valid, real: encoding.realDimensions(robot), ids: [...before, ...actionIds] };
    });
    const observation = encoding.observe(observations, configuration);
    const tokens = configuration.losses.token ? this.tokens(parts, observation.ids.language.valid) : null;
    const noise = new Float32Array(examples.length * size);
    random(streams.noise).fillNormal(noise, first * size);
    const actions = new Float32Array(noise.length);
    parts.forEach(({ data }, i) => {
      actions.set(data, i * size);
    });
    return {
      ...observation,
      ids: tokens ? { ...observation.ids, fast: tokens.fast } : observation.ids,
      lossTarget: tokens?.lossTarget ?? null,
      lossMask: tokens?.lossMask ?? null,
      actions,
      noise,
      time: sampleTimes(random(streams.time), examples.length, first),
      actionValid: Uint8Array.from(parts.flatMap(({ valid }) => [...valid])),
      realDimensions: robots ? Uint8Array.from(parts.flatMap(({ real }) => [...real!])) : null,
      examples,
      observations,
      chunks: parts.map(({ data }) => data),
      targets: tokens?.targets ?? [],
    };
  }

  /** The last real row of the prompt predicts the first token, each token the next, and the last the end of sequence. */
  private tokens(parts: readonly { readonly ids: Int32Array | readonly number[] }[], languageValid: ArrayLike<number>) {
    const { blocks } = this.configuration;
    const backbone = blocks.filter((block) => block.weights === 'backbone');
    const rows = backbone.reduce((sum, block) => sum + block.length, 0);
    const startOf = (name: string) =>
      backbone
        .slice(
          0,
          backbone.findIndex((block) => block.name === name),
        )
        .reduce((sum, block) => sum + block.length, 0);
    const [language, fast] = ['language', 'fast'].map((name) => ({
      start: startOf(name),
      length: backbone.find((block) => block.name === name)!.length,
    }));
    const lossTarget = new Int32Array(parts.length * rows);
    const lossMask = new Uint8Array(parts.length * rows);
    this.counts.examples += parts.length;
    this.counts.truncated += parts.filter(({ ids }) => ids.length > fast.length).length;
    const sequences = parts.map(({ ids }) => ids.slice(0, fast.length));
    // A truncated target has no end-of-sequence token: its last row predicts the first token that was cut off.
    const targets = parts.map(({ ids }) => [...ids, this.encoding.endOfSequence].slice(0, fast.length + 1));
    targets.forEach((own, sample) => {
      let last = language.length - 1;
      while (last > 0 && !languageValid[sample * language.length + last]) last -= 1;
      own.forEach((id, i) => {
        const row = sample * rows + (i === 0 ? language.start + last : fast.start + i - 1);
        lossTarget[row] = id;
        lossMask[row] = 1;
      });
    });
    return { fast: padIds(sequences, fast.length), lossTarget, lossMask, targets };
  }
}
