/** Execution of chunks: one action for each control step, from chunks that may overlap in time. */
import { counted, InputError } from '../../engine/files/errors.ts';
import type { PreviousChunks } from '../architecture/objectives/index.ts';

export const executionKinds = ['open-loop', 'receding-horizon', 'temporal-ensembling', 'real-time-chunking'] as const;

/**
 * - `open-loop`: the whole chunk, then the next.
 * - `receding-horizon`: the first `executeSteps` actions of each chunk. With a delay, the next chunk is computed while the old one is
 *   executed; its first `delay` actions are skipped, because their control steps have passed.
 * - `temporal-ensembling`: a new chunk at every control step; the action is the weighted mean of all predictions for this step (Zhao et
 *   al. 2023, arXiv 2304.13705).
 * - `real-time-chunking`: receding horizon, and the policy gets the rest of the old chunk (Black et al. 2025, arXiv 2506.07339).
 */
export type ExecutionKind = (typeof executionKinds)[number];

export interface ExecutionOptions {
  /** 'receding-horizon' by default. */
  readonly execution?: ExecutionKind;
  /**
   * Control steps from one call of the policy to the next, for receding horizon and real-time chunking; by default 5, or for a shorter
   * chunk its actions less the delay.
   */
  readonly executeSteps?: number;
  /** Control steps that pass while a chunk is computed, for the same two; 0 by default. The first chunk passes no control steps. */
  readonly delay?: number;
}

const EXECUTE_STEPS = 5;

/** The exponent of a prediction's weight exp(-DECAY i), where i = 0 is the oldest prediction. */
const DECAY = 0.01;

/** The chunks of one call of the policy. */
interface Kept {
  readonly chunks: readonly Float32Array[];
  readonly horizon: number;
  readonly schedule: Schedule;
  /** Control steps since the call. */
  age: number;
}

interface Schedule {
  /** Control steps from one call to the next. */
  readonly every: number;
  readonly delay: number;
}

/** @throws InputError if chunks of `horizon` actions cannot be executed by these options */
export function scheduleOf(options: ExecutionOptions, horizon: number): Schedule {
  const { execution = 'receding-horizon', delay = 0 } = options;
  const { executeSteps = Math.max(1, Math.min(EXECUTE_STEPS, horizon - delay)) } = options;
  if (execution === 'open-loop') return { every: horizon, delay: 0 };
  if (execution === 'temporal-ensembling') return { every: 1, delay: 0 };
  const fail = (option: string, value: number, reason: string) => {
    throw new InputError(`--${option} ${value}: ${reason}`);
  };
  if (!Number.isInteger(executeSteps) || executeSteps < 1)
    fail('execute-steps', executeSteps, 'it is no whole number from 1');
  if (!Number.isInteger(delay) || delay < 0) fail('delay', delay, 'it is no whole number from 0');
  const chunk = `a chunk of this policy has ${counted(horizon, 'action')}`;
  if (executeSteps > horizon) fail('execute-steps', executeSteps, chunk);
  // A chunk is there before the next one is asked for, and lasts until that one is there.
  const most = Math.floor(horizon / 2);
  if (delay > most) fail('delay', delay, `${chunk}, so that the delay is at most ${most}`);
  if (delay > executeSteps || executeSteps + delay > horizon)
    fail(
      'delay',
      delay,
      `${chunk}, so that --execute-steps is from ${delay} to ${horizon - delay} with this delay; it is ${executeSteps}`,
    );
  return { every: executeSteps, delay };
}

/** Chunks [horizon, dimension] for the observations, one for each. `previous` is given for real-time chunking, from the second call on. */
type CallPolicy<Observation> = (
  observations: readonly Observation[],
  previous: PreviousChunks | undefined,
) => Promise<readonly Float32Array[]>;

/**
 * Executes the chunks of several episodes that begin together and advance in lockstep. Every call of the policy has all episodes in the
 * same order, so that its batch keeps one shape; the caller ignores the actions of an episode that is over. New episodes need a new
 * executor.
 */
export class Executor<Observation> {
  /** Chunks that have actions left, the oldest first. */
  private kept: Kept[] = [];
  /** The chunks that are being computed, and the control steps since they were asked for. */
  private coming: { readonly kept: Promise<Kept>; age: number } | null = null;

  /** With `meanwhile`, actions of the old chunk are given while a delay's next one is computed; without, the world stands still. */
  constructor(
    private readonly call: CallPolicy<Observation>,
    private readonly dimension: number,
    private readonly options: ExecutionOptions = {},
    private readonly meanwhile = false,
  ) {}

  /**
   * The next action [dimension] of each episode. `observe` is called only if the policy is called.
   *
   * @throws InputError if the chunks are too short for the options
   */
  async next(observe: () => readonly Observation[]): Promise<Float32Array[]> {
    await this.arrive();
    const newest = this.kept.at(-1);
    if (!this.coming && (!newest || newest.age >= newest.schedule.every)) {
      this.coming = { kept: this.renewed(observe(), newest), age: 0 };
      this.coming.kept.catch(() => {}); // whoever waits for the chunks gets the error
      await this.arrive();
    }
    const actions = this.actions();
    for (const own of [...this.kept, ...(this.coming ? [this.coming] : [])]) own.age += 1;
    this.kept = this.kept.filter(({ age, horizon }) => age < horizon);
    return actions;
  }

  /** Takes the chunks that are coming, if it is their time or the world stands still. */
  private async arrive(): Promise<void> {
    const { coming } = this;
    const newest = this.kept.at(-1);
    if (!coming || (this.meanwhile && newest && coming.age < newest.schedule.delay)) return;
    this.coming = null;
    this.kept.push({ ...(await coming.kept), age: coming.age });
  }

  private async renewed(observations: readonly Observation[], newest: Kept | undefined): Promise<Kept> {
    const { call, dimension, options } = this;
    const previous =
      newest && options.execution === 'real-time-chunking'
        ? { chunks: actionsFrom(newest, dimension), delay: newest.schedule.delay }
        : undefined;
    const chunks = await call(observations, previous);
    const lengths = observations.map((_, episode) => chunks[episode]?.length ?? 0);
    const wrong = lengths.findIndex((length) => length === 0 || length % dimension !== 0);
    if (wrong >= 0)
      throw new RangeError(
        `the policy's chunk for episode ${wrong} has ${lengths[wrong]} numbers; expected [horizon, ${dimension}]`,
      );
    const horizon = Math.min(...lengths) / dimension;
    return { chunks, horizon, schedule: scheduleOf(options, horizon), age: 0 };
  }

  private actions(): Float32Array[] {
    const { dimension, kept } = this;
    const ofNow = (own: Kept) => actionsFrom(own, dimension).map((rest) => rest.subarray(0, dimension));
    if (this.options.execution !== 'temporal-ensembling')
      return ofNow(kept.findLast(({ age, schedule }) => age >= schedule.delay) ?? kept[0]);
    const weights = kept.map((_, i) => Math.exp(-DECAY * i));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const predictions = kept.map(ofNow);
    return predictions[0].map((first, episode) =>
      first.map((_, d) => predictions.reduce((sum, own, i) => sum + (weights[i] / total) * own[episode][d], 0)),
    );
  }
}

/** The actions that are left of each chunk, from the present control step on: [actions left * dimension]. */
const actionsFrom = ({ chunks, age }: Kept, dimension: number) =>
  chunks.map((chunk) => chunk.subarray(age * dimension));
