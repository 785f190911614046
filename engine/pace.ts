/**
 * How long dispatches take, estimated from their cost models. Browsers and graphics drivers end a submit that runs for seconds, and the
 * screen stands still meanwhile: lists of commands are therefore cut, between dispatches, into submits of half a second at most.
 * Where they are cut changes no result.
 */

/** FLOPs and bytes a second that the slowest adapters in use reach with the slowest kernels: a submit may end early, never late. */
const RATES = { graphics: { flops: 1e11, bytes: 1e10 }, software: { flops: 1e9, bytes: 1e9 } };
const SUBMIT_SECONDS = 0.5;

export class Pace {
  /** The most seconds of one submit. */
  limit: number;
  private readonly rates: { readonly flops: number; readonly bytes: number };

  /** Nothing ends the submits of a software adapter under node. */
  constructor(software: boolean) {
    this.limit = software && typeof process === 'object' ? Number.POSITIVE_INFINITY : SUBMIT_SECONDS;
    this.rates = RATES[software ? 'software' : 'graphics'];
  }

  seconds({ flops, bytes }: { readonly flops: number; readonly bytes: number }): number {
    return flops / this.rates.flops + bytes / this.rates.bytes;
  }
}
