import { InputError, randomStream, streams } from '../../engine/index.ts';
import type { Model } from '../architecture/model.ts';
import { act, argmax, type SamplingOptions } from './acting.ts';
import type { Encoding, RawObservation } from './encoding.ts';

export interface ActOptions extends SamplingOptions {
  /** Chooses the noise; the same seed and observation give the same chunk. */
  seed?: number;
  /** Index of the sample: the same seed gives different noise for different indices. */
  sample?: number;
}

/** A trained system that acts: it maps observations to chunks of actions, both in the robot's units. */
export class Policy {
  constructor(
    readonly model: Model,
    readonly encoding: Encoding,
  ) {}

  /** One chunk [horizon * dimensions of its robot] for each observation, in the robot's units. */
  async act(observations: readonly RawObservation[], options: ActOptions = {}): Promise<Float32Array[]> {
    const normalised = await this.actNormalised(observations, options);
    return normalised.map((chunk, i) => this.encoding.denormaliseActions(chunk, observations[i]));
  }

  /**
   * Normalised chunks [horizon * actionDimension], one for each observation. Action tokens are decoded greedily under the tokenizer's
   * grammar; the rest of an incomplete chunk is zero.
   */
  async actNormalised(observations: readonly RawObservation[], options: ActOptions = {}): Promise<Float32Array[]> {
    const { model, encoding } = this;
    const { horizon, actionDimension } = model.configuration;
    const observation = encoding.observe(observations, model.configuration);
    const size = horizon * actionDimension;
    const { seed = 0, sample = 0, ...sampling } = options;
    const noise = new Float32Array(observations.length * size);
    randomStream(seed, sample, streams.sampling).fillNormal(noise);
    const shape = { horizon, dimension: actionDimension };
    const writers: ReturnType<Encoding['chunkWriter']>[] = [];
    const writer = (own: number) => (writers[own] ??= encoding.chunkWriter(shape, observations[own].robot));
    const choose = (own: number, logits: Float32Array) => writer(own).write((allowed) => argmax(logits, allowed));
    const actions = await act(model, observation, { ...sampling, noise, choose });
    if (!actions) return observations.map((_, own) => writer(own).decode());
    return observations.map((_, i) => actions.slice(i * size, (i + 1) * size));
  }

  /**
   * Greedily decoded answers or subtasks, as each observation requests; locations are `<locNNNN>`. A text without an
   * end is truncated to the model's target block.
   *
   * @throws InputError if the model was trained without questions, or predicts no tokens
   */
  async generateText(observations: readonly RawObservation[]): Promise<string[]> {
    const { encoding, model } = this;
    if (!encoding.settings.locations)
      throw new InputError('this policy was trained without questions, so it cannot answer any');
    const objective = model.objectives.find(({ decode }) => decode);
    if (!objective) throw new InputError('this policy predicts no tokens, so it cannot answer questions');
    const { textIds } = encoding;
    const written = observations.map((): number[] => []);
    const subtask = (text: string) => text.split(';')[0];
    await act(model, encoding.observe(observations, model.configuration), {
      objective,
      choose: (sample, logits) => {
        const own = written[sample];
        const id = argmax(logits, textIds);
        if (id === encoding.endOfSequence) return null;
        own.push(id);
        const ended = observations[sample].request === 'subtask' && encoding.decodeText(own).includes(';');
        return ended ? null : id;
      },
    });
    return written.map((ids, i) =>
      observations[i].request === 'subtask' ? subtask(encoding.decodeText(ids)) : encoding.decodeText(ids),
    );
  }
}
