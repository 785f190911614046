import { type Random, randomStream, streams } from '../../engine/index.ts';
import { sampleTimes } from '../../kernels/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import type { TrainingBatch } from '../architecture/inputs.ts';
import type { Image } from '../data/dataset.ts';
import { augment, chunk, colourAugmentation, loadSamples, resizeWithPadding, type Sample } from '../data/index.ts';
import { type Encoding, padIds, type RawObservation } from '../policy/encoding.ts';

/** A batch, and what is needed to look at it again. */
export interface MadeBatch extends TrainingBatch {
  readonly samples: readonly Sample[];
  readonly observations: readonly RawObservation[];
  /** [batch, horizon * actionDimension], normalised. */
  readonly chunks: readonly Float32Array[];
  /** Ids that the token loss is to predict, by sample: action tokens and the end of sequence. */
  readonly targets: readonly number[][];
}

/** What the robot knew at a control step of an episode. */
export async function observationAt(sample: Sample, cameras: readonly string[]): Promise<RawObservation> {
  const { part, step, instruction } = sample;
  const { episode } = part;
  const images: Record<string, Image | null> = {};
  for (const camera of cameras) images[camera] = await episode.image(camera, step);
  const dimension = episode.states ? episode.states.length / episode.length : 0;
  const state = episode.states?.subarray(step * dimension, (step + 1) * dimension) ?? null;
  return { images, state, instruction, robot: episode.robot };
}

/** As openpi trains (model.py): images at the model's size, and those of the wrist, which are the robot's own frame, in their colours alone. */
function augmented(
  observations: readonly RawObservation[],
  cameras: readonly string[],
  { vision }: ModelConfiguration,
  random: Random,
): RawObservation[] {
  if (!vision) return [...observations];
  return observations.map((observation, sample) => {
    const images = cameras.map((camera, i) => {
      const image = observation.images[camera];
      if (!image) return [camera, null];
      const how = /wrist/i.test(camera) ? colourAugmentation : undefined;
      const resized = resizeWithPadding(image, vision.imageWidth, vision.imageHeight);
      return [camera, augment(resized, random, sample * cameras.length + i, how)];
    });
    return { ...observation, images: Object.fromEntries(images) };
  });
}

/** Whether element `i` of the actions was demonstrated: neither past the end of its episode nor a dimension that its robot lacks. */
export function isDemonstrated({ batch, actions, actionValid, realDimensions }: MadeBatch, i: number): boolean {
  const size = actions!.length / batch;
  const width = actions!.length / actionValid!.length;
  const real = realDimensions?.[Math.floor(i / size) * width + (i % width)] ?? 1;
  return actionValid![Math.floor(i / width)] === 1 && real === 1;
}

/** Most rows of a sample that a batch asks a token of: the last of the prompt, and all action tokens. */
export function lossRowsOf({ blocks }: ModelConfiguration): number {
  return 1 + (blocks.find(({ name }) => name === 'fast')?.length ?? 0);
}

export interface BatchOptions {
  /** Images cropped, rotated and recoloured, as (seed, step) draws it. */
  readonly augment?: boolean;
}

/** Makes batches from samples; noise and times are drawn by (seed, step), so a batch can be made again. */
export class BatchMaker {
  constructor(
    private readonly encoding: Encoding,
    private readonly configuration: ModelConfiguration,
    private readonly seed: number,
  ) {}

  async make(listed: readonly Sample[], step: number, options: BatchOptions = {}): Promise<MadeBatch> {
    const samples = await loadSamples(listed);
    const { encoding, configuration } = this;
    const { horizon, actionDimension } = configuration;
    const { cameras } = encoding.settings;
    const random = (stream: number): Random => randomStream(this.seed, step, stream);
    const seen = await Promise.all(samples.map((sample) => observationAt(sample, cameras)));
    const observations = options.augment ? augmented(seen, cameras, configuration, random(streams.augmentation)) : seen;
    const raw = samples.map(({ part, step }) => chunk(part, step, horizon));
    const chunks = raw.map(({ data }, sample) => encoding.normaliseActions(data, observations[sample].robot));
    const observation = encoding.observe(observations, configuration);
    const tokens = configuration.losses.token ? this.tokens(chunks, observation.ids.language.valid, samples) : null;
    const realDimensions = observations.map(({ robot }) => encoding.realDimensions(robot));
    const noise = new Float32Array(samples.length * horizon * actionDimension);
    random(streams.noise).fillNormal(noise);
    const actions = new Float32Array(noise.length);
    chunks.forEach((values, sample) => {
      actions.set(values, sample * horizon * actionDimension);
    });
    return {
      ...observation,
      ids: tokens ? { ...observation.ids, fast: tokens.fast } : observation.ids,
      lossTarget: tokens?.lossTarget ?? null,
      lossMask: tokens?.lossMask ?? null,
      actions,
      noise,
      time: sampleTimes(random(streams.time), samples.length),
      actionValid: Uint8Array.from(raw.flatMap(({ valid }) => Array.from(valid))),
      realDimensions: realDimensions.includes(null)
        ? null
        : Uint8Array.from(realDimensions.flatMap((own) => [...own!])),
      samples,
      observations,
      chunks,
      targets: tokens?.targets ?? [],
    };
  }

  /** The last real row of the prompt predicts the first action token, every action token the next, the last the end of sequence. */
  private tokens(chunks: readonly Float32Array[], languageValid: ArrayLike<number>, samples: readonly Sample[]) {
    const { blocks, horizon } = this.configuration;
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
    const lossTarget = new Int32Array(chunks.length * rows);
    const lossMask = new Uint8Array(chunks.length * rows);
    const sequences = chunks.map((values, sample) => {
      const ids = this.encoding.actionTokens(values, horizon, samples[sample].part.episode.robot);
      if (ids.length > fast.length)
        throw new Error(
          `episode "${samples[sample].part.episode.id}", step ${samples[sample].step}: ${ids.length} action tokens; the layout holds ${fast.length}`,
        );
      return ids;
    });
    const targets = sequences.map((ids) => [...ids, this.encoding.endOfSequence]);
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
