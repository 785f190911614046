/** Between a robot's units and the model's: normalised numbers, prompts, token ids and images, the same in training and acting. */
import { InputError, quote } from '../../engine/files/errors.ts';
import {
  type ActionIds,
  decodeWithLocations,
  digitizeState,
  encodePieces,
  encodeWithLocations,
  FastTokenizer,
  LOCATIONS,
  prompts,
  promptText,
  rangesAfterText,
  TextTokenizer,
} from '../../tokenizers/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import type { Ids, ObservationBatch } from '../architecture/inputs.ts';
import type { Image } from '../data/dataset.ts';
import {
  absoluteActions,
  type DatasetStatistics,
  fromSlots,
  normaliseImage,
  normalisers,
  relativeActions,
  resizeWithPadding,
  type SlotMap,
  slotMask,
  toSlots,
} from '../data/index.ts';

/** All that a checkpoint keeps to encode as training did. Plain JSON. */
export interface EncodingSettings {
  /** The text vocabulary, a tokenizer.json; the default one where it is not said. */
  readonly text?: object;
  /** The state as numbers in the prompt. */
  readonly stateAsText: boolean;
  /** Bins of each state dimension. */
  readonly stateBins: number;
  /** Camera names in the order of the model's image slots. */
  readonly cameras: readonly string[];
  /** null of a mixture of robots, which have their own. */
  readonly statistics: DatasetStatistics | null;
  /** A FastTokenizer's JSON, for systems with discrete action tokens. */
  readonly fast: ReturnType<FastTokenizer['toJSON']> | null;
  /** Location tokens between text and action tokens, for answers that point. */
  readonly locations?: boolean;
  /** Of a mixture, by name. */
  readonly robots?: Readonly<Record<string, { readonly slots: SlotMap; readonly statistics: DatasetStatistics }>>;
}

/** What a robot knows at one moment, in its own units. */
export interface RawObservation {
  /** By camera name; a camera that is missing is masked. */
  readonly images: Readonly<Record<string, Image | null>>;
  readonly state: ArrayLike<number> | null;
  readonly instruction: string | null;
  /** What is to be predicted: actions (default), the next subtask before them, or the answer to `instruction`, a question. */
  readonly asks?: 'actions' | 'subtask' | 'answer';
  /** Whose, where the model is of a mixture of robots. */
  readonly robot?: string;
}

/** Of an observation, what its actions go by. */
type Measured = Pick<RawObservation, 'robot' | 'state'>;

/** How the numbers of a robot become those of the model. */
interface Robot {
  readonly normalise: ReturnType<typeof normalisers>;
  /** null where its dimensions are the model's. */
  readonly slots: SlotMap | null;
}

export interface ChunkWriter {
  /** The id in the joint vocabulary that `choose` takes of those that can come next; null behind a whole chunk. */
  write(choose: (allowed: Int32Array) => number): number | null;
  /** The normalised chunk; one that is not whole ends in zeros. */
  decode(): Float32Array;
}

export class Encoding {
  readonly text: TextTokenizer;
  readonly fast: FastTokenizer | null;
  private readonly ranges: Partial<Record<'location' | 'action', ActionIds>>;
  /** By name; the only one of a model that knows no other has none. */
  private readonly robots: ReadonlyMap<string | undefined, Robot>;

  constructor(readonly settings: EncodingSettings) {
    this.text = settings.text ? new TextTokenizer(settings.text) : TextTokenizer.default();
    this.fast = settings.fast && FastTokenizer.fromJSON(settings.fast);
    const { statistics, locations, robots = {} } = settings;
    const sizes: Record<string, number> = {};
    if (locations) sizes.location = LOCATIONS;
    if (this.fast) sizes.action = this.fast.vocabularySize;
    this.ranges = rangesAfterText(this.text.vocabularySize, sizes);
    const own: [string | undefined, Robot][] = Object.entries(robots).map(([name, { slots, statistics }]) => [
      name,
      { normalise: normalisers(statistics), slots },
    ]);
    if (statistics) own.push([undefined, { normalise: normalisers(statistics), slots: null }]);
    this.robots = new Map(own);
  }

  /** Rows of the embedding: text pieces, then location tokens where there are any, then action tokens. */
  get vocabularySize(): number {
    return (this.ranges.action ?? this.text).vocabularySize;
  }

  get endOfSequence(): number {
    return this.text.special.eos;
  }

  isAction(id: number): boolean {
    return this.ranges.action?.isAction(id) ?? false;
  }

  /** Ids of the prompt, beginning of sequence included. `state` in raw units. */
  promptIds({ instruction, state, robot, asks }: Omit<RawObservation, 'images'>): Int32Array {
    if (asks === 'answer') return encodePieces(this.text, prompts.paligemma({ instruction }).before);
    const { stateAsText, stateBins } = this.settings;
    const { normalise } = this.robot(robot);
    const bins =
      stateAsText && state && normalise.states
        ? digitizeState(normalise.states.normalise(Float32Array.from(state)), { bins: stateBins })
        : undefined;
    const text = promptText({ instruction: instruction ?? undefined, state: bins });
    return this.text.encode(asks === 'subtask' ? text.replace(/Action: $/, 'Subtask: ') : text, { bos: true });
  }

  /** Ids in the joint vocabulary of an answer, whose places are location tokens, without the end of sequence. */
  answerTokens(answer: string): Int32Array {
    const { location } = this.ranges;
    if (!location) throw new Error('this system has no location tokens: it was not made for answers');
    return encodeWithLocations(answer, this.text, location);
  }

  /** The inverse of `answerTokens`; of `subtaskTokens` what stands before the semicolon. */
  said(ids: ArrayLike<number>): string {
    const { location } = this.ranges;
    return location ? decodeWithLocations(ids, this.text, location) : this.text.decode(ids);
  }

  /** Ids that an answer may have: those of text and of location tokens. */
  get wordIds(): number[] {
    return Array.from({ length: this.vocabularySize }, (_, id) => id).filter((id) => !this.isAction(id));
  }

  /** Of a subtask, with what leads on to the action tokens behind it. */
  subtaskTokens(subtask: string): Int32Array {
    return this.text.encode(`${subtask};\nAction: `);
  }

  /** Ids in the joint vocabulary of a normalised chunk, without the end of sequence. */
  actionTokens(data: Float32Array, horizon: number, robot?: string): Int32Array {
    const { action } = this.ranges;
    if (!this.fast || !action) throw new Error('this system has no discrete action tokens');
    const own = this.ownDimensions(data, robot);
    return action.toVocabulary(this.fast.encode({ data: own, horizon, dimension: own.length / horizon }));
  }

  /** Writes one chunk [horizon, dimension] token by token. */
  chunkWriter({ horizon, dimension }: { horizon: number; dimension: number }, robot?: string): ChunkWriter {
    const { fast } = this;
    const actionIds = this.ranges.action;
    const { slots } = this.robot(robot);
    const shape = { horizon, dimension: slots?.actions.length ?? dimension };
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
      decode: () => {
        const data = Float32Array.from(fast.decodeRelaxed(Int32Array.from(written), shape).data);
        return slots ? toSlots(data, slots.actions, slots.width) : data;
      },
    };
  }

  /**
   * A chunk [rows, dimensions of the robot] in raw units, where its slots say so relative to the state seen before it -> [rows,
   * dimensions of the model], normalised, zero where the robot has none.
   */
  normaliseActions(actions: Float32Array, { robot, state }: Measured): Float32Array {
    const { normalise, slots } = this.robot(robot);
    const own = normalise.actions.normalise(slots ? relativeActions(actions, state ?? [], slots.actions) : actions);
    return slots ? toSlots(own, slots.actions, slots.width) : own;
  }

  /** The inverse of `normaliseActions`. */
  denormaliseActions(actions: Float32Array, { robot, state }: Measured): Float32Array {
    const { normalise, slots } = this.robot(robot);
    const own = normalise.actions.denormalise(this.ownDimensions(actions, robot));
    if (state === null && slots?.actions.some(({ relative }) => relative))
      throw new InputError(`robot ${quote(robot)} acts relative to its state, and the observation has none`);
    return slots ? absoluteActions(own, state ?? [], slots.actions) : own;
  }

  /** Of a normalised chunk [rows, dimensions of the model] the dimensions of the robot, which are what action tokens spell. */
  ownDimensions(data: Float32Array, robot?: string): Float32Array {
    const { slots } = this.robot(robot);
    return slots ? fromSlots(data, slots.actions, slots.width) : data;
  }

  /** [dimensions of the model]: 1 where the robot has one; null where it has all. */
  realDimensions(robot?: string): Uint8Array | null {
    const { slots } = this.robot(robot);
    return slots && slotMask(slots.actions, slots.width);
  }

  private robot(name: string | undefined): Robot {
    const found = this.robots.get(name);
    if (found) return found;
    const known = [...this.robots.keys()].filter((own) => own !== undefined);
    throw new InputError(
      known.length > 0
        ? `this model knows the robots ${known.join(', ')}: say which the observation is of, not ${quote(name)}`
        : `this model knows one robot alone, and none called ${quote(name)}`,
    );
  }

  /** A batch of observations as the model takes them. Throws InputError where an instruction is longer than the context. */
  observe(observations: readonly RawObservation[], configuration: ModelConfiguration): ObservationBatch {
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
      if (observation.asks === 'answer') return;
      const { normalise, slots } = this.robot(observation.robot);
      if (!observation.state || !normalise.states)
        throw new InputError('this model needs a state, and the observation has none');
      const own = normalise.states.normalise(Float32Array.from(observation.state));
      state.set(slots ? toSlots(own, slots.state, slots.width) : own, sample * stateDimension);
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
