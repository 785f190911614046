/** `insula convert`: any data set, or demonstrations of the built-in world, as a LeRobot 3.0 data set. */
import { InputError } from '../engine/index.ts';
import { expectNoLeRobot, writeLeRobot } from '../model/data/index.ts';
import { chooseDataset } from './choose-data.ts';
import { number, text } from './options.ts';
import type { Progress } from './progress.ts';
import { type DataOptions, TABLETOP } from './train-options.ts';

const EPISODES = 200;
/** Larger than any frame of a video: all are written at their own size. */
const FRAME_SIZE = 2 ** 16;

export const convertOptions = {
  out: text('folder for the LeRobot data set; required'),
  type: text("robot_type to write; none by default, 'tabletop' for the built-in world"),
  episodes: number(`the first episodes; all by default, ${EPISODES} of the built-in world`, 1),
  seed: number('chooses the scenes of the built-in world; 0 by default', 0),
};

interface Converted {
  folder: string;
  source: string;
  episodes: number;
  steps: number;
}

/** @throws InputError where the data set cannot be read, or cannot be LeRobot's as it is: a camera that some episodes lack */
export async function convert(
  options: DataOptions & { out?: string; type?: string; episodes?: number; seed?: number },
  progress: Progress,
): Promise<{ json: Converted; lines: string[] }> {
  const { out, type, episodes, seed = 0, data } = options;
  if (out === undefined) throw new InputError('where to? Name a folder with --out');
  await expectNoLeRobot(out);
  const dataset = await chooseDataset(
    options,
    { episodes: episodes ?? EPISODES, seed, frameSize: FRAME_SIZE },
    progress,
  );
  const chosen = { ...dataset, episodes: dataset.episodes.slice(0, episodes) };
  await writeLeRobot(out, chosen, {
    robot: type ?? (data === undefined ? TABLETOP : undefined),
    onProgress: (done, total) => progress.count('write: episode', done, total),
  });
  const steps = chosen.episodes.reduce((sum, { length }) => sum + length, 0);
  const json = { folder: out, source: dataset.name, episodes: chosen.episodes.length, steps };
  return {
    json,
    lines: [
      `${out}: LeRobot 3.0, ${json.episodes} episodes, ${steps} steps at ${dataset.rate} Hz of "${dataset.name}"`,
    ],
  };
}
