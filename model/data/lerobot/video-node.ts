import { InputError } from '../../../engine/files/errors.ts';
import { openPath } from '../../../engine/files/paths.ts';
import type { Image } from '../dataset.ts';
import { decodeImage, readImage } from '../image-files.ts';
import { FRAME_SIZE, type VideoClip, type VideoFrames } from './dataset.ts';

// This file runs under node only; node's modules are loaded when videos are opened.

const INSTALL = 'install ffmpeg 5.1 or newer (apt install ffmpeg, brew install ffmpeg, winget install ffmpeg)';

/** A temporary folder of frames that is older than this, in milliseconds, is abandoned. */
const ABANDONED = 24 * 3600 * 1000;

/**
 * Decodes videos by an installed ffmpeg. The first request for a frame of an episode decodes all of its frames to JPEG
 * files in `frameFolder`, where later runs find them again.
 *
 * @throws InputError if no ffmpeg can be started; the message says what to install
 */
export async function openVideoFrames(
  cameras: readonly string[],
  root: string,
  frameSize = FRAME_SIZE,
  frameFolder?: string,
): Promise<VideoFrames> {
  const [{ createHash }, { mkdir, mkdtemp, readdir, rename, rm, stat }, { join, resolve }] = await Promise.all([
    import('node:crypto'),
    import('node:fs/promises'),
    import('node:path'),
  ]);
  await runFfmpeg(['-version']).catch((error) => {
    const what = `cameras ${cameras.join(', ')} exist only as video, and ffmpeg cannot be started (${error.message})`;
    throw new InputError(`${root}: ${what}: ${INSTALL}, or train without them (--cameras none)`);
  });
  const { cacheFolder } = await import('../../../engine/adapters/cache-folder.mjs');
  const cache = frameFolder ?? join(cacheFolder(), 'frames');
  // Runs that were killed may have left temporary folders behind.
  for (const name of await readdir(cache).catch(() => [])) {
    if (!name.includes('-')) continue;
    const begun = await stat(join(cache, name)).catch(() => null);
    if (begun && Date.now() - begun.mtimeMs > ABANDONED) await rm(join(cache, name), { recursive: true, force: true });
  }

  /** Decodes a clip and returns the folder and the number of its frames; one ffmpeg runs at a time. */
  const decode = async (clip: VideoClip): Promise<{ folder: string; frames: number }> => {
    const { path, start, length, rate, what } = clip;
    const file = resolve(root, path); // ffmpeg runs in another folder
    const { size: bytes, mtimeMs } = await stat(file).catch(() => {
      throw new InputError(`${file}: no such file: it should hold the frames of ${what}`);
    });
    const key = JSON.stringify([file, bytes, mtimeMs, start, length, rate, frameSize]);
    const folder = join(cache, createHash('sha256').update(key).digest('hex').slice(0, 24));
    const count = async () => (await readdir(folder)).length;
    const kept = await count().catch(() => 0);
    if (kept > 0) return { folder, frames: kept };
    await mkdir(cache, { recursive: true });
    const temporary = await mkdtemp(`${folder}-`);
    try {
      // Seeking a little early keeps rounding from losing the first frame.
      const seek = ['-ss', String(Math.max(0, start - 0.1 / rate)), '-i', file, '-frames:v', String(length), '-an'];
      const sides = `w='min(iw,${frameSize})':h='min(ih,${frameSize})'`; // no frame is made larger
      const scale = `scale=${sides}:force_original_aspect_ratio=decrease:flags=bilinear`;
      // If the video has more frames per second than the data have steps, only the frames at steps are selected.
      const select = `select='isnan(prev_selected_t)+gte(t-prev_selected_t,${0.75 / rate})'`;
      const chosen = ['-fps_mode', 'passthrough', '-vf', `${select},${scale}`];
      const output = ['-q:v', '2', '-start_number', '0', '%06d.jpg'];
      await runFfmpeg(['-nostdin', '-v', 'error', ...seek, ...chosen, ...output], temporary).catch((error) => {
        throw new InputError(`${file}: ffmpeg cannot decode ${what}: ${error.message}`);
      });
      const decoded = (await readdir(temporary)).length;
      // Encoders may drop the last frame; the frame before it then replaces it.
      if (decoded < length - 1) {
        const found = `${decoded} frames from second ${start} on`;
        throw new InputError(`${file}: ${found}, ${what} has ${length} steps: cut off, or of another data set`);
      }
      await rename(temporary, folder).catch(() => {}); // another process was faster
      return { folder, frames: await count() };
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
  };

  const clips = new Map<string, ReturnType<typeof decode>>();
  let queue: Promise<unknown> = Promise.resolve();
  return {
    async frame(clip: VideoClip, step: number): Promise<Image> {
      const key = `${clip.path}:${clip.start}`;
      let decoded = clips.get(key);
      if (!decoded) {
        decoded = queue.then(() => decode(clip));
        clips.set(key, decoded);
        queue = decoded.catch(() => clips.delete(key));
      }
      const { folder, frames } = await decoded;
      const path = join(folder, `${String(Math.min(step, frames - 1)).padStart(6, '0')}.jpg`);
      const { bytes } = await readImage(openPath(path), 'the frame');
      return decodeImage(bytes, 'image/jpeg', `${path} (${clip.path}, ${clip.what}, step ${step})`);
    },
  };
}

/** @throws Error with the last line that ffmpeg wrote, or the reason why it cannot be started */
async function runFfmpeg(args: readonly string[], cwd?: string): Promise<void> {
  const { execFile } = await import('node:child_process');
  await new Promise<void>((resolve, reject) => {
    execFile('ffmpeg', args, { cwd, maxBuffer: 2 ** 24 }, (error, _output, complaints) => {
      if (!error) resolve();
      else if (error.code === 'ENOENT') reject(new Error('it is not on the path'));
      else reject(new Error(complaints.trim().split('\n').at(-1) || error.message.split('\n')[0]));
    });
  });
}
