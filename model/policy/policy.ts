import { InputError, randomStream, streams } from '../../engine/index.ts';
import { lastSteps, windowOf } from '../architecture/configuration.ts';
import type { Model } from '../architecture/model.ts';
import type { PreviousChunks } from '../architecture/objectives/index.ts';
import { SUBTASK } from '../systems/index.ts';
import { type ActOptions, act, tokenSampling } from './acting.ts';
import type { Encoding, RawObservation } from './encoding.ts';
import { PolicySession } from './session.ts';
import { inOriginalPicture, type Said, type SubtaskTokens } from './subtask.ts';

/** A trained system that acts: it maps observations to chunks of actions, both in the robot's units. */
export class Policy {
  constructor(
    readonly model: Model,
    readonly encoding: Encoding,
  ) {}

  /** Acts in episodes that advance side by side, and keeps the history of each. */
  session(): PolicySession {
    return new PolicySession(windowOf(this.model.configuration), (...given) => this.actInWindows(...given));
  }

  /**
   * One chunk [horizon * dimensions of its robot] for each observation, in the robot's units. A policy with history takes each for the
   * first of an episode.
   */
  act(observations: readonly RawObservation[], options?: ActOptions): Promise<Float32Array[]> {
    return this.session().act(observations, options);
  }

  /** As `actNormalised`, in the units of each robot. */
  async actInWindows(observations: readonly RawObservation[], options?: ActOptions): Promise<Float32Array[]> {
    const last = lastSteps(this.model.configuration, observations.length);
    const normalised = await this.actNormalised(observations, options);
    return normalised.map((chunk, i) => this.encoding.denormaliseActions(chunk, observations[last[i]]));
  }

  /**
   * Normalised chunks [horizon * actionDimension], one for each observation; of a policy with history one for each window of control
   * steps, which lie one window after another, each oldest first: the chunk of its last step. Action tokens are decoded under the
   * tokenizer's grammar, behind the subtask if the policy says one; the rest of an incomplete chunk is zero.
   */
  async actNormalised(observations: readonly RawObservation[], options: ActOptions = {}): Promise<Float32Array[]> {
    const { model, encoding } = this;
    const { horizon, actionDimension } = model.configuration;
    const size = horizon * actionDimension;
    const { seed = 0, sample = 0, temperature, onSaid, onDecoded, previous, ...others } = options;
    const last = lastSteps(model.configuration, observations.length);
    const noise = new Float32Array(observations.length * size);
    randomStream(seed, sample, streams.sampling).fillNormal(noise);
    const target = model.configuration.blocks.findLast(({ input, name }) => input === 'target' && name !== SUBTASK);
    const shape = { horizon, dimension: actionDimension, tokens: target?.length };
    const writers: ReturnType<Encoding['chunkWriter']>[] = [];
    const writer = (own: number) => (writers[own] ??= encoding.chunkWriter(shape, observations[own].robot));
    const said = observations.map((): number[] => []);
    const actions = await act(model, encoding.observe(observations, model.configuration), {
      ...others,
      noise,
      sampling: tokenSampling({ seed, sample, temperature }, observations.length),
      previous:
        previous &&
        this.normalised(
          previous,
          last.map((own) => observations[own]),
        ),
      writer: {
        allowed: (own, target) => (target === SUBTASK ? encoding.subtask!.allowed(said[own]) : writer(own).allowed()),
        write: (own, id, target) =>
          target === SUBTASK ? say(encoding.subtask!, said[own], id) : writer(own).write(id),
      },
      numbersOf: () => encoding.numbers(said, observations, model.configuration),
    });
    if (encoding.subtask) onSaid?.(said.map((ids, own) => this.said(ids, observations[own])));
    if (writers.length > 0) onDecoded?.(last.map((own) => writer(own).isComplete()));
    if (!actions) return last.map((own) => writer(own).decode());
    return last.map((i) => actions.slice(i * size, (i + 1) * size));
  }

  private normalised(previous: PreviousChunks, observations: readonly RawObservation[]): PreviousChunks {
    const { chunks } = previous;
    if (chunks.length !== observations.length)
      throw new InputError(
        `real-time chunking: there are ${chunks.length} previous chunks for ${observations.length} observations; give one for each`,
      );
    const normalised = chunks.map((chunk, i) => this.encoding.normaliseActions(chunk, observations[i]));
    return { ...previous, chunks: normalised };
  }

  private said(ids: readonly number[], { images }: RawObservation): Said {
    const { encoding, model } = this;
    const said = encoding.subtask!.decode(ids);
    const image = images[encoding.settings.cameras[0]];
    return image ? inOriginalPicture(said, image, model.configuration.vision!) : { ...said, places: [] };
  }

  /**
   * Decoded answers or subtasks, as each observation requests; locations are `<locNNNN>`. A text without an
   * end is truncated to the model's target block.
   *
   * @throws InputError if the model was trained without questions, or predicts no tokens
   */
  async generateText(
    observations: readonly RawObservation[],
    options: Pick<ActOptions, 'seed' | 'sample' | 'temperature'> = {},
  ): Promise<string[]> {
    const { encoding, model } = this;
    if (!encoding.settings.locations)
      throw new InputError('this policy was trained without questions, so it cannot answer any');
    const objective = model.objectives.find(({ decode }) => decode);
    if (!objective) throw new InputError('this policy predicts no tokens, so it cannot answer questions');
    const { textIds, subtask } = encoding;
    const targets = model.configuration.blocks.filter(({ input }) => input === 'target').map(({ name }) => name);
    const answering = targets.findLast((name) => name !== SUBTASK);
    const written = observations.map((): number[] => []);
    const isSubtask = (sample: number) => observations[sample].request === 'subtask';
    if (answering === undefined && !observations.every((_, sample) => isSubtask(sample)))
      throw new InputError('this policy predicts no tokens but those of its subtask, so it cannot answer questions');
    await act(model, encoding.observe(observations, model.configuration), {
      objective,
      sampling: tokenSampling(options, observations.length),
      writer: {
        allowed(sample, target) {
          if (subtask && isSubtask(sample)) return target === SUBTASK ? subtask.allowed(written[sample]) : null;
          return target === answering ? textIds : null;
        },
        write(sample, id) {
          const own = written[sample];
          if (subtask && isSubtask(sample)) return say(subtask, own, id);
          if (id === encoding.endOfSequence) return false;
          own.push(id);
          return !(isSubtask(sample) && encoding.decodeText(own).includes(';'));
        },
      },
    });
    return written.map((ids, sample) => {
      const text = encoding.decodeText(ids);
      return isSubtask(sample) ? text.split(';')[0] : text;
    });
  }
}

/** Adds the next token of a subtask to those that were said; false for its end. */
function say(subtask: SubtaskTokens, said: number[], id: number): boolean {
  if (subtask.isEnd(id)) return false;
  said.push(id);
  return true;
}
