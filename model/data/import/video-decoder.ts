import type { ListedFolder } from './source.ts';
import type { Decoder } from './video.ts';

/** ffmpeg for a folder on disk, WebCodecs in a browser. @throws InputError if there is neither; `what` is the camera */
export async function decoderFor(folder: ListedFolder, what: string, frameSize: number): Promise<Decoder> {
  if (folder.path !== undefined) return (await import('./video-node.ts')).ffmpegDecoder(folder.path, what, frameSize);
  return (await import('./video-browser.ts')).webDecoder(folder, what, frameSize);
}
