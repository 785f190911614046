import { type Random, randomStream, streams } from '../../engine/index.ts';
import { type BlockSettings, type ModelConfiguration, sourceOf } from '../architecture/configuration.ts';
import type { ObservationBatch, TrainingBatch } from '../architecture/inputs.ts';
import { type Objective, objectivesOf } from '../architecture/objectives/index.ts';
import { lastRowsBefore, rowsOf, trainingBlocks } from '../architecture/sequence.ts';
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

/** A training batch together with the observations that it was made from. */
export interface MadeBatch extends TrainingBatch {
  readonly observations: readonly RawObservation[];
}

/** The normalised chunk of a sample [horizon * actionDimension]; zero for a question. */
export function chunkOf({ batch, actions }: TrainingBatch, sample: number): Float32Array {
  const size = actions!.length / batch;
  return actions!.subarray(sample * size, (sample + 1) * size);
}

/** The observation at a control step of an episode. */
export async function observationAt(sample: Sample, cameras: readonly string[]): Promise<RawObservation> {
  const { part, step, instruction, subtask } = sample;
  const { episode } = part;
  const images: Record<string, Image | null> = {};
  for (const camera of cameras) images[camera] = await episode.image(camera, step);
  const request = subtask === undefined ? 'actions' : 'subtask';
  return { images, state: stateAt(episode, step), instruction, robot: episode.robot, request };
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

/** Makes batches from examples of any kind. Noise and times depend on seed and step alone, so a batch can be made again. */
export class BatchMaker {
  /** Examples with target tokens that were made so far, and those among them that were truncated to the model's target block. */
  readonly counts = { examples: 0, truncated: 0 };

  private readonly objectives: readonly Objective[];
  /** The block of the tokens to be predicted; null for systems without. */
  private readonly target: BlockSettings | null;

  constructor(
    private readonly encoding: Encoding,
    private readonly configuration: ModelConfiguration,
    private readonly settings: Pick<RunSettings, 'seed' | 'augment'>,
  ) {
    this.objectives = objectivesOf(configuration);
    this.target = configuration.blocks.find(({ input }) => input === 'target') ?? null;
  }

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
    const original = await Promise.all(
      examples.map((own) => ('part' in own ? observationAt(own, cameras) : questionObservation(own, cameras))),
    );
    const observations =
      use === 'training' && settings.augment
        ? augmented(original, cameras, configuration, random(streams.augmentation), first)
        : original;
    const size = horizon * actionDimension;
    const parts = examples.map((example, i) => {
      if (!('part' in example)) {
        const [data, valid, real] = [new Float32Array(size), new Uint8Array(horizon), new Uint8Array(actionDimension)];
        return { data, valid, real, ids: encoding.answerTokens(example.answer) };
      }
      const { part, step, subtask } = example;
      const { robot } = part.episode;
      const { data: raw, valid } = chunk(part, step, horizon);
      const data = encoding.normaliseActions(raw, observations[i]);
      const actionIds = this.target ? encoding.actionTokens(data, horizon, robot) : [];
      const before = subtask === undefined ? [] : encoding.subtaskTokens(subtask);
      return { data, valid, real: encoding.realDimensions(robot), ids: [...before, ...actionIds] };
    });
    const observation = encoding.observe(observations, configuration);
    const tokens = this.target && this.tokens(this.target, parts, observation);
    const actions = new Float32Array(examples.length * size);
    parts.forEach(({ data }, i) => {
      actions.set(data, i * size);
    });
    const drawn = this.objectives.map((objective) => objective.draw?.(random, examples.length, first));
    return {
      ...observation,
      ids: tokens ? { ...observation.ids, ...tokens.ids } : observation.ids,
      lossTarget: tokens?.lossTarget ?? null,
      lossMask: tokens?.lossMask ?? null,
      actions,
      noise: null,
      time: null,
      actionValid: Uint8Array.from(parts.flatMap(({ valid }) => [...valid])),
      realDimensions: robots ? Uint8Array.from(parts.flatMap(({ real }) => [...real!])) : null,
      ...Object.assign({}, ...drawn),
      observations,
    };
  }

  /**
   * The last real row before the target predicts its first token, each token the next, and the last the end of sequence. The rows are
   * those of the backbone.
   */
  private tokens(
    target: BlockSettings,
    parts: readonly { readonly ids: Int32Array | readonly number[] }[],
    observation: ObservationBatch,
  ) {
    const { configuration, counts } = this;
    const blocks = trainingBlocks(configuration);
    const own = rowsOf(blocks, target.name);
    const last = lastRowsBefore(configuration, observation, blocks, target);
    const lossTarget = new Int32Array(parts.length * own.of);
    const lossMask = new Uint8Array(parts.length * own.of);
    counts.examples += parts.length;
    counts.truncated += parts.filter(({ ids }) => ids.length > target.length).length;
    parts.forEach(({ ids }, sample) => {
      // A truncated target has no end-of-sequence token: its last row predicts the first token that was cut off.
      const predicted = [...ids, this.encoding.endOfSequence].slice(0, target.length + 1);
      predicted.forEach((id, i) => {
        const row = sample * own.of + (i === 0 ? last[sample] : own.start + i - 1);
        lossTarget[row] = id;
        lossMask[row] = 1;
      });
    });
    const sequences = parts.map(({ ids }) => ids.slice(0, target.length));
    return { ids: { [sourceOf(target)]: padIds(sequences, target.length) }, lossTarget, lossMask };
  }
}
