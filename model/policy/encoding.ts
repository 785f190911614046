/** Conversion between a robot's units and the model's: normalised numbers, prompts, token ids and images. */
import { InputError, quote } from '../../engine/files/errors.ts';
import {
  type ActionIds,
  type ActionTokenizer,
  actionTokenizerFromJson,
  decodeBeginning,
  decodeWithLocations,
  digitizeState,
  encodeWithLocations,
  LOCATIONS,
  prompts,
  promptText,
  rangesAfterText,
  TextTokenizer,
} from '../../tokenizers/index.ts';
import { type ModelConfiguration, sourceOf } from '../architecture/configuration.ts';
import { type Ids, type ObservationBatch, padIds } from '../architecture/inputs.ts';
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
import { NUMBERS, STATE } from '../systems/index.ts';
import { featuresOf, type SubtaskSettings, SubtaskTokens } from './subtask.ts';

/** Everything that a checkpoint stores so that observations are encoded as in training. Plain JSON. */
export interface EncodingSettings {
  /** The text vocabulary as a tokenizer.json; the default vocabulary if absent. */
  readonly text?: object;
  /** The prompt contains the discretised state. */
  readonly stateAsText: boolean;
  /** The vocabulary has a token for each bin of a state dimension. */
  readonly stateTokens?: boolean;
  /** Number of bins of each state dimension. */
  readonly stateBins: number;
  /** Camera names in the order of the model's image slots. */
  readonly cameras: readonly string[];
  /** null for data of several robots, which have statistics of their own. */
  readonly statistics: DatasetStatistics | null;
  /** The action dimensions of the one robot that are relative to its state; absent if none is. */
  readonly relative?: readonly boolean[];
  /** The JSON of an action tokenizer of any kind, for systems with discrete action tokens. */
  readonly actions: object | null;
  /** The vocabulary has location tokens between text and action tokens, for answers that contain image locations. */
  readonly locations?: boolean;
  /** The subtasks that the policy says before it acts; absent for a policy that says none. */
  readonly subtask?: SubtaskSettings;
  /** The robots of a model that was trained on several, by name. */
  readonly robots?: Readonly<Record<string, { readonly slots: SlotMap; readonly statistics: DatasetStatistics }>>;
}

/** The observation of a robot at one control step, in its own units. */
export interface RawObservation {
  /** Images by camera name; a missing camera is masked. */
  readonly images: Readonly<Record<string, Image | null>>;
  readonly state: ArrayLike<number> | null;
  readonly instruction: string | null;
  /** The requested output: actions (default), the next subtask, or the answer to the question in `instruction`. */
  readonly request?: 'actions' | 'subtask' | 'answer';
  /** Name of the robot, if the model was trained on several. */
  readonly robot?: string;
}

/** The fields of an observation that normalisation of its actions depends on. */
type NormalisationContext = Pick<RawObservation, 'robot' | 'state'>;

/** The conversion of one robot's numbers to the model's. */
interface Robot {
  readonly normalise: ReturnType<typeof normalisers>;
  /** null if its dimensions are the model's. */
  readonly slots: SlotMap | null;
  /** The action dimensions that are relative to the state; null if none is. */
  readonly relative: readonly boolean[] | null;
}

interface ChunkWriter {
  /** Appends and returns the id that `choose` selects from the allowed next ids; null if the chunk is complete. */
  write(choose: (allowed: Int32Array) => number): number | null;
  /** The normalised chunk; the rest of an incomplete chunk is zero. */
  decode(): Float32Array;
}

export class Encoding {
  readonly text: TextTokenizer;
  /** The action tokenizer; null for systems without discrete action tokens. */
  readonly actions: ActionTokenizer | null;
  /** The tokens of subtasks; null for policies that say none. */
  readonly subtask: SubtaskTokens | null;
  private readonly ranges: Partial<Record<'location' | 'state' | 'action', ActionIds>>;
  /** Robots by name; the robot of a model that was trained on one robot has no name. */
  private readonly robots: ReadonlyMap<string | undefined, Robot>;

  constructor(readonly settings: EncodingSettings) {
    this.text = settings.text ? new TextTokenizer(settings.text) : TextTokenizer.default();
    this.actions = settings.actions && actionTokenizerFromJson(settings.actions);
    const { statistics, locations, stateTokens, stateBins, robots = {}, relative = [] } = settings;
    const sizes: Record<string, number> = {};
    if (locations) sizes.location = LOCATIONS;
    if (stateTokens) sizes.state = stateBins;
    if (this.actions) sizes.action = this.actions.vocabularySize;
    this.ranges = rangesAfterText(this.text.vocabularySize, sizes);
    this.subtask = settings.subtask ? new SubtaskTokens(settings.subtask, this.text, this.ranges.location) : null;
    const own: [string | undefined, Robot][] = Object.entries(robots).map(([name, { slots, statistics }]) => [
      name,
      {
        ...{ normalise: normalisers(statistics), slots },
        relative: someOrNull(slots.actions.map(({ relative }) => relative)),
      },
    ]);
    if (statistics)
      own.push([undefined, { normalise: normalisers(statistics), slots: null, relative: someOrNull(relative) }]);
    this.robots = new Map(own);
  }

  /** Rows of the embedding: text tokens, then location, state and action tokens if the model has them. */
  get vocabularySize(): number {
    const { action, state, location } = this.ranges;
    return (action ?? state ?? location ?? this.text).vocabularySize;
  }

  get endOfSequence(): number {
    return this.text.special.eos;
  }

  isAction(id: number): boolean {
    return this.ranges.action?.isAction(id) ?? false;
  }

  /** Ids of the prompt, beginning of sequence included. `state` is in the robot's units. */
  promptIds({ instruction, state, robot, request }: Omit<RawObservation, 'images'>): Int32Array {
    if (request === 'answer') {
      const { before } = prompts.paligemma({ instruction });
      // A question may name places.
      const idsOf = (piece: (typeof before)[number]) =>
        typeof piece === 'string' ? Array.from(this.answerTokens(piece)) : [this.text.special[piece.special]];
      return Int32Array.from(before.flatMap(idsOf));
    }
    const { stateAsText, stateBins } = this.settings;
    const { normalise } = this.robot(robot);
    const bins =
      stateAsText && state && normalise.states
        ? digitizeState(normalise.states.normalise(Float32Array.from(state)), { bins: stateBins })
        : undefined;
    const text = promptText({ instruction: instruction ?? undefined, state: bins });
    const saysFirst = request === 'subtask' || this.subtask !== null;
    return this.text.encode(saysFirst ? text.replace(/Action: $/, 'Subtask: ') : text, { bos: true });
  }

  /** Ids in the joint vocabulary of an answer, without the end of sequence. Locations in it become location tokens. */
  answerTokens(answer: string): Int32Array {
    const { location } = this.ranges;
    if (!location) throw new Error('this encoding has no location tokens, so it cannot encode answers');
    return encodeWithLocations(answer, this.text, location);
  }

  /** The text of ids: the inverse of `answerTokens`. */
  decodeText(ids: ArrayLike<number>): string {
    const { location } = this.ranges;
    return location ? decodeWithLocations(ids, this.text, location) : this.text.decode(ids);
  }

  /** The ids of text and location tokens, which answers consist of. */
  get textIds(): number[] {
    const { state } = this.ranges;
    const all = Array.from({ length: this.vocabularySize }, (_, id) => id);
    return all.filter((id) => !this.isAction(id) && !state?.isAction(id));
  }

  /**
   * The block by which an action expert gets places and the state as numbers: `said` holds the ids of each observation's subtask. Empty
   * for a policy that says no places.
   */
  numbers(
    said: readonly (readonly number[])[],
    observations: readonly RawObservation[],
    configuration: ModelConfiguration,
  ): NonNullable<ObservationBatch['numbers']> {
    const { subtask } = this;
    if (!subtask || subtask.settings.places === 0) return {};
    const { stateDimension: width } = configuration;
    const state = width > 0 ? this.state(observations, configuration, true) : new Float32Array();
    const rows = said.map((ids, i) => [
      ...subtask.numbers(subtask.decode(ids)),
      ...Array.from(state.subarray(i * width, (i + 1) * width)).flatMap(featuresOf),
    ]);
    return { [NUMBERS]: Float32Array.from(rows.flat()) };
  }

  /** Ids of a subtask in the block of the action tokens, and of the text that introduces these; for co-training. */
  subtaskTokens(subtask: string): Int32Array {
    return this.text.encode(`${subtask};\nAction: `);
  }

  /** Ids in the joint vocabulary of a normalised chunk, without the end of sequence. */
  actionTokens(data: Float32Array, horizon: number, robot?: string): Int32Array {
    const { action } = this.ranges;
    if (!this.actions || !action) throw new Error('this system has no discrete action tokens');
    const own = this.ownDimensions(data, robot);
    return action.toVocabulary(this.actions.encode({ data: own, horizon, dimension: own.length / horizon }));
  }

  /** Decodes one chunk [horizon, dimension] token by token; the tokenizer's grammar restricts each choice. */
  chunkWriter({ horizon, dimension }: { horizon: number; dimension: number }, robot?: string): ChunkWriter {
    const tokenizer = this.actions;
    const actionIds = this.ranges.action;
    const { slots } = this.robot(robot);
    const shape = { horizon, dimension: slots?.actions.length ?? dimension };
    if (!tokenizer || !actionIds) throw new Error('this system has no discrete action tokens');
    const grammar = tokenizer.grammar(shape);
    const written: number[] = [];
    const introduction = [...(this.subtask?.introduction ?? [])];
    let state = 0;
    return {
      write(choose) {
        const given = introduction.shift();
        if (given !== undefined) return given;
        if (state === grammar.complete) return null;
        const id = choose(actionIds.toVocabulary(grammar.allowed(state)));
        const [action] = actionIds.toActions([id]);
        written.push(action);
        state = grammar.next(state, action);
        return id;
      },
      decode: () => {
        const data = decodeBeginning(tokenizer, Int32Array.from(written), shape);
        return slots ? toSlots(data, slots.actions, slots.width) : data;
      },
    };
  }

  /**
   * A chunk [rows, dimensions of the robot] in the robot's units -> [rows, dimensions of the model], normalised. Dimensions
   * that are marked relative are relative to the observed state; dimensions that the robot lacks are zero.
   *
   * @throws InputError if actions are relative and there is no state
   */
  normaliseActions(actions: Float32Array, { robot, state }: NormalisationContext): Float32Array {
    const { normalise, slots, relative } = this.robot(robot);
    const own = normalise.actions.normalise(
      relative ? relativeActions(actions, stateOf(robot, state), relative) : actions,
    );
    return slots ? toSlots(own, slots.actions, slots.width) : own;
  }

  /** The inverse of `normaliseActions`. */
  denormaliseActions(actions: Float32Array, { robot, state }: NormalisationContext): Float32Array {
    const { normalise, relative } = this.robot(robot);
    const own = normalise.actions.denormalise(this.ownDimensions(actions, robot));
    return relative ? absoluteActions(own, stateOf(robot, state), relative) : own;
  }

  /** A normalised chunk [rows, dimensions of the model] -> [rows, dimensions of the robot], which action tokens encode. */
  ownDimensions(data: Float32Array, robot?: string): Float32Array {
    const { slots } = this.robot(robot);
    return slots ? fromSlots(data, slots.actions, slots.width) : data;
  }

  /** [dimensions of the model]: 1 for each dimension that the robot has; null if it has all. */
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
        ? `this model was trained on the robots ${known.join(', ')}: name one of them, not ${quote(name)}`
        : `this model was trained on one robot, and none is named ${quote(name)}`,
    );
  }

  /** Encodes a batch of observations. @throws InputError if a prompt is longer than the model's block for it */
  observe(observations: readonly RawObservation[], configuration: ModelConfiguration): ObservationBatch {
    const ids = configuration.blocks
      .filter(({ input }) => input === 'prompt')
      .map((block) => [
        sourceOf(block),
        sourceOf(block) === STATE
          ? this.stateIds(observations, configuration)
          : this.prompts(observations, block.length),
      ]);
    const { images, cameraValid } = this.images(observations, configuration);
    const state = configuration.blocks.find(({ input }) => input === 'state');
    return {
      batch: observations.length,
      images,
      cameraValid,
      ids: Object.fromEntries(ids),
      numbers: state ? { [sourceOf(state)]: this.state(observations, configuration) } : {},
    };
  }

  /** The token of the bin of every state dimension, in the order of the state; questions have none. */
  private stateIds(observations: readonly RawObservation[], configuration: ModelConfiguration): Ids {
    const { stateDimension } = configuration;
    const bins = digitizeState(this.state(observations, configuration), { bins: this.settings.stateBins });
    const ids = this.ranges.state!.toVocabulary(bins);
    const rows = observations.map(({ request }, i) =>
      request === 'answer' ? [] : ids.subarray(i * stateDimension, (i + 1) * stateDimension),
    );
    return padIds(rows, stateDimension);
  }

  /** Prompts of observations, of which some may be missing. @throws InputError if one has more than `length` tokens */
  prompts(observations: readonly (Omit<RawObservation, 'images'> | null)[], length: number): Ids {
    const prompts = observations.map((observation) => {
      if (!observation) return [];
      const ids = this.promptIds(observation);
      if (ids.length > length)
        throw new InputError(
          `instruction ${quote(observation.instruction)} gives a prompt of ${ids.length} tokens; this model takes at most ${length}: shorten it`,
        );
      return ids;
    });
    return padIds(prompts, length);
  }

  images(observations: readonly Pick<RawObservation, 'images'>[], { vision }: Pick<ModelConfiguration, 'vision'>) {
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

  /** The states of observations; zeros for questions and, if they are `optional`, for robots without. */
  private state(
    observations: readonly RawObservation[],
    { stateDimension }: ModelConfiguration,
    optional = false,
  ): Float32Array {
    const state = new Float32Array(observations.length * stateDimension);
    observations.forEach((observation, sample) => {
      if (observation.request === 'answer') return;
      const { normalise, slots } = this.robot(observation.robot);
      if (optional && !normalise.states) return;
      if (!observation.state || !normalise.states)
        throw new InputError('this model needs a state, and the observation has none');
      const own = normalise.states.normalise(Float32Array.from(observation.state));
      state.set(slots ? toSlots(own, slots.state, slots.width) : own, sample * stateDimension);
    });
    return state;
  }
}

const someOrNull = (flags: readonly boolean[]) => (flags.includes(true) ? flags : null);

function stateOf(robot: string | undefined, state: RawObservation['state']): ArrayLike<number> {
  if (state) return state;
  const name = robot === undefined ? 'this robot' : `robot ${quote(robot)}`;
  throw new InputError(`${name}: its actions are relative to its state, and the observation has no state`);
}
