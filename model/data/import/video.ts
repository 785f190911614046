import { InputError, quote } from '../../../engine/files/errors.ts';
import type { VideoClip } from './lerobot-episodes.ts';

/** A frame of a video as a JPEG file, and the second at which it is shown. */
export interface Frame {
  readonly time: number;
  readonly picture: Uint8Array<ArrayBuffer>;
}

/** Decodes the frames of a video in the order of their times, from one at or before second `from` on. */
export type Decoder = (path: string, from: number) => AsyncIterable<Frame>;

/** A frame may be shown by so much of a step before or after the time of the step that shows it. */
const TOLERANCE = 0.5;
/** An episode may lack this share of its frames, and so many of them, which show the frame before. */
const MISSING_SHARE = 0.02;
const MISSING = 2;

/**
 * Chooses the frame of each step: the one whose time is nearest to that of the step after the start of the clip, by half a step at most, and
 * lies within the clip. A step without such a frame shows the frame of the clip before it, which is noted; encoders drop the last frame.
 *
 * @param times the second of each step, counted from the start of the clip
 * @throws InputError if the clip lacks more frames than MISSING and MISSING_SHARE say, or the times do not grow
 */
export async function* chosenFrames(
  decoder: Decoder,
  { path, start, end }: VideoClip,
  times: ArrayLike<number>,
  { rate, what, note }: { rate: number; what: string; note?: (line: string) => void },
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const tolerance = TOLERANCE / rate;
  const lacking: number[] = [];
  let shown: Frame | null = null;
  let step = 0;
  const distance = (frame: Frame) => Math.abs(frame.time - start - times[step]);
  const show = (frame: Frame) => {
    if (step > 0 && !(times[step] >= times[step - 1]))
      throw new InputError(`${path}: ${what}: column "timestamp" does not grow at step ${step}`);
    if (distance(frame) > tolerance * 1.001) lacking.push(step);
    if (lacking.length > Math.max(MISSING, MISSING_SHARE * times.length)) {
      const found = `no frame within ${TOLERANCE} steps of steps ${lacking.slice(0, 3).join(', ')} and further ones`;
      throw new InputError(`${path}: ${what}: ${found}: cut off, or of another data set`);
    }
    step += 1;
    return frame.picture;
  };
  for await (const next of decoder(path, Math.max(0, start - tolerance))) {
    // The frames of other episodes lie before the start and from the end on, apart from what rounding moves.
    if (next.time < start - tolerance / 2) continue;
    if (next.time >= end - tolerance / 2) break;
    // A step without its frame shows the one before it, never a later one.
    const isLater = (frame: Frame) =>
      next.time > start + times[step] && distance(next) >= Math.min(distance(frame), tolerance);
    while (shown && step < times.length && isLater(shown)) yield show(shown);
    if (step === times.length) break;
    shown = next;
  }
  if (!shown)
    throw new InputError(`${path}: no frame of ${what} from second ${start} on: cut off, or of another data set`);
  while (step < times.length) yield show(shown);
  if (lacking.length > 0)
    note?.(
      `${path}: ${what}: the video lacks the frames of steps ${lacking.join(', ')}; the nearest frame of the episode is shown instead`,
    );
}

/** The error of a decoder about a video. */
export const cannotDecode = (path: string, what: string, reason: string) =>
  new InputError(`${path}: cannot decode the video of ${what}: ${quote(reason)}`);
