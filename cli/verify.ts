/** `insula verify`: every kernel and a training step on this adapter, compared with float64. */
import { verify } from '../bench/verify/run.ts';
import { verifyLines } from '../bench/verify/text.ts';
import { writeFileSafely } from '../engine/files/files.ts';
import { openDevice } from '../engine/index.ts';
import { command } from './command.ts';
import { deviceOptions, experimentalOption } from './device.ts';
import { verifyNotes } from './notes.ts';
import { flag, outputFile, texts } from './options.ts';

export const verifyCommand = command({
  options: {
    only: texts("names of ops, with * for any letters: 'attention,adaptive*'; 'training' is the training step"),
    all: flag('every variant, also on a software adapter, which compiles those made for GPUs for minutes'),
    out: outputFile('file for the report as JSON'),
    adapter: deviceOptions.adapter,
    floor: deviceOptions.floor,
    experimental: experimentalOption,
  },
  notes: verifyNotes,
  async run({ only = [], all = false, out, adapter, floor, experimental }, { progress }) {
    using device = await openDevice({ adapter, floor, experimental });
    const result = await verify(device, {
      ...{ only, every: all },
      onProgress: (what, done, total) => progress.count(what, done, total),
    });
    if (out !== undefined) await writeFileSafely(out, [`${JSON.stringify(result, null, 1)}\n`]);
    return { json: result, lines: verifyLines(result), status: result.passed ? 0 : 1 };
  },
});
