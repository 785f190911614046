/** `insula convert`: any data set, or demonstrations of the built-in world, as a LeRobot 3.0 data set. */
import { InputError } from '../engine/index.ts';
import { expectNoLeRobot, writeLeRobot } from '../model/data/index.ts';
import { command } from './command.ts';
import { cameraOptions, chooseDataset, dataOptions, TABLETOP } from './data.ts';
import { dataNotes } from './notes.ts';
import { number, text } from './options.ts';

const EPISODES = 200;
/** Larger than any frame of a video: all are written at their own size. */
const FRAME_SIZE = 2 ** 16;

interface Converted {
  folder: string;
  source: string;
  episodes: number;
  steps: number;
}

export const convert = command({
  options: {
    ...dataOptions,
    ...cameraOptions,
    out: text('folder for the LeRobot data set; required'),
    type: text("robot_type to write; none by default, 'tabletop' for the built-in world"),
    episodes: number(`the first episodes; all by default, ${EPISODES} of the built-in world`, 1),
    seed: number('chooses the scenes of the built-in world; 0 by default', 0, { excludes: 'data' }),
  },
  notes: dataNotes,
  async run({ out, type, episodes, seed = 0, ...choice }, { progress }) {
    if (out === undefined) throw new InputError('where to? Name a folder with --out');
    await expectNoLeRobot(out);
    const source = { episodes: episodes ?? EPISODES, seed, frameSize: FRAME_SIZE };
    const dataset = await chooseDataset(choice, source, progress);
    const chosen = { ...dataset, episodes: dataset.episodes.slice(0, episodes) };
    await writeLeRobot(out, chosen, {
      robot: type ?? (choice.data ? undefined : TABLETOP),
      onProgress: (done, total) => progress.count('write: episode', done, total),
    });
    const steps = chosen.episodes.reduce((sum, { length }) => sum + length, 0);
    const json: Converted = { folder: out, source: dataset.name, episodes: chosen.episodes.length, steps };
    const line = `${out}: LeRobot 3.0, ${json.episodes} episodes, ${steps} steps at ${dataset.rate} Hz of "${dataset.name}"`;
    return { json, lines: [line] };
  },
});
