/** A piece of work that takes part in rounds. */
export interface Entrant {
  /** Unique in a run. */
  readonly name: string;
  /** Runs for the first time, which compiles. */
  start(): Promise<void>;
  /** Milliseconds of one repeat. */
  sample(): Promise<number>;
}
