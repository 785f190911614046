import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeImage } from '../../model/data/image-files.ts';
import { leRobot } from '../../model/data/import/lerobot.ts';
import { chosenFrames, type Decoder, type Frame } from '../../model/data/import/video.ts';
import { ffmpegDecoder } from '../../model/data/import/video-node.ts';
import { VIDEO_PATH, videoFiles } from './lerobot-files.ts';
import { ffmpegHere, fieldsOf, listedFolder, picturesOf, readSource } from './sources.ts';
import { message } from './synthetic.ts';

/** The times of the frames that are chosen of frames at given times, each named by its time in tenths of a second. */
async function choose(frames: readonly number[], clip: { start: number; end: number }, times: readonly number[]) {
  const notes: string[] = [];
  const decoder: Decoder = async function* () {
    for (const tenth of frames) yield { time: tenth / 10, picture: Uint8Array.of(tenth) };
  };
  const chosen: number[] = [];
  const seconds = times.map((tenth) => tenth / 10);
  const options = { rate: 10, what: 'episode 3', note: (line: string) => notes.push(line) };
  for await (const [tenth] of chosenFrames(decoder, { path: 'a.mp4', ...clip }, seconds, options)) chosen.push(tenth);
  return { chosen, notes };
}

describe('the frames of steps', () => {
  const all = Array.from({ length: 30 }, (_, i) => i);

  test('by time, within the episode', async () => {
    expect(await choose(all, { start: 1, end: 1.5 }, [0, 1, 2, 3, 4])).toEqual({
      chosen: [10, 11, 12, 13, 14],
      notes: [],
    });
    expect((await choose(all, { start: 0, end: Number.POSITIVE_INFINITY }, [0.4, 1.6, 2.2, 7, 8])).chosen).toEqual([
      0, 2, 2, 7, 8,
    ]);
    const twice = Array.from({ length: 60 }, (_, i) => i / 2);
    expect((await choose(twice, { start: 0.3, end: 1 }, [0, 1, 2])).chosen).toEqual([3, 4, 5]);
  });

  test('a missing frame is the one before it, never one of another episode, and is noted', async () => {
    const last = await choose(all, { start: 0, end: 0.9 }, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(last.chosen).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 8]);
    expect(last.notes.join()).toMatch(/^a\.mp4: episode 3: the video lacks the frames of steps 9;/);
    const inner = await choose([0, 1, 3, 4], { start: 0, end: 1 }, [0, 1, 2, 3, 4]);
    expect(inner.chosen).toEqual([0, 1, 1, 3, 4]);
    const first = await choose(all, { start: 1, end: 1.4 }, [-1, 0, 1, 2]);
    expect(first.chosen).toEqual([10, 10, 11, 12]);
  });

  test('a video that is cut off, or times that go back, are refused', async () => {
    expect(await message(choose([0, 1, 2], { start: 0, end: 9 }, all))).toMatch(
      /^a\.mp4: episode 3: no frame within 0\.5 steps of steps 3, 4, 5/,
    );
    expect(await message(choose([0, 1, 2], { start: 5, end: 9 }, [0]))).toMatch(
      /no frame of episode 3 from second 5 on/,
    );
    expect(await message(choose(all, { start: 0, end: 9 }, [0, 2, 1]))).toMatch(/"timestamp" does not grow at step 2/);
  });
});

describe.skipIf(!ffmpegHere)(`videos by ffmpeg${ffmpegHere ? '' : ' (skipped: no ffmpeg)'}`, () => {
  let path: string;
  beforeAll(async () => {
    path = await mkdtemp(join(tmpdir(), 'insula-frames-'));
    for (const [name, bytes] of await videoFiles()) {
      await mkdir(join(path, dirname(name)), { recursive: true });
      await writeFile(join(path, name), bytes);
    }
    await mkdir(join(path, dirname(VIDEO_PATH)), { recursive: true });
  });
  afterAll(() => rm(path, { recursive: true }));

  /** Writes the video: frame n is grey with the value 18 n / faster. */
  function writeVideo(faster: number): void {
    const count = 13 * faster;
    const raw = new Uint8Array(count * 32 * 48 * 3);
    const size = raw.length / count;
    for (let frame = 0; frame < count; frame++) raw.fill((18 * frame) / faster, frame * size, (frame + 1) * size);
    const input = ['-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', '48x32', '-r', String(20 * faster), '-i', '-'];
    execFileSync('ffmpeg', ['-y', '-v', 'error', ...input, '-c:v', 'mpeg4', '-q:v', '2', join(path, VIDEO_PATH)], {
      input: raw,
    });
  }

  test.each([1, 2])('every frame of every episode, at %d frames a step', async (faster) => {
    writeVideo(faster);
    const folder = listedFolder(path);
    const { source, episodes, notes } = await readSource(leRobot, folder, { frameSize: 24 });
    for (const [e, first] of [0, 4, 10].entries()) {
      const { pictures } = (await picturesOf(folder, source, episodes[e], 'observation.images.top'))!;
      expect(pictures).toHaveLength(episodes[e].length);
      for (const [step, file] of pictures.entries()) {
        const { width, height, pixels } = await decodeImage(file, 'image/jpeg', 'frame');
        expect([width, height]).toEqual([24, 16]);
        expect(Math.abs(pixels[100] - 18 * (first + step))).toBeLessThan(6);
      }
    }
    expect(notes).toEqual([]);
  });

  /** Writes a moving picture with some options of the encoder. */
  function writeMoving(count: number, ...options: string[]): void {
    const input = ['-f', 'lavfi', '-i', 'testsrc2=size=128x96:rate=20', '-frames:v', String(count)];
    execFileSync('ffmpeg', ['-y', '-v', 'error', ...input, ...options, join(path, VIDEO_PATH)]);
  }
  const top = async (episode: number) => {
    const folder = listedFolder(path);
    const { source, episodes } = await readSource(leRobot, folder);
    return (await picturesOf(folder, source, episodes[episode], 'observation.images.top'))!.pictures;
  };

  test('damaged frames are refused, and no picture is made of them', async () => {
    writeMoving(13, '-c:v', 'mpeg4', '-g', '1');
    const file = join(path, VIDEO_PATH);
    const bytes = await readFile(file);
    expect(await top(0)).toHaveLength(4);
    // The frames of the first episode lie after the word that opens the box of the frames.
    const start = bytes.indexOf('mdat') + 4;
    await writeFile(file, bytes.fill(0x55, start + 2000, start + 2100));
    expect(await message(top(0))).toMatch(
      /file-000\.mp4: cannot decode the video of episode 0, camera ".*": "\[mpeg4\] /,
    );
  });

  test('grey of more than 8 bits is refused as depth', async () => {
    writeMoving(13, '-c:v', 'ffv1', '-pix_fmt', 'gray12le', '-f', 'matroska');
    expect(await message(top(0))).toMatch(/the video of episode 0, camera .* is gray12le: .* depth map/);
    writeMoving(13, '-c:v', 'ffv1', '-pix_fmt', 'gray', '-f', 'matroska');
    expect(await top(0)).toHaveLength(4);
  });

  const x264 =
    ffmpegHere && execFileSync('ffmpeg', ['-v', 'error', '-encoders'], { encoding: 'utf8' }).includes('libx264');
  test.skipIf(!x264)(
    `a sound video whose frames refer to ones before a keyframe${x264 ? '' : ' (no x264)'}`,
    async () => {
      writeMoving(60, '-c:v', 'libx264', '-g', '10', '-x264-params', 'open-gop=1:bframes=3:scenecut=0');
      const decoder = await ffmpegDecoder(path, 'a camera', 64);
      const frames = async (from: number) => {
        const found: Frame[] = [];
        for await (const frame of decoder(VIDEO_PATH, from)) if (frame.time > from - 0.01) found.push(frame);
        return found;
      };
      const all = await frames(0);
      expect(all).toHaveLength(60);
      expect(await frames(1.6)).toEqual(all.slice(32));
    },
  );

  test('a play list named .mp4 reaches no other file and no server', async () => {
    writeVideo(1);
    const folder = listedFolder(path);
    let asked = 0;
    const server = createServer((_, response) => {
      asked += 1;
      response.end();
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    try {
      const { port } = server.address() as AddressInfo;
      const other = join(path, 'other.ts');
      execFileSync('ffmpeg', ['-y', '-v', 'error', '-i', join(path, VIDEO_PATH), '-f', 'mpegts', other]);
      const { source, episodes } = await readSource(leRobot, folder);
      for (const entry of [`file:${other}`, other, `http://127.0.0.1:${port}/a.ts`]) {
        const list = `#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n${entry}\n#EXT-X-ENDLIST\n`;
        await writeFile(join(path, VIDEO_PATH), list);
        expect(await message(picturesOf(folder, source, episodes[0], 'observation.images.top'))).toMatch(
          /file-000\.mp4: cannot decode the video of episode 0, camera "observation\.images\.top"/,
        );
      }
      expect(asked).toBe(0);
    } finally {
      server.close();
    }
  });

  test('a missing video is named with the field, and numbers need no ffmpeg', async () => {
    await rm(join(path, VIDEO_PATH));
    const { source, episodes } = await readSource(leRobot, listedFolder(path));
    expect(fieldsOf(source)['observation.images.top']).toMatchObject({
      use: null,
      reason: `its video ${VIDEO_PATH} is not there`,
    });
    expect(await episodes[0].numbers('action')).toHaveLength(12);
    writeVideo(1);
    const search = process.env.PATH;
    process.env.PATH = '/nowhere';
    try {
      const set = await readSource(leRobot, listedFolder(path));
      expect(await set.episodes[0].numbers('action')).toHaveLength(12);
      expect(
        await message(picturesOf(listedFolder(path), set.source, set.episodes[0], 'observation.images.top')),
      ).toMatch(
        /exists only as video, and ffmpeg cannot be started \(it is not on the path\): install ffmpeg 5\.1.*--cameras none/,
      );
    } finally {
      process.env.PATH = search;
    }
  });
});
