/** Conversion between a robot's units and the model's: prompts, token ids and images, beside its numbers. */
import { InputError, quote } from '../../engine/files/errors.ts';
import {
  type ActionTokenizer,
  actionTokenizerFromJson,
  type ChunkGrammar,
  cleanInstruction,
  decodeBeginning,
  decodeWithLocations,
  digitizeState,
  encodeWithLocations,
  prompts,
  promptText,
  TextTokenizer,
} from '../../tokenizers/index.ts';
import { type ModelConfiguration, sourceOf } from '../architecture/configuration.ts';
import { type Ids, type ObservationBatch, padIds } from '../architecture/inputs.ts';
import type { Image } from '../data/dataset.ts';
import { normaliseImage, resizeWithPadding, toSlots } from '../data/index.ts';
import { NUMBERS, STATE } from '../systems/index.ts';
import { RobotNumbers, type RobotSettings, type RobotState } from './robot-numbers.ts';
import { featuresOf, type SubtaskSettings, SubtaskTokens } from './subtask.ts';
import { aroundActions, isPi0Fast, type publishedPrompts, type TokenRanges, tokenRanges } from './token-ranges.ts';

/** Everything that a checkpoint stores so that observations are encoded as in training. Plain JSON. */
export interface EncodingSettings extends RobotSettings {
  /** The text vocabulary as a tokenizer.json; the default vocabulary if absent. */
  readonly text?: object;
  /** The prompt contains the discretised state. */
  readonly stateAsText: boolean;
  /** The vocabulary has a token for each bin of a state dimension. */
  readonly stateTokens?: boolean;
  /** The prompt of a published policy; that of `promptText` by default. */
  readonly prompt?: (typeof publishedPrompts)[number];
  /** Number of bins of each state dimension. */
  readonly stateBins: number;
  /** Camera names in the order of the model's image slots. */
  readonly cameras: readonly string[];
  /** The JSON of an action tokenizer of any kind, for systems with discrete action tokens. */
  readonly actions: object | null;
  /** The vocabulary has location tokens between text and action tokens, for answers that contain image locations. */
  readonly locations?: boolean;
  /** Rows of the embedding at least; those beyond the ids of the vocabulary stay without a meaning, and are never chosen. */
  readonly leastRows?: number;
  /** The subtasks that the policy says before it acts; absent for a policy that says none. */
  readonly subtask?: SubtaskSettings;
}

/** The observation of a robot at one control step, in its own units. */
export interface RawObservation extends RobotState {
  /** Images by camera name; a missing camera is masked. */
  readonly images: Readonly<Record<string, Image | null>>;
  readonly instruction: string | null;
  /** The requested output: actions (default), the next subtask, or the answer to the question in `instruction`. */
  readonly request?: 'actions' | 'subtask' | 'answer';
}

interface ChunkWriter {
  /** The ids that may come next; null if the chunk is complete. */
  allowed(): Iterable<number> | null;
  /** Appends one of them; false for the end of the actions. */
  write(id: number): boolean;
  isComplete(): boolean;
  /** The normalised chunk; the rest of an incomplete chunk is zero. */
  decode(): Float32Array;
}

export class Encoding extends RobotNumbers {
  readonly text: TextTokenizer;
  /** The action tokenizer; null for systems without discrete action tokens. */
  readonly actions: ActionTokenizer | null;
  /** The tokens of subtasks; null for policies that say none. */
  readonly subtask: SubtaskTokens | null;
  /** Grammars of action tokens by the shape of a chunk. */
  private readonly grammars = new Map<string, ChunkGrammar>();
  /** The ids that are said before and behind the action tokens. */
  readonly around: ReturnType<typeof aroundActions>;
  private readonly ranges: TokenRanges;

  constructor(readonly settings: EncodingSettings) {
    super(settings);
    this.text = settings.text ? new TextTokenizer(settings.text) : TextTokenizer.default();
    this.actions = settings.actions && actionTokenizerFromJson(settings.actions);
    this.around = aroundActions(settings, this.text);
    this.ranges = tokenRanges(settings, this.text, this.actions?.vocabularySize ?? 0);
    this.subtask = settings.subtask ? new SubtaskTokens(settings.subtask, this.text, this.ranges.location) : null;
  }

  /** The number of ids with a meaning: text tokens, then location, state and action tokens if the model has them. */
  get idCount(): number {
    return Math.max(this.text.vocabularySize, ...Object.values(this.ranges).map((own) => own.vocabularySize));
  }

  /** Rows of the embedding. */
  get vocabularySize(): number {
    return Math.max(this.idCount, this.settings.leastRows ?? 0);
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
    const { stateAsText, stateBins, prompt } = this.settings;
    if (prompt === 'pi0') {
      const text = cleanInstruction(instruction ?? '');
      return Int32Array.from([...this.text.encode(text, { bos: true }), ...this.text.encode('\n')]);
    }
    const { normalise } = this.robot(robot);
    const bins =
      stateAsText && state && normalise.states
        ? digitizeState(normalise.states.normalise(Float32Array.from(state)), {
            bins: stateBins,
            clamp: prompt === undefined,
          })
        : undefined;
    const lowerCase = prompt === 'pi0-fast';
    const text = promptText({ instruction: instruction ?? undefined, state: bins, lowerCase });
    const saysFirst = request === 'subtask' || this.subtask !== null;
    const end = saysFirst ? 'Subtask: ' : isPi0Fast(this.settings) ? '' : 'Action: ';
    const ids = this.text.encode(text.replace(/Action: $/, end), { bos: true });
    return prompt === 'pi0-fast-lerobot' ? Int32Array.from([...ids, this.text.special.bos]) : ids;
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
    const all = Array.from({ length: this.idCount }, (_, id) => id);
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
    const state = width > 0 ? this.states(observations, configuration, true) : new Float32Array();
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

  /** Ids in the joint vocabulary of a normalised chunk and of what stands around it, without the end of sequence. */
  actionTokens(data: Float32Array, horizon: number, robot?: string): Int32Array {
    const { action } = this.ranges;
    if (!this.actions || !action) throw new Error('this system has no discrete action tokens');
    const own = this.ownDimensions(data, robot);
    const ids = action.toVocabulary(this.actions.encode({ data: own, horizon, dimension: own.length / horizon }));
    return Int32Array.from([...this.around.before, ...ids, ...this.around.behind]);
  }

  /**
   * Decodes one chunk [horizon, dimension] token by token. The tokenizer's grammar restricts each choice, so that the chunk is complete
   * within `tokens`, what introduces it included, wherever so many can complete it.
   */
  chunkWriter(
    { horizon, dimension, tokens }: { horizon: number; dimension: number; tokens?: number },
    robot?: string,
  ): ChunkWriter {
    const tokenizer = this.actions;
    const actionIds = this.ranges.action;
    const { slots } = this.robot(robot);
    const shape = { horizon, dimension: slots?.actions.length ?? dimension };
    if (!tokenizer || !actionIds) throw new Error('this system has no discrete action tokens');
    const key = JSON.stringify(shape);
    const grammar = this.grammars.get(key) ?? tokenizer.grammar(shape);
    this.grammars.set(key, grammar);
    const written: number[] = [];
    const { before, behind } = this.around;
    const introduction = [...(this.subtask?.introduction ?? before)];
    const most = tokens && tokens - introduction.length;
    let state = 0;
    return {
      allowed() {
        if (introduction.length > 0) return introduction.slice(0, 1);
        if (state === grammar.complete) return null;
        const allowed = grammar.allowed(state, most && most - written.length);
        if (allowed.length === 0)
          throw new InputError(
            `the action tokenizer has no token that may follow at ${state} of ${grammar.complete} of a chunk of ${shape.horizon} x ${shape.dimension} numbers: it cannot write such chunks`,
          );
        return [...actionIds.toVocabulary(allowed), ...behind];
      },
      write(id) {
        if (introduction.shift() !== undefined) return true;
        if (behind.includes(id)) return false;
        const [action] = actionIds.toActions([id]);
        written.push(action);
        state = grammar.next(state, action);
        return true;
      },
      isComplete: () => state === grammar.complete,
      decode: () => {
        const data = decodeBeginning(tokenizer, Int32Array.from(written), shape);
        return slots ? toSlots(data, slots.actions, slots.width) : data;
      },
    };
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
      numbers: state ? { [sourceOf(state)]: this.states(observations, configuration) } : {},
    };
  }

  /** The token of the bin of every state dimension, in the order of the state; questions have none. */
  private stateIds(observations: readonly RawObservation[], configuration: ModelConfiguration): Ids {
    const { stateDimension } = configuration;
    const bins = digitizeState(this.states(observations, configuration), { bins: this.settings.stateBins });
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
}
