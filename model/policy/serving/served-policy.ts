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
  /** Milliseconds that the policy has computed for the session since its last answer. */
  readonly milliseconds: number;
}

interface Episode {
  readonly session: PolicySession;
  readonly executor: Executor<RawObservation> | null;
  calls: number;
  said: Said | null;
  computed: number;
  isOver: boolean;
}

/**
 * Answers do not depend on what other sessions ask: the noise of a call is that of the session's seed and of the number of calls in its
 * episode.
 */
export class ServedPolicy {
  private readonly episodes = new Map<number, Episode>();
  /** One call of the policy at a time: the adapter computes one after another anyway, and every answer is the same whoever else asks. */
  private turn: Promise<unknown> = Promise.resolve();

  /** `recover` makes the policy anew after an error that a new one mends, such as the loss of its device; it gives null for other errors. */
  constructor(
    private policy: Policy,
    private readonly dimension: number,
    private readonly options: ServedOptions = {},
    private readonly recover: (error: unknown) => Promise<Policy | null> = async () => null,
  ) {
    if (options.execution) scheduleOf(options, policy.model.configuration.horizon);
  }

  /**
   * Answers of one session are asked for one after another, those of several at once: an action of a chunk that is there waits for no call.
   *
   * @throws InputError if the policy cannot act on this observation, or the episode ends before the policy has begun
   */
  async answer(session: number, observation: RawObservation, reset: boolean): Promise<Answer> {
    if (reset) this.forget(session);
    const episode = this.episodes.get(session) ?? this.begin();
    this.episodes.set(session, episode);
    const { executor, calls } = episode;
    const [actions] = executor
      ? await executor.next(() => [observation])
      : await this.call(episode, [observation], undefined);
    if (episode.calls === calls) episode.session.see(0, observation);
    const { said, computed } = episode;
    episode.computed = 0;
    return { actions: Float32Array.from(actions), dimension: this.dimension, said, milliseconds: computed };
  }

  /** Ends the episode of a session: what the policy has not begun for it, it does not do. */
  forget(session: number): void {
    const episode = this.episodes.get(session);
    if (episode) episode.isOver = true;
    this.episodes.delete(session);
  }

  /** Waits for the call under way. */
  async idle(): Promise<void> {
    await this.turn;
  }

  private begin(): Episode {
    const episode: Episode = {
      // The observations that a session keeps outlive a policy whose device was lost.
      session: new PolicySession(windowOf(this.policy.model.configuration), (...given) => this.act(episode, ...given)),
      executor: this.options.execution
        ? new Executor((seen, previous) => this.call(episode, seen, previous), this.dimension, this.options, true)
        : null,
      calls: 0,
      said: null,
      computed: 0,
      isOver: false,
    };
    return episode;
  }

  private act(episode: Episode, ...given: Parameters<Policy['actInWindows']>): Promise<Float32Array[]> {
    const chunks = this.turn.then(async () => {
      if (episode.isOver) throw new InputError('the robot left before its turn');
      const start = performance.now();
      try {
        return await this.policy.actInWindows(...given);
      } catch (error) {
        const policy = await this.recover(error);
        if (!policy) throw error;
        this.policy = policy;
        return await policy.actInWindows(...given);
      } finally {
        episode.computed += performance.now() - start;
      }
    });
    this.turn = chunks.catch(() => {});
    return chunks;
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
