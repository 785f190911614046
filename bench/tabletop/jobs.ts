import type { DemonstrationSettings, Recording } from './episode-recorder.ts';
import type { Frame, FrameSettings } from './frames.ts';

/** The work of a thread: what it makes for an index. */
export type Job =
  | { readonly name: 'demonstration'; readonly settings: Required<DemonstrationSettings> }
  | { readonly name: 'frames'; readonly settings: FrameSettings };

export interface Results {
  /** null if the demonstrator fails. */
  demonstration: Recording | null;
  frames: Frame[];
}

/** A worker's answer to an index, or an error, after which the worker is of no more use. */
export type WorkerMessage =
  | { readonly index: number; readonly result: unknown }
  | { readonly error: string; readonly input: boolean };
