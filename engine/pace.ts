/**
 * Lists of commands are cut into submits here: browsers and graphics drivers end a submit that takes seconds, and the screen stands still
 * meanwhile. A submit takes half a second at most, by an estimate, or is one dispatch that takes longer. The first run of a captured
 * step then says how long it really takes (replay.ts). No result depends on where the cuts are.
 */

/** The work of dispatches by their cost models. */
export interface Work {
  readonly flops: number;
  readonly bytes: number;
}

const SUBMIT_SECONDS = 0.5;

/** FLOPs and bytes in a second of a slow integrated GPU and of a browser's software adapter, with kernels far from their limits. */
const rates = { graphics: { flops: 1e11, bytes: 1e10 }, software: { flops: 1e9, bytes: 1e9 } };

export class Pace {
  /** The most seconds of a submit. Nothing ends a long one of a software adapter under node. */
  limit: number;
  private readonly rates: Work;

  /** `debug`: each dispatch is a submit. */
  constructor(software: boolean, debug: boolean) {
    const endless = software && typeof process === 'object';
    this.limit = debug ? 0 : endless ? Number.POSITIVE_INFINITY : SUBMIT_SECONDS;
    this.rates = rates[software ? 'software' : 'graphics'];
  }

  /** Estimated seconds of work that was not measured; as a rule it takes less. */
  estimate({ flops, bytes }: Work): number {
    return flops / this.rates.flops + bytes / this.rates.bytes;
  }
}
