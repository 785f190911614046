import type { Folder } from '../../../engine/files/bytes.ts';
import { InputError, reasonOf } from '../../../engine/files/errors.ts';
import { optionalPackages } from '../../../engine/files/optional-packages.ts';
import { cannotDecode, type Decoder, type Frame } from './video.ts';

/** The bytes of a video held in memory. */
const VIDEO_CACHE_BYTES = 2 ** 20;

/**
 * Decodes videos by WebCodecs.
 *
 * @param frameSize the largest width and height of a frame, in pixels; no frame is made larger
 * @throws InputError if there are no WebCodecs
 */
export async function webDecoder(folder: Folder, what: string, frameSize: number): Promise<Decoder> {
  if (typeof VideoDecoder === 'undefined') {
    const instead = 'name other cameras, or none, or open the data set by its path under node, with ffmpeg';
    throw new InputError(`${folder.name}: ${what} exists only as video, and no WebCodecs are here: ${instead}`);
  }
  const { CustomSource, Input, MATROSKA, MP4, QTFF, VideoSampleSink, WEBM } = await optionalPackages(
    'mediabunny',
    'decoding videos in a browser',
    () => import('mediabunny'),
  );
  return async function* frames(path, from) {
    const file = await folder.open(path);
    try {
      const source = new CustomSource({
        getSize: () => file.size,
        read: (start, end) => file.read(start, end),
        maxCacheSize: VIDEO_CACHE_BYTES,
      });
      const track = await new Input({ source, formats: [MP4, QTFF, MATROSKA, WEBM] }).getPrimaryVideoTrack();
      if (!track) throw new Error('it has no video track');
      if (!(await track.canDecode())) throw new Error(`this browser does not decode ${track.codec ?? 'its codec'}`);
      const { displayWidth, displayHeight } = track;
      const scale = Math.min(1, frameSize / Math.max(displayWidth, displayHeight));
      const [width, height] = [displayWidth, displayHeight].map((side) => Math.max(1, Math.round(side * scale)));
      const canvas = new OffscreenCanvas(width, height);
      const context = canvas.getContext('2d')!;
      context.imageSmoothingQuality = 'high';
      for await (const sample of new VideoSampleSink(track).samples(from)) {
        using shown = sample;
        shown.draw(context, 0, 0, width, height);
        const blob = await canvas.convertToBlob({ type: 'image/jpeg', quality: 0.95 });
        yield { time: shown.timestamp, picture: new Uint8Array(await blob.arrayBuffer()) } satisfies Frame;
      }
    } catch (error) {
      throw error instanceof InputError ? error : cannotDecode(`${folder.name}/${path}`, what, reasonOf(error));
    } finally {
      await file.close();
    }
  };
}
