import { InputError } from '../../../engine/files/errors.ts';
import { cannotDecode, type Decoder, type Frame } from './video.ts';

// This file runs under node only; node's modules are loaded when a video is decoded.

const INSTALL = 'install ffmpeg 5.1 or newer (apt install ffmpeg, brew install ffmpeg, winget install ffmpeg)';
/** The containers that are read: real ones, none that names other files, as play lists do. */
const CONTAINERS = 'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts';
/** Decoding begins at the keyframe before the first frame and so many seconds, for videos whose own clock does not begin at zero. */
const EARLIER = 0.5;
/** The level of a complaint in a line of ffmpeg. */
const TROUBLE = /\[(?:error|fatal|panic)\] /;
/** ffmpeg's clock for the times of frames, in ticks a second (AV_TIME_BASE). */
const CLOCK = 1e6;

/**
 * Decodes videos by an installed ffmpeg, which may open no other file and no connection.
 *
 * @param frameSize the largest width and height of a frame, in pixels; no frame is made larger
 * @throws InputError if no ffmpeg can be started; the message says what to install
 */
export async function ffmpegDecoder(root: string, what: string, frameSize: number): Promise<Decoder> {
  const [{ spawn }, { access }, { resolve }] = await Promise.all([
    import('node:child_process'),
    import('node:fs/promises'),
    import('node:path'),
  ]);
  return async function* frames(path, from): AsyncGenerator<Frame> {
    const file = resolve(root, path);
    await access(file).catch(() => {
      throw new InputError(`${file}: no such file: it should hold the frames of ${what}`);
    });
    const sides = `w='min(iw,${frameSize})':h='min(ih,${frameSize})':force_original_aspect_ratio=decrease`;
    // The times of frames come as lines of metadata, which are printed for frames that have some.
    const times = `settb=AVTB,metadata=add:key=frame:value=1,metadata=print:direct=1:file='pipe\\:2'`;
    const filters = `${times},scale=${sides}:flags=bilinear:out_color_matrix=bt601:out_range=full`;
    const seek = from > EARLIER ? ` -ss ${from - EARLIER}` : '';
    const input = `-protocol_whitelist file -format_whitelist ${CONTAINERS} -copyts -seek_timestamp 1${seek}`;
    const output = `-map 0:v:0 -fps_mode passthrough -vf ${filters} -q:v 2 -f image2pipe -c:v mjpeg -`;
    // Without -xerror and explode ffmpeg fills what is damaged with what is near it, and ends as if all were well.
    const before = `-nostdin -hide_banner -nostats -v level+info -xerror -err_detect explode ${input} -i`;
    const ffmpeg = spawn('ffmpeg', [...before.split(' '), `file:${file}`, ...output.split(' ')]);
    const stamps: number[] = [];
    /** The first one: what follows tells what came of it. */
    let complaint: string | undefined;
    /** The format of the pixels, which is printed before the first frame. */
    let format: string | undefined;
    let last = Number.NEGATIVE_INFINITY;
    let rest = '';
    let wake = () => {};
    ffmpeg.stderr.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        const stamp = /^frame:\d+ +pts:(-?\d+) /.exec(line);
        if (stamp) stamps.push(Number(stamp[1]) / CLOCK);
        format ??= /^\[info\] +Stream .*: Video: .*?, (\w+)/.exec(line)?.[1];
        if (TROUBLE.test(line))
          complaint ??= line
            .replace(TROUBLE, '')
            .replaceAll(/ @ 0x[\da-f]+/g, '')
            .trim();
      }
      wake();
    });
    let ended = false;
    const closed = new Promise<number | null>((done, fail) => {
      const end = () => {
        ended = true;
        wake();
      };
      ffmpeg.on('error', (error) => [fail(error), end()]).on('close', (code) => [done(code), end()]);
    });
    closed.catch(() => {}); // it is awaited when all pictures have come
    /** The time of the next picture, which is printed before it is encoded, but on another pipe. */
    const stamp = async () => {
      while (stamps.length === 0 && !ended) await new Promise<void>((done) => (wake = done));
      return stamps.shift();
    };
    try {
      for await (const picture of jpegFiles(ffmpeg.stdout)) {
        const time = await stamp();
        if (time === undefined) break;
        if (/^gray(9|1\d)/.test(format ?? '')) {
          const why = 'one channel of more than 8 bits is a depth map, which is no colour picture';
          throw new InputError(
            `${file}: the video of ${what} is ${format}: ${why}; name the other cameras (--cameras)`,
          );
        }
        last = time;
        yield { time, picture };
      }
      const code = await closed;
      if (code !== 0 && !seek) throw cannotDecode(file, what, complaint ?? `ffmpeg ended with ${code}`);
      // Frames after a keyframe may refer to frames before it, without which ffmpeg complains about a sound video.
      if (code !== 0) for await (const frame of frames(path, 0)) if (frame.time > last) yield frame;
    } catch (error) {
      if (error instanceof InputError) throw error;
      const { code, message } = error as NodeJS.ErrnoException;
      const why = code === 'ENOENT' ? 'it is not on the path' : message;
      const only = `${what} exists only as video, and ffmpeg cannot be started (${why})`;
      throw new InputError(`${root}: ${only}: ${INSTALL}, or train without cameras (--cameras none)`);
    } finally {
      ffmpeg.kill();
    }
  };
}

/** Splits a stream of JPEG files at their ends: within a file, 0xff 0xd9 is only the end. */
async function* jpegFiles(stream: AsyncIterable<Buffer>): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let held: Buffer[] = [];
  let last = 0;
  for await (const chunk of stream) {
    let start = 0;
    for (let at = chunk.indexOf(0xd9); at >= 0; at = chunk.indexOf(0xd9, at + 1)) {
      if ((at > 0 ? chunk[at - 1] : last) !== 0xff) continue;
      held.push(chunk.subarray(start, at + 1));
      yield new Uint8Array(Buffer.concat(held));
      held = [];
      start = at + 1;
    }
    if (start < chunk.length) held.push(chunk.subarray(start));
    last = chunk[chunk.length - 1];
  }
}
