/** A policy that serves many robots, each in a session of its own: its episode, its history, and the chunk that it carries out. */
import { InputError } from '../../../engine/files/errors.ts';
import { windowOf } from '../../architecture/configuration.ts';
import type { PreviousChunks } from '../../architecture/objectives/index.ts';
import type { RawObservation } from '../encoding.ts';
import { type ExecutionOptions, Executor, scheduleOf } from '../execution.ts';
import type { Policy } from '../policy.ts';
import { PolicySession } from '../session.ts';
import type { Said } from '../subtask.ts';

export interface ServedOptions extends Omit<ExecutionOptions, 'execution'> {
  /** How the server carries out chunks: then every answer is one action. Without it an answer is a whole chunk, and the client carries it out. */
  readonly execution?: ExecutionOptions['execution'];
  readonly seed?: number;
  readonly temperature?: number;
  /** Euler or DDIM steps. */
  readonly steps?: number;
}

export interface Answer {
  /** [rows, dimension], in the robot's units. */
  readonly actions: Float32Array<ArrayBuffer>;
  readonly dimension: number;
  /** The subtask, if the policy was asked and says one. */
  readonly said: Said | null;
}

interface Episode {
  readonly session: PolicySession;
  readonly executor: Executor<RawObservation> | null;
  calls: number;
  said: Said | null;
}

/**
 * Answers do not depend on what other sessions ask: the noise of a call is that of the session's seed and of the number of calls in its
 * episode.
 */
export class ServedPolicy {
  private readonly episodes = new Map<number, Episode>();

  /** `recover` makes the policy anew after an error that a new one mends, such as the loss of its device; it gives null for other errors. */
  constructor(
    private policy: Policy,
    private readonly dimension: number,
    private readonly options: ServedOptions = {},
    private readonly recover: (error: unknown) => Promise<Policy | null> = async () => null,
  ) {
    if (options.execution) scheduleOf(options, policy.model.configuration.horizon);
  }

  /** @throws InputError if the policy cannot act on this observation */
  async answer(session: number, observation: RawObservation, reset: boolean): Promise<Answer> {
    if (reset) this.forget(session);
    const episode = this.episodes.get(session) ?? this.begin();
    this.episodes.set(session, episode);
    const { executor, calls } = episode;
    if (!executor) {
      const [actions] = await this.call(episode, [observation], undefined);
      return { actions: Float32Array.from(actions), dimension: this.dimension, said: episode.said };
    }
    const [action] = await executor.next(() => [observation]);
    if (episode.calls === calls) episode.session.see(0, observation);
    return { actions: Float32Array.from(action), dimension: this.dimension, said: episode.said };
  }

  /** Ends the episode of a session. */
  forget(session: number): void {
    this.episodes.delete(session);
  }

  private begin(): Episode {
    const episode: Episode = {
      // The observations that a session keeps outlive a policy whose device was lost.
      session: new PolicySession(windowOf(this.policy.model.configuration), (...given) => this.act(...given)),
      executor: this.options.execution
        ? new Executor((seen, previous) => this.call(episode, seen, previous), this.dimension, this.options)
        : null,
      calls: 0,
      said: null,
    };
    return episode;
  }

  private async act(...given: Parameters<Policy['actInWindows']>): Promise<Float32Array[]> {
    try {
      return await this.policy.actInWindows(...given);
    } catch (error) {
      const policy = await this.recover(error);
      if (!policy) throw error;
      this.policy = policy;
      return policy.actInWindows(...given);
    }
  }

  private async call(
    episode: Episode,
    observations: readonly RawObservation[],
    previous: PreviousChunks | undefined,
  ): Promise<readonly Float32Array[]> {
    const { seed = 0, temperature, steps } = this.options;
    const sample = episode.calls;
    episode.calls += 1;
    const onSaid = ([said]: readonly Said[]) => {
      episode.said = said;
    };
    const chunks = await episode.session.act(observations, { seed, sample, temperature, steps, previous, onSaid });
    const wrong = chunks[0].findIndex((own) => !Number.isFinite(own));
    if (wrong >= 0)
      throw new InputError(`the policy answers with ${chunks[0][wrong]}: its weights are no finite numbers`);
    return chunks;
  }
}
