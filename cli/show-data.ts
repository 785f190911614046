/** `insula data`: what a data set holds, and what each of its fields becomes. */
import { aligned } from '../bench/measure/table.ts';
import { InputError, quote } from '../engine/index.ts';
import { type Dataset, type MappedField, NoAction } from '../model/data/index.ts';
import { command, type Result } from './command.ts';
import { cameraOptions, chooseDataset, dataOptions } from './data.ts';
import { dataNotes } from './notes.ts';
import { Progress } from './progress.ts';

/** The instructions that are shown. */
const SHOWN = 5;

/** The data set is described by the command's result, and not by a line about it. */
class Counting extends Progress {
  override note(): void {}
}

const withoutNeed = <T extends { readonly needs?: unknown }>({ needs, ...option }: T) => option;
const { data: _, ...others } = dataOptions;
export const showData = command({
  options: {
    ...others,
    dataset: withoutNeed(others.dataset),
    rate: withoutNeed(others.rate),
    map: withoutNeed(others.map),
    cameras: withoutNeed(cameraOptions.cameras),
  },
  names: 'FOLDER, or the file, of a data set',
  notes: dataNotes,
  async run(choice, { names }): Promise<Result> {
    if (names.length !== 1) throw new InputError('data: name one folder or file of a data set: insula data FOLDER');
    const progress = new Counting();
    try {
      return described(await chooseDataset({ ...choice, data: [...names] }, { episodes: 0, seed: 0 }, progress));
    } catch (error) {
      if (!(error instanceof NoAction)) throw error;
      const { fields, message } = error;
      return { json: { fields, error: message }, lines: [...tableOf(fields), `insula: ${message}`], status: 1 };
    } finally {
      progress.end();
    }
  },
});

const oneLine = (text: string) => text.replace(/\s+/g, ' ');

const tableOf = (fields: readonly MappedField[]) =>
  aligned([
    ['field', 'kind', 'shape', 'becomes'],
    ...fields.map(({ name, kind, shape, use, reason }) => [
      ...[oneLine(name), kind, shape ? `[${shape.join(', ')}]` : ''],
      use === null ? `nothing: ${reason}` : use + (reason ? ` (${reason})` : ''),
    ]),
  ]);

function described({ episodes, ...dataset }: Dataset) {
  const { name, description = '', rate, actionDimension, stateDimension, cameras, fields = [], notes = [] } = dataset;
  const lengths = episodes.map(({ length }) => length).sort((a, b) => a - b);
  const [shortest, longest] = [lengths[0], lengths.at(-1)!];
  const steps = lengths.reduce((sum, length) => sum + length, 0);
  const counts = new Map<string, number>();
  for (const { instructions } of episodes)
    for (const text of instructions) counts.set(text, (counts.get(text) ?? 0) + 1);
  const changing = episodes.filter(({ instructionsAt }) => instructionsAt).length;
  const untold = episodes.filter(({ instructions }) => instructions.length === 0).length;
  const shown = [...counts].slice(0, SHOWN);
  const seconds = (length: number) => `${(length / rate).toFixed(1)} s`;
  return {
    json: {
      ...{ name, description, rate, actionDimension, stateDimension, cameras, fields, notes },
      episodes: { count: episodes.length, steps, shortest, longest },
      instructions: { different: counts.size, changing, untold, examples: shown.map(([text]) => text) },
    },
    lines: [
      `${name}: ${description}`,
      ...tableOf(fields),
      `episodes of ${shortest} to ${longest} steps (${seconds(shortest)} to ${seconds(longest)}); actions of ${actionDimension} numbers, states of ${stateDimension || 'none'}`,
      `${counts.size} different instructions${changing > 0 ? `, which change within ${changing} episodes` : ''}${untold > 0 ? `; ${untold} episodes have none` : ''}`,
      ...shown.map(([text, count]) => `  ${quote(text)} in ${count} episodes`),
      ...(counts.size > SHOWN ? [`  and ${counts.size - SHOWN} more`] : []),
      ...notes,
    ],
  };
}
