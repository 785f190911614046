import { InputError, quote, type Random, randomStream, streams } from '../../engine/index.ts';
import { type BlockSettings, type ModelConfiguration, windowOf } from '../architecture/configuration.ts';
import type { TrainingBatch } from '../architecture/inputs.ts';
import { type Objective, objectivesOf } from '../architecture/objectives/index.ts';
import type { Episode, Image } from '../data/dataset.ts';
import {
  chunk,
  type Example,
  loadExamples,
  resizeWithPadding,
  type Sample,
  stateAt,
  type VisionLanguage,
} from '../data/index.ts';
import type { Encoding, RawObservation } from '../policy/encoding.ts';
import { inModelPicture, type PicturePlace, type Said } from '../policy/subtask.ts';
import { SUBTASK } from '../systems/index.ts';
import { augment, colourAugmentation } from './augmentation.ts';
import type { RunSettings } from './run-settings.ts';
import { type TargetIds, targetTokens } from './targets.ts';
import type { Maker, Making } from './trainer.ts';

/** A training batch together with the observations of its control steps. */
export interface MadeBatch extends TrainingBatch {
  readonly observations: readonly RawObservation[];
}

/** The normalised chunk of a control step [horizon * actionDimension]; zero for a question. */
export function chunkOf({ batch, actions }: TrainingBatch, sample: number): Float32Array {
  const size = actions!.length / batch;
  return actions!.subarray(sample * size, (sample + 1) * size);
}

/** The subtask at a control step of an episode, with places in the model's picture; it has none without a picture. */
export function saidAt(
  episode: Episode,
  step: number,
  image: Image | null | undefined,
  { vision }: Pick<ModelConfiguration, 'vision'>,
): Said {
  const words = episode.subtask?.(step) ?? '';
  const places = episode.places?.(step) ?? [];
  return image && vision ? inModelPicture({ words, places }, image, vision) : { words, places: [] };
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

interface Step extends Sample {
  readonly isRepeated: boolean;
}

/**
 * The control steps of the window that ends with a sample, oldest first. A step before the beginning of the sample's part repeats the
 * first one there, without its actions.
 */
function stepsOfWindow(sample: Sample, window: number): Step[] {
  const { part, step } = sample;
  return Array.from({ length: window }, (_, i) => {
    const own = step - window + 1 + i;
    return { ...sample, step: Math.max(own, part.from), isRepeated: own < part.from };
  });
}

/** The observations of the window that ends with a sample, oldest first. */
export async function observationsAt(
  sample: Sample,
  cameras: readonly string[],
  configuration: Pick<ModelConfiguration, 'history'>,
): Promise<RawObservation[]> {
  const steps = stepsOfWindow(sample, windowOf(configuration));
  const own = steps.filter(({ isRepeated }) => !isRepeated);
  const seen = await Promise.all(own.map((step) => observationAt(step, cameras)));
  return [...Array<RawObservation>(steps.length - own.length).fill(seen[0]), ...seen];
}

/** A question as an observation; its image takes the place of the first camera's. */
export async function questionObservation(
  { image, prompt }: Pick<VisionLanguage, 'image' | 'prompt'>,
  cameras: readonly string[],
): Promise<RawObservation> {
  return { images: { [cameras[0]]: await image() }, state: null, instruction: prompt, request: 'answer' };
}

/**
 * Augmentation as in openpi (model.py), at the model's image size. Images of wrist cameras, and those of the first camera if places are
 * said in them (`pointing`, and answers), only change their colours. The control steps of a window change alike: what moves between
 * them moves in the scene.
 */
function augmented(
  observations: readonly RawObservation[],
  cameras: readonly string[],
  { vision, history }: ModelConfiguration,
  random: Random,
  first: number,
  pointing: boolean,
): RawObservation[] {
  if (!vision) return [...observations];
  return observations.map((observation, step) => {
    const example = first + Math.floor(step / windowOf({ history }));
    const images = cameras.map((camera, i) => {
      const image = observation.images[camera];
      if (!image) return [camera, null];
      const hasPlaces = i === 0 && (pointing || observation.request === 'answer');
      const how = hasPlaces || /wrist/i.test(camera) ? colourAugmentation : undefined;
      const resized = resizeWithPadding(image, vision.imageWidth, vision.imageHeight);
      return [camera, augment(resized, random, example * cameras.length + i, how)];
    });
    return { ...observation, images: Object.fromEntries(images) };
  });
}

/** Root mean square of the noise on places that are read in training, in pixels, and the most numbers of places with noise. */
const [PLACE_NOISE, PLACE_NUMBERS] = [0.7, 16];

/** Makes batches from examples of any kind. Noise and times depend on seed and step alone, so a batch can be made again. */
export class BatchMaker implements Maker<Example> {
  /** Examples with target tokens that were made so far, and those among them that were truncated to the model's target block. */
  readonly counts = { examples: 0, truncated: 0 };

  private readonly objectives: readonly Objective[];
  /** The block of the tokens to be predicted; null for systems without. */
  private readonly target: BlockSettings | null;
  /** The block of the subtask; null for policies that say none. */
  private readonly subtask: BlockSettings | null;

  constructor(
    private readonly encoding: Encoding,
    private readonly configuration: ModelConfiguration,
    private readonly settings: Pick<RunSettings, 'seed' | 'augment'>,
  ) {
    this.objectives = objectivesOf(configuration);
    const targets = configuration.blocks.filter(({ input }) => input === 'target');
    this.target = targets.find(({ name }) => name !== SUBTASK) ?? null;
    this.subtask = targets.find(({ name }) => name === SUBTASK) ?? null;
  }

  /** The batch has all control steps of each example. A part of a batch has the noise, times and augmentation that it has in the whole. */
  async make(
    listed: readonly Example[],
    step: number,
    { use = 'measuring', first = 0 }: Making = {},
  ): Promise<MadeBatch> {
    const { encoding, configuration, settings } = this;
    const { horizon, actionDimension } = configuration;
    const { cameras, robots } = encoding.settings;
    const random = (stream: number): Random => randomStream(settings.seed, step, stream);
    const loaded = await loadExamples(listed);
    const window = windowOf(configuration);
    const seen = await Promise.all(
      loaded.map((own) =>
        'part' in own ? observationsAt(own, cameras, configuration) : questionObservation(own, cameras),
      ),
    );
    const original = seen.flat();
    const examples = loaded.flatMap((own): (Step | VisionLanguage)[] =>
      'part' in own ? stepsOfWindow(own, window) : [own],
    );
    const pointing = (encoding.settings.subtask?.places ?? 0) > 0;
    const observations =
      use === 'training' && settings.augment
        ? augmented(original, cameras, configuration, random(streams.augmentation), first, pointing)
        : original;
    const size = horizon * actionDimension;
    const noise = (example: number) => {
      const numbers = new Float32Array(PLACE_NUMBERS);
      random(streams.places).fillNormal(numbers, example * PLACE_NUMBERS);
      return (number: number) => (numbers[number] ?? 0) * (PLACE_NOISE / configuration.vision!.imageWidth);
    };
    const parts = examples.map((example, i) => {
      if (!('part' in example)) {
        const [data, valid, real] = [new Float32Array(size), new Uint8Array(horizon), new Uint8Array(actionDimension)];
        return { data, valid, real, said: null, target: { ids: [...encoding.answerTokens(example.answer)] } };
      }
      const { part, step, subtask, isRepeated } = example;
      const { robot } = part.episode;
      const { data: raw, valid } = chunk(part, step, horizon);
      if (isRepeated) valid.fill(0);
      const data = encoding.normaliseActions(raw, observations[i]);
      const actionIds = this.target ? encoding.actionTokens(data, horizon, robot) : [];
      const said = this.subtask && this.said(example, original[i], use === 'training' ? noise(first + i) : null);
      const introduction = encoding.subtask?.introduction ?? [];
      const before = subtask === undefined ? introduction : encoding.subtaskTokens(subtask);
      const target = { ids: [...before, ...actionIds], fixed: introduction.length };
      return { data, valid, real: encoding.realDimensions(robot), said, target };
    });
    const { target, counts } = this;
    const observation = encoding.observe(observations, configuration);
    const saidIds = parts.map(({ said }) => said?.ids ?? []);
    const numbers = this.subtask && encoding.numbers(saidIds, observations, configuration);
    const targets = [
      ...(this.subtask ? [{ block: this.subtask, examples: parts.map(({ said }) => said) }] : []),
      ...(target ? [{ block: target, examples: parts.map((part) => part.target) }] : []),
    ];
    if (target) {
      counts.examples += parts.length;
      counts.truncated += parts.filter((part) => part.target.ids.length > target.length).length;
    }
    const actions = new Float32Array(examples.length * size);
    parts.forEach(({ data }, i) => {
      actions.set(data, i * size);
    });
    const drawn = this.objectives.map((objective) => objective.draw?.(random, examples.length, first * window));
    return {
      ...observation,
      numbers: { ...observation.numbers, ...numbers },
      ...(targets.length > 0
        ? targetTokens(configuration, encoding.endOfSequence, observation, targets)
        : { lossTarget: null, lossMask: null }),
      actions,
      noise: null,
      time: null,
      actionValid: Uint8Array.from(parts.flatMap(({ valid }) => [...valid])),
      realDimensions: robots ? Uint8Array.from(parts.flatMap(({ real }) => [...real!])) : null,
      ...Object.assign({}, ...drawn),
      observations,
    };
  }

  /** The tokens of the subtask at a control step. With `noise`, those that are read lie a little beside those that are predicted. */
  private said(
    { part: { episode }, step }: Sample,
    observation: RawObservation,
    noise: ((number: number) => number) | null,
  ): TargetIds {
    const { encoding, configuration } = this;
    const image = observation.images[encoding.settings.cameras[0]];
    const { words, places } = saidAt(episode, step, image, configuration);
    const predicted = encoding.subtask!.encode({ words, places });
    const { length } = this.subtask!;
    if (predicted.length > length)
      throw new InputError(
        `episode ${quote(episode.id)}: its subtask ${quote(words)} at step ${step} has ${predicted.length} tokens; this model takes at most ${length}: shorten it`,
      );
    if (!noise) return { ids: predicted };
    const beside = places.map(([down, across], i): PicturePlace => [down + noise(2 * i), across + noise(2 * i + 1)]);
    return { ids: encoding.subtask!.encode({ words, places: beside }), predicted };
  }
}
