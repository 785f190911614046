/** Options of `insula tokenize ...`, as the command line reads them. */
import { flag, number, text } from './options.ts';

const data = {
  data: text('folder or file of a data set (LeRobot, RLDS, HDF5, ...); without it the built-in tabletop world'),
  dataset: text('which of several in that folder'),
  rate: text('control steps a second, of files that do not say'),
  horizon: number('control steps of a chunk; as many as one second has by default', 1),
};
const seed = { seed: number('chooses the held-out episodes, or the scenes of the built-in world; 0 by default', 0) };
const settings = {
  vocabulary: number('ids of FAST at most; 1024 by default', 1),
  bins: number('ids of the naive tokenizers; 256 by default', 1),
  stride: number('from one kept control step to the next, of the naive tokenizer with stride; 5 by default', 1),
  decimals: number('digits behind the point of string actions; 4 by default', 1),
};
const tokenizer = text('file of insula tokenize fit, or folder with tokenizer.json and processor_config.json');

export const fitOptions = {
  ...data,
  ...seed,
  out: text('file for the tokenizer and the statistics; required'),
  kind: text('fast (default), bins, stride or string'),
  scale: text('steps per unit of a FAST coefficient; 10 by default'),
  covers: text('normalised values up to this one are never clamped by FAST; by default those of the data'),
  ...settings,
  format: text('of FAST: integers (default), or published, which openpi and LeRobot read'),
  export: text('folder for the files that openpi and LeRobot read; with --format published'),
};

export const encodeOptions = {
  tokenizer,
  input: text('JSON file of a chunk (a list of steps, each a list of numbers) or of several; otherwise a data set:'),
  ...data,
  ...seed,
  episode: text('id or number of an episode; the first by default'),
  step: number('control step at which the chunk begins; all chunks of the episode by default', 0),
  normalised: flag('the actions are normalised already'),
};

export const decodeOptions = {
  tokenizer,
  ids: text("ids of a chunk: '17 4 256'"),
  input: text('JSON file of ids, or what insula tokenize encode --json printed'),
  horizon: number('control steps of a chunk, where neither input nor tokenizer says', 1),
  dimension: number('numbers of a control step, where neither input nor tokenizer says', 1),
  relaxed: flag('decodes what can be read and says what was cut, held or filled with zeros'),
  normalised: flag('leaves the actions normalised'),
};

export const reportOptions = {
  ...data,
  ...seed,
  scales: text('scales of FAST; 5,10,20 by default'),
  ...settings,
  tokenizer,
  report: text('file for an HTML page with figures'),
};

export const speedOptions = { ...data, ...seed, vocabulary: settings.vocabulary };
