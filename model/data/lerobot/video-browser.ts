import type { Folder } from '../../../engine/bytes.ts';
import { InputError } from '../../../engine/errors.ts';
import type { Image } from '../dataset.ts';
import { toRgb } from '../image-files.ts';
import { MemoryCache } from '../memory-cache.ts';
import { FRAME_SIZE, type VideoClip, type VideoFrames } from './dataset.ts';

/** Videos held open, each with at most so many bytes of its file. */
const OPEN_VIDEOS = 16;
const VIDEO_CACHE_BYTES = 2 ** 20;

/**
 * Decodes frames of videos by WebCodecs when they are asked for, from the keyframe before them on: LeRobot writes one
 * every second frame. `frameSize` as of the decoder of node.
 *
 * @throws InputError where the program has no WebCodecs
 */
export async function openVideoFrames(
  cameras: readonly string[],
  folder: Folder,
  frameSize = FRAME_SIZE,
): Promise<VideoFrames> {
  if (typeof VideoDecoder === 'undefined') {
    const what = `cameras ${cameras.join(', ')} exist only as video, and no WebCodecs are here to decode them`;
    const instead = 'name other cameras, or none, or open the data set by its path under node, with ffmpeg';
    throw new InputError(`${folder.name}/meta/info.json: ${what}: ${instead}`);
  }
  const { CustomSource, Input, MP4, VideoSampleSink } = await import('mediabunny');

  const open = async (path: string) => {
    const file = await folder.open(path);
    const source = new CustomSource({
      getSize: () => file.size,
      read: (start, end) => file.read(start, end),
      maxCacheSize: VIDEO_CACHE_BYTES,
    });
    const track = await new Input({ source, formats: [MP4] }).getPrimaryVideoTrack();
    if (!track) throw new Error('it has no video track');
    if (!(await track.canDecode())) throw new Error(`this browser does not decode ${track.codec ?? 'its codec'}`);
    const { displayWidth, displayHeight } = track;
    const scale = Math.min(1, frameSize / Math.max(displayWidth, displayHeight));
    const [width, height] = [displayWidth, displayHeight].map((side) => Math.max(1, Math.round(side * scale)));
    return { sink: new VideoSampleSink(track), width, height };
  };

  const videos = new MemoryCache<Awaited<ReturnType<typeof open>>>(OPEN_VIDEOS, () => 1);
  return {
    async frame({ path, start, rate, what }: VideoClip, step: number): Promise<Image> {
      const failed = (why: string) => new InputError(`${folder.name}/${path}: cannot decode ${what}: ${why}`);
      try {
        const { sink, width, height } = await videos.get(path, () => open(path));
        // The middle of the frame's time, so that rounding never gives its neighbour.
        using frame = await sink.getSample(start + (step + 0.5) / rate);
        // Encoders may drop the last frame; the one before it then stands for both.
        if (!frame || frame.timestamp < start + (step - 1.5) / rate)
          throw failed(`no frame for step ${step}: cut off, or of another data set`);
        const canvas = new OffscreenCanvas(width, height);
        const context = canvas.getContext('2d', { willReadFrequently: true })!;
        context.imageSmoothingQuality = 'high';
        frame.draw(context, 0, 0, width, height);
        return { width, height, pixels: toRgb(context.getImageData(0, 0, width, height).data, 4) };
      } catch (error) {
        if (error instanceof InputError) throw error;
        throw failed(error instanceof Error ? error.message.replace(/\s+/g, ' ') : String(error));
      }
    },
  };
}
