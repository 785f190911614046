/** `insula convert`: any data set, or demonstrations of the built-in world, as a LeRobot 3.0 data set. */
import { InputError } from '../engine/index.ts';
import { expectNoLeRobot, writeLeRobot } from '../model/data/index.ts';
import { command } from './command.ts';
import { cameraOptions, chooseDataset, dataOptions, TABLETOP } from './data.ts';
import { dataNotes } from './notes.ts';
import { flag, number, outputFolder, text } from './options.ts';
import { expectNoFiles } from './outputs.ts';

const EPISODES = 200;
/** Larger than any video frame, so that frames are written at their own size. */
const FRAME_SIZE = 2 ** 16;

export const convert = command({
  options: {
    ...dataOptions,
    ...cameraOptions,
    out: outputFolder('folder for the LeRobot data set; required'),
    type: text("robot_type to write; none by default, 'tabletop' for the built-in world"),
    'require-images': flag('leaves out episodes that lack images of a camera, instead of the camera', {
      needs: 'data',
    }),
    episodes: number(`the first episodes; all by default, ${EPISODES} of the built-in world`, 1),
    seed: number('chooses the scenes of the built-in world; 0 by default', 0, { excludes: 'data' }),
  },
  notes: dataNotes,
  async run({ out, type, episodes, seed = 0, 'require-images': requireImages, ...choice }, { progress }) {
    if (out === undefined) throw new InputError('convert: name a folder for the data set with --out');
    await expectNoLeRobot(out);
    await expectNoFiles('out', out);
    const source = { episodes: episodes ?? EPISODES, seed, frameSize: FRAME_SIZE };
    const dataset = await chooseDataset(choice, source, progress);
    const all = dataset.episodes.length;
    if (episodes !== undefined && episodes > all) progress.note(`--episodes ${episodes}: "${dataset.name}" has ${all}`);
    const chosen = { ...dataset, episodes: dataset.episodes.slice(0, episodes) };
    const written = await writeLeRobot(out, chosen, {
      robot: type ?? (choice.data ? undefined : TABLETOP),
      requireImages,
      note: (line) => progress.note(line),
      onProgress: (done, total) => progress.count('write: episode', done, total),
    });
    const json = { folder: out, source: dataset.name, ...written };
    const line = `${out}: LeRobot 3.0, ${json.episodes} episodes, ${json.steps} steps at ${dataset.rate} Hz of "${dataset.name}"`;
    return { json, lines: [line] };
  },
});
