import { BufferTarget, CanvasSource, Mp4OutputFormat, Output, type VideoCodec } from 'mediabunny';
import { openDataset } from '../../model/data/index.ts';
import { VIDEO_PATH, videoFiles } from '../data/lerobot-files.ts';
import { folderOf } from '../data/synthetic.ts';

export interface VideoReading {
  /** Width and height of a frame at a frame size of 24. */
  size: number[];
  /** Grey of the frames of each episode, asked for from the last to the first. */
  greys: number[][];
  /** The errors of a file cut off in the middle and of one that is no video. */
  complaints: string[];
}

/** A LeRobot data set whose video of 13 frames at 20 Hz, 48 x 32, frame n grey of 18 n, with a keyframe every so many seconds, is made and read in the page. */
export async function readVideos(codec: VideoCodec, keyFrameInterval: number): Promise<VideoReading> {
  const files = await videoFiles();
  files.set(VIDEO_PATH, await greyVideo(codec, keyFrameInterval, 13));
  const { episodes } = await openDataset(folderOf(files), undefined, { frameSize: 24 });
  const greys: number[][] = episodes.map(() => []);
  let size: number[] = [];
  for (const [e, episode] of [...episodes.entries()].reverse()) {
    for (let step = episode.length - 1; step >= 0; step--) {
      const { width, height, pixels } = (await episode.image('top', step))!;
      size = [width, height];
      greys[e][step] = pixels[(8 * 24 + 12) * 3];
    }
  }
  const complaint = async (video: Uint8Array<ArrayBuffer>) => {
    const { episodes } = await openDataset(folderOf(new Map(files).set(VIDEO_PATH, video)));
    return episodes[2].image('top', 2).then(
      () => 'none',
      (error) => String(error),
    );
  };
  const complaints = [
    await complaint(await greyVideo(codec, keyFrameInterval, 7)),
    await complaint(new Uint8Array(99)),
  ];
  return { size, greys, complaints };
}

async function greyVideo(
  codec: VideoCodec,
  keyFrameInterval: number,
  frames: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const target = new BufferTarget();
  const output = new Output({ format: new Mp4OutputFormat(), target });
  const canvas = new OffscreenCanvas(48, 32);
  const context = canvas.getContext('2d')!;
  const track = new CanvasSource(canvas, { codec, bitrate: 2e6, keyFrameInterval });
  output.addVideoTrack(track, { frameRate: 20 });
  await output.start();
  for (let frame = 0; frame < frames; frame++) {
    context.fillStyle = `rgb(${18 * frame} ${18 * frame} ${18 * frame})`;
    context.fillRect(0, 0, 48, 32);
    await track.add(frame / 20, 1 / 20);
  }
  await output.finalize();
  return new Uint8Array(target.buffer!);
}
