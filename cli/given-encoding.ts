/** A tokenizer and statistics from files, instead of those fitted to the data. */
import { InputError } from '../engine/index.ts';
import type { Dataset } from '../model/data/dataset.ts';
import { checkStatistics, fromNormStats, withoutPadding } from '../model/data/index.ts';
import { jsonOf, readTokenizer } from '../model/policy/tokenizer-file.ts';
import type { RunOptions } from '../model/training/prepare-run.ts';
import type { RunSettings } from '../model/training/run-settings.ts';

/**
 * Reads the files that the settings name.
 *
 * @throws InputError if a file is malformed; the returned function throws if a file belongs to another robot than the data
 */
export async function givenEncoding({
  tokenizer: path,
  statistics: file,
}: Pick<RunSettings, 'tokenizer' | 'statistics'>) {
  const read = path === null ? undefined : await readTokenizer(path);
  const tokenizer = read?.tokenizer;
  const padded = file === null ? undefined : fromNormStats(await jsonOf(file), file);
  return (dataset: Dataset): RunOptions['given'] => {
    if (dataset.robots) return { tokenizer, statistics: padded };
    const statistics = padded && withoutPadding(padded, dataset);
    if (statistics) checkStatistics(statistics, dataset, `--statistics ${file}`);
    const { name, actionDimension } = dataset;
    if (read?.dimension != null && read.dimension !== actionDimension) {
      const has = `data set "${name}" has ${actionDimension}: fit one with insula tokenize fit`;
      throw new InputError(`--tokenizer ${path}: "dimension" is ${read.dimension}, ${has}`);
    }
    return { tokenizer, statistics };
  };
}
