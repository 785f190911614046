import type { Section } from '../model/report/page.ts';
import type { Context } from './command.ts';
import type { Inspected } from './inspect-subject.ts';
import type { Options } from './options.ts';

/** One of the measurements of `insula inspect`; the flag of its name asks for it. */
export interface Measurement {
  readonly help: string;
  /** It is about pictures and words, and refuses random observations. */
  readonly needsReal?: boolean;
  /** Options of its own. */
  readonly options?: Options;
  measure(
    inspected: Inspected,
    values: Readonly<Record<string, unknown>>,
    context: Pick<Context, 'progress' | 'signal'>,
  ): Promise<{
    readonly json: Readonly<Record<string, unknown>>;
    readonly lines: readonly string[];
    /** What it measured on, in words, where that is not the batch. */
    readonly examples?: string;
    /** The sections of its page, made on demand. */
    sections(): Section[] | Promise<Section[]>;
  }>;
}
