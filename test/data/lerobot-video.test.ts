import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openDataset } from '../../model/data/index.ts';
import { VIDEO_PATH, videoFiles } from './lerobot-files.ts';

const ffmpeg = (() => {
  try {
    execFileSync('ffmpeg', ['-version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

describe('cameras that exist only as video', () => {
  let folder: string;
  let cacheFolder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'insula-video-'));
    cacheFolder = `${folder}-cache`;
    const files = await videoFiles();
    for (const [path, bytes] of files) {
      await mkdir(join(folder, dirname(path)), { recursive: true });
      await writeFile(join(folder, path), bytes);
    }
  });
  afterAll(() => Promise.all([folder, cacheFolder].map((own) => rm(own, { recursive: true }))));

  test('a camera whose video is missing is named', async () => {
    const { cameras, notes } = await openDataset(folder, undefined, { cacheFolder });
    expect([cameras, notes!.join()]).toEqual([
      [],
      expect.stringMatching(/observation.images.top \(its video .* is not there\)/),
    ]);
  });

  test.skipIf(!ffmpeg)(`every frame of every episode${ffmpeg ? '' : ' (skipped: no ffmpeg)'}`, async () => {
    const video = join(folder, VIDEO_PATH);
    await mkdir(dirname(video), { recursive: true });
    // Frame n is grey with the value 18 n.
    const raw = new Uint8Array(13 * 32 * 48 * 3);
    for (let frame = 0; frame < 13; frame++) raw.fill(18 * frame, frame * 32 * 48 * 3, (frame + 1) * 32 * 48 * 3);
    const input = ['-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', '48x32', '-r', '20', '-i', '-'];
    execFileSync('ffmpeg', ['-v', 'error', ...input, '-c:v', 'mpeg4', '-q:v', '2', video], { input: raw });
    const { episodes } = await openDataset(relative('', folder), undefined, { frameSize: 24, cacheFolder });
    const path = process.env.PATH;
    process.env.PATH = '/nowhere';
    await expect(episodes[0].image('top', 0)).rejects.toThrow(/only as video.*install ffmpeg.*--cameras none/);
    process.env.PATH = path;
    for (const [e, first] of [0, 4, 10].entries()) {
      for (let step = 0; step < episodes[e].length; step++) {
        const { width, height, pixels } = (await episodes[e].image('top', step))!;
        expect([width, height]).toEqual([24, 16]);
        expect(Math.abs(pixels[100] - 18 * (first + step))).toBeLessThan(6);
      }
    }
    const whole = await openDataset(folder, undefined, { frameSize: 4096, cacheFolder });
    const { width, height } = (await whole.episodes[1].image('top', 0))!;
    expect([width, height]).toEqual([48, 32]);
    // With twice as many frames per second, every other frame is that of a step.
    const twice = input.map((word) => (word === '20' ? '40' : word));
    const doubled = new Uint8Array(26 * 32 * 48 * 3);
    for (let frame = 0; frame < 26; frame++) doubled.fill(9 * frame, frame * 32 * 48 * 3, (frame + 1) * 32 * 48 * 3);
    execFileSync('ffmpeg', ['-y', '-v', 'error', ...twice, '-c:v', 'mpeg4', '-q:v', '2', video], { input: doubled });
    const faster = await openDataset(folder, undefined, { frameSize: 24, cacheFolder });
    for (let step = 0; step < 6; step++)
      expect(Math.abs((await faster.episodes[1].image('top', step))!.pixels[100] - 18 * (4 + step))).toBeLessThan(6);
    await writeFile(video, 'no video');
    const { episodes: broken } = await openDataset(folder, undefined, { frameSize: 24, cacheFolder });
    await expect(broken[0].image('top', 0)).rejects.toThrow(/file-000\.mp4: cannot decode the video of episode 0, /);
  });
});
