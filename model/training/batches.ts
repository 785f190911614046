import { type Random, randomStream, streams } from '../../engine/index.ts';
import type { BlockSettings, ModelConfiguration } from '../architecture/configuration.ts';
import type { TrainingBatch } from '../architecture/inputs.ts';
import { type Objective, objectivesOf } from '../architecture/objectives/index.ts';
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
import type { Encoding, RawObservation } from '../policy/encoding.ts';
import type { RunSettings } from './run-settings.ts';
import { targetTokens } from './targets.ts';
import type { Maker, Making } from './trainer.ts';

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
export class BatchMaker implements Maker<Example> {
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

  /** A part of a batch has the noise, times and augmentation that it has in the whole. */
  async make(
    listed: readonly Example[],
    step: number,
    { use = 'measuring', first = 0 }: Making = {},
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
    const { target, counts } = this;
    const ids = parts.map((part) => part.ids);
    const tokens = target && targetTokens(configuration, encoding.endOfSequence, observation, [{ block: target, ids }]);
    if (target) {
      counts.examples += ids.length;
      counts.truncated += ids.filter(({ length }) => length > target.length).length;
    }
    const actions = new Float32Array(examples.length * size);
    parts.forEach(({ data }, i) => {
      actions.set(data, i * size);
    });
    const drawn = this.objectives.map((objective) => objective.draw?.(random, examples.length, first));
    return {
      ...observation,
      ...(tokens ?? { lossTarget: null, lossMask: null }),
      actions,
      noise: null,
      time: null,
      actionValid: Uint8Array.from(parts.flatMap(({ valid }) => [...valid])),
      realDimensions: robots ? Uint8Array.from(parts.flatMap(({ real }) => [...real!])) : null,
      ...Object.assign({}, ...drawn),
      observations,
    };
  }
}
