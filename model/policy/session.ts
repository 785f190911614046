/** The state of a policy in episodes: the observations of each that it keeps between two calls. */
import { InputError } from '../../engine/files/errors.ts';
import type { ActOptions } from './acting.ts';
import type { RawObservation } from './encoding.ts';

/**
 * Episodes that advance side by side. The session keeps the last control steps of each, as many as the policy sees together; before an
 * episode's beginning its first observation is repeated. A policy without history sees the newest observation alone.
 */
export class PolicySession {
  private windows: (RawObservation[] | undefined)[] = [];
  private episodes: number | null = null;

  /** `actInWindows` is that of the policy, and `window` the number of control steps that it sees together. */
  constructor(
    private readonly window: number,
    private readonly actInWindows: (
      observations: readonly RawObservation[],
      options?: ActOptions,
    ) => Promise<Float32Array[]>,
  ) {}

  /**
   * One chunk [horizon * dimensions of its robot] for the newest observation of each episode, in the robot's units. The number and order
   * of episodes stay the same until the session is reset.
   *
   * @throws InputError if there are more or fewer observations than before
   */
  async act(observations: readonly RawObservation[], options?: ActOptions): Promise<Float32Array[]> {
    this.episodes ??= observations.length;
    if (observations.length !== this.episodes)
      throw new InputError(
        `this session has ${this.episodes} episodes, and there are ${observations.length} observations: give one for each, or reset the session`,
      );
    for (const [index, observation] of observations.entries()) this.see(index, observation);
    return this.actInWindows(
      this.windows.flatMap((own) => own ?? []),
      options,
    );
  }

  /** Adds an observation to the history of episode number `index`, without asking the policy for a chunk. */
  see(index: number, observation: RawObservation): void {
    const [, ...later] = this.windows[index] ?? Array<RawObservation>(this.window).fill(observation);
    this.windows[index] = [...later, observation];
  }

  /** Forgets episode number `index`, so that its next observation is the first of an episode; without a number, all episodes. */
  reset(index?: number): void {
    if (index !== undefined) this.windows[index] = undefined;
    else [this.windows, this.episodes] = [[], null];
  }
}
