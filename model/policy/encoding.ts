/** Between a robot's units and the model's: normalised numbers, prompts, token ids and images, the same in training and acting. */
import { InputError, quote } from '../../engine/errors.ts';
import { actionIdsAfterText, digitizeState, FastTokenizer, promptText, TextTokenizer } from '../../tokenizers/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import type { Ids, Observation } from '../architecture/inputs.ts';
import type { Image } from '../data/dataset.ts';
import { type DatasetStatistics, normaliseImage, normalisers, resizeWithPadding } from '../data/index.ts';

/** All that a checkpoint keeps to encode as training did. Plain JSON. */
export interface EncodingSettings {
  /** The state as numbers in the prompt. */
  readonly stateAsText: boolean;
  /** Bins of each state dimension. */
  readonly stateBins: number;
  /** Camera names in the order of the model's image slots. */
  readonly cameras: readonly string[];
  readonly statistics: DatasetStatistics;
  /** A FastTokenizer's JSON, for systems with discrete action tokens. */
  readonly fast: ReturnType<FastTokenizer['toJSON']> | null;
}

/** What a robot knows at one moment, in its own units. */
export interface RawObservation {
  /** By camera name; a camera that is missing is masked. */
  readonly images: Readonly<Record<string, Image | null>>;
  readonly state: ArrayLike<number> | null;
  readonly instruction: string | null;
}

export interface ChunkWriter {
  /** The id in the joint vocabulary that `choose` takes of those that can come next; null behind a whole chunk. */
  write(choose: (allowed: Int32Array) => number): number | null;
  /** The normalised chunk; one that is not whole ends in zeros. */
  decode(): Float32Array;
}

export class Encoding {
  readonly text = TextTokenizer.default();
  readonly fast: FastTokenizer | null;
  private readonly normalise: ReturnType<typeof normalisers>;

  constructor(readonly settings: EncodingSettings) {
    this.fast = settings.fast && FastTokenizer.fromJSON(settings.fast);
    this.normalise = normalisers(settings.statistics);
  }

  /** Rows of the embedding: text pieces, then action tokens. */
  get vocabularySize(): number {
    return this.actionIds?.vocabularySize ?? this.text.vocabularySize;
  }

  get endOfSequence(): number {
    return this.text.special.eos;
  }

  private get actionIds() {
    return this.fast && actionIdsAfterText({ textSize: this.text.vocabularySize, size: this.fast.vocabularySize });
  }

  /** Ids of the prompt, beginning of sequence included. `state` in raw units. */
  promptIds({ instruction, state }: Pick<RawObservation, 'instruction' | 'state'>): Int32Array {
    const { stateAsText, stateBins } = this.settings;
    const bins =
      stateAsText && state && this.normalise.states
        ? digitizeState(this.normalise.states.normalise(Float32Array.from(state)), { bins: stateBins })
        : undefined;
    return this.text.encode(promptText({ instruction: instruction ?? undefined, state: bins }), { bos: true });
  }

  /** Ids in the joint vocabulary of a normalised chunk, without the end of sequence. */
  actionTokens(data: Float32Array, horizon: number): Int32Array {
    if (!this.fast || !this.actionIds) throw new Error('this system has no discrete action tokens');
    return this.actionIds.toVocabulary(this.fast.encode({ data, horizon, dimension: data.length / horizon }));
  }

  /** Writes one chunk token by token. */
  chunkWriter(shape: { horizon: number; dimension: number }): ChunkWriter {
    const { fast, actionIds } = this;
    if (!fast || !actionIds) throw new Error('this system has no discrete action tokens');
    const grammar = fast.grammar(shape);
    const written: number[] = [];
    let state = 0;
    return {
      write(choose) {
        if (state === grammar.complete) return null;
        const id = choose(actionIds.toVocabulary(grammar.allowed(state)));
        const [action] = actionIds.toActions([id]);
        written.push(action);
        state = grammar.next(state, action);
        return id;
      },
      decode: () => Float32Array.from(fast.decodeRelaxed(Int32Array.from(written), shape).data),
    };
  }

  /** [rows, dimension] in raw units -> normalised. */
  normaliseActions(actions: Float32Array): Float32Array {
    return this.normalise.actions.normalise(actions);
  }

  denormaliseActions(actions: Float32Array): Float32Array {
    return this.normalise.actions.denormalise(actions);
  }

  /** A batch of observations as the model takes them. Throws InputError where an instruction is longer than the context. */
  observe(observations: readonly RawObservation[], configuration: ModelConfiguration): Observation {
    const language = configuration.blocks.find((block) => block.name === 'language')!;
    const prompts = observations.map((observation) => {
      const ids = this.promptIds(observation);
      if (ids.length > language.length)
        throw new InputError(
          `instruction ${quote(observation.instruction)} makes a prompt of ${ids.length} tokens; this model's context holds ${language.length}: shorten it`,
        );
      return ids;
    });
    const { images, cameraValid } = this.images(observations, configuration);
    return {
      batch: observations.length,
      images,
      cameraValid,
      ids: { language: padIds(prompts, language.length) },
      state: this.state(observations, configuration),
    };
  }

  private images(observations: readonly RawObservation[], { vision }: ModelConfiguration) {
    if (!vision) return { images: null, cameraValid: null };
    const { imageHeight, imageWidth, cameras } = vision;
    const size = imageHeight * imageWidth * 3;
    const images = new Float32Array(observations.length * cameras * size);
    const cameraValid = new Uint8Array(observations.length * cameras);
    observations.forEach((observation, sample) => {
      this.settings.cameras.forEach((name, camera) => {
        const image = observation.images[name];
        if (!image) return;
        const slot = sample * cameras + camera;
        normaliseImage(resizeWithPadding(image, imageWidth, imageHeight), images, slot * size);
        cameraValid[slot] = 1;
      });
    });
    return { images, cameraValid };
  }

  private state(
    observations: readonly RawObservation[],
    { blocks, stateDimension }: ModelConfiguration,
  ): Float32Array | null {
    if (!blocks.some((block) => block.input === 'state')) return null;
    const state = new Float32Array(observations.length * stateDimension);
    observations.forEach((observation, sample) => {
      if (!observation.state || !this.normalise.states)
        throw new InputError('this model needs a state, and the observation has none');
      state.set(this.normalise.states.normalise(Float32Array.from(observation.state)), sample * stateDimension);
    });
    return state;
  }
}

/** Sequences padded on the right with id 0 to [sequences, length]. */
export function padIds(
  sequences: readonly ArrayLike<number>[],
  length: number,
): Ids & { ids: Int32Array; valid: Uint8Array } {
  const ids = new Int32Array(sequences.length * length);
  const valid = new Uint8Array(sequences.length * length);
  sequences.forEach((sequence, row) => {
    ids.set(sequence, row * length);
    valid.fill(1, row * length, row * length + sequence.length);
  });
  return { ids, valid };
}
