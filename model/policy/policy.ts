import { InputError, randomStream, streams } from '../../engine/index.ts';
import type { Model } from '../architecture/model.ts';
import { decodeGreedily, likeliest } from './decoding.ts';
import type { Encoding, RawObservation } from './encoding.ts';
import { type OnLatency, type SamplingOptions, sampleActions } from './sampling.ts';

export interface ActOptions extends SamplingOptions {
  /** Chooses the noise; the same seed and observation give the same chunk. */
  seed?: number;
  /** Which sample of the seed: different numbers draw different noise. */
  sample?: number;
}

/** A trained system that acts: observations in, chunks of actions out, both in the robot's units. */
export class Policy {
  constructor(
    readonly model: Model,
    readonly encoding: Encoding,
  ) {}

  /** One chunk [horizon * dimensions of its robot] for each observation, in the units of the data. */
  async act(observations: readonly RawObservation[], options: ActOptions = {}): Promise<Float32Array[]> {
    const normalised = await this.actNormalised(observations, options);
    return normalised.map((chunk, i) => this.encoding.denormaliseActions(chunk, observations[i]));
  }

  /** As act, before denormalisation: [horizon * actionDimension]. */
  async actNormalised(observations: readonly RawObservation[], options: ActOptions = {}): Promise<Float32Array[]> {
    const { horizon, actionDimension, losses } = this.model.configuration;
    const observation = this.encoding.observe(observations, this.model.configuration);
    const size = horizon * actionDimension;
    if (!losses.flow) return this.decode(observation, observations, options.onLatency);
    const { seed = 0, sample = 0, ...sampling } = options;
    const noise = new Float32Array(observations.length * size);
    randomStream(seed, sample, streams.sampling).fillNormal(noise);
    const actions = await sampleActions(this.model, observation, noise, sampling);
    return observations.map((_, i) => actions.slice(i * size, (i + 1) * size));
  }

  /**
   * What it says to observations that ask for an answer or a subtask, by its likeliest tokens; places are `<locNNNN>`. One that does
   * not end is cut where the model has no more room.
   *
   * @throws InputError where the model has learned no answers
   */
  async say(observations: readonly RawObservation[]): Promise<string[]> {
    const { encoding, model } = this;
    if (!encoding.settings.locations)
      throw new InputError('this policy was trained without questions: it has no answers');
    const words = encoding.wordIds;
    const written = observations.map((): number[] => []);
    const subtask = (text: string) => text.split(';')[0];
    await decodeGreedily(
      model,
      encoding.observe(observations, model.configuration),
      'fast',
      model.block('fast').length,
      {
        choose: (sample, scores) => {
          const own = written[sample];
          const id = likeliest(scores, words);
          if (id === encoding.endOfSequence) return null;
          own.push(id);
          const ended = observations[sample].asks === 'subtask' && encoding.said(own).includes(';');
          return ended ? null : id;
        },
      },
    );
    return written.map((ids, i) =>
      observations[i].asks === 'subtask' ? subtask(encoding.said(ids)) : encoding.said(ids),
    );
  }

  /** Discrete tokens, one by one, of which only those that can continue a chunk are chosen; a chunk that is not whole in time ends in zeros. */
  private async decode(
    observation: ReturnType<Encoding['observe']>,
    raw: readonly RawObservation[],
    onLatency?: OnLatency,
  ): Promise<Float32Array[]> {
    const { horizon, actionDimension } = this.model.configuration;
    const steps = this.model.block('fast').length;
    const shape = { horizon, dimension: actionDimension };
    const writers = raw.map(({ robot }) => this.encoding.chunkWriter(shape, robot));
    await decodeGreedily(this.model, observation, 'fast', steps, {
      onLatency,
      choose: (sample, scores) => writers[sample].write((allowed) => likeliest(scores, allowed)),
    });
    return writers.map((writer) => writer.decode());
  }
}
