import type { Folder } from '../../../engine/files/bytes.ts';
import { InputError, reasonOf } from '../../../engine/files/errors.ts';
import { optionalPackages } from '../../../engine/files/optional-packages.ts';
import type { Image } from '../dataset.ts';
import { toRgb } from '../image-files.ts';
import { MemoryCache } from '../memory-cache.ts';
import { FRAME_SIZE, type VideoClip, type VideoFrames } from './dataset.ts';

/** The number of videos held open, and the bytes cached for each. */
const OPEN_VIDEOS = 16;
const VIDEO_CACHE_BYTES = 2 ** 20;
/** If keyframes are more frames apart, an episode is decoded once, to JPEG images kept up to KEPT_BYTES in all. */
const FAR_APART = 16;
const KEPT_BYTES = 256 * 2 ** 20;

/**
 * Decodes video frames by WebCodecs on request, starting at the keyframe before them; LeRobot makes every second frame
 * a keyframe. If keyframes are far apart, the first request for a frame of an episode decodes all of its frames.
 * `frameSize` is the same as for the decoder of node.
 *
 * @throws InputError if there are no WebCodecs
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
  const { CustomSource, EncodedPacketSink, Input, MP4, VideoSampleSink } = await optionalPackages(
    'mediabunny',
    'decoding videos in a browser',
    () => import('mediabunny'),
  );

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
    const packets = new EncodedPacketSink(track);
    const first = await packets.getFirstPacket();
    const second = first && (await packets.getNextKeyPacket(first));
    /** The seconds between keyframes. */
    const apart = first && second ? second.timestamp - first.timestamp : Number.POSITIVE_INFINITY;
    const canvas = () => {
      const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true })!;
      context.imageSmoothingQuality = 'high';
      return context;
    };
    return { sink: new VideoSampleSink(track), apart, canvas };
  };
  type Video = Awaited<ReturnType<typeof open>>;

  /** Decodes an episode's frames to JPEG images by step. */
  const decodeAll = async ({ sink, canvas }: Video, { start, length, rate }: VideoClip): Promise<Blob[]> => {
    const frames: Blob[] = [];
    const context = canvas();
    for await (const sample of sink.samples(start - 0.5 / rate, start + (length - 0.5) / rate)) {
      using frame = sample;
      const step = Math.round((frame.timestamp - start) * rate);
      if (step < 0) continue;
      frame.draw(context, 0, 0, context.canvas.width, context.canvas.height);
      frames[step] = await context.canvas.convertToBlob({ type: 'image/jpeg', quality: 0.95 });
    }
    return frames;
  };

  const videos = new MemoryCache<Video>(OPEN_VIDEOS, () => 1);
  const episodes = new MemoryCache<Blob[]>(KEPT_BYTES, (frames) => frames.reduce((sum, { size }) => sum + size, 0));
  return {
    async frame(clip: VideoClip, step: number): Promise<Image> {
      const { path, start, rate, what } = clip;
      const failed = (why: string) => new InputError(`${folder.name}/${path}: cannot decode ${what}: ${why}`);
      try {
        const video = await videos.get(path, () => open(path));
        const context = video.canvas();
        const { width, height } = context.canvas;
        // Encoders may drop the last frame; the frame before it then replaces it.
        const missing = () => failed(`no frame for step ${step}: cut off, or of another data set`);
        if (video.apart * rate > FAR_APART) {
          const frames = await episodes.get(`${path}:${start}`, () => decodeAll(video, clip));
          const file = frames[step] ?? frames[step - 1];
          if (!file) throw missing();
          const image = await createImageBitmap(file);
          context.drawImage(image, 0, 0);
          image.close();
        } else {
          // The time is the middle of the frame, so that rounding never selects its neighbour.
          using frame = await video.sink.getSample(start + (step + 0.5) / rate);
          if (!frame || frame.timestamp < start + (step - 1.5) / rate) throw missing();
          frame.draw(context, 0, 0, width, height);
        }
        return { width, height, pixels: toRgb(context.getImageData(0, 0, width, height).data, 4) };
      } catch (error) {
        if (error instanceof InputError) throw error;
        throw failed(reasonOf(error));
      }
    },
  };
}
