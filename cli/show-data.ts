/** `insula data`: what a data set holds, and what each of its fields becomes. */
import { aligned } from '../bench/measure/table.ts';
import { InputError, quote } from '../engine/index.ts';
import { command } from './command.ts';
import { cameraOptions, chooseDataset, dataOptions } from './data.ts';
import { dataNotes } from './notes.ts';
import { Progress } from './progress.ts';

/** The instructions that are shown. */
const SHOWN = 5;

/** The data set is described by the command's result, and not by a line about it. */
class Counting extends Progress {
  override note(): void {}
}

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
  async run(choice, { names }) {
    if (names.length !== 1) throw new InputError('data: name one folder or file of a data set: insula data FOLDER');
    const progress = new Counting();
    const dataset = await chooseDataset({ ...choice, data: [...names] }, { episodes: 0, seed: 0 }, progress).finally(
      () => progress.end(),
    );
    const {
      name,
      description = '',
      rate,
      actionDimension,
      stateDimension,
      cameras,
      fields = [],
      notes = [],
      episodes,
    } = dataset;
    const steps = episodes.reduce((sum, { length }) => sum + length, 0);
    const counts = new Map<string, number>();
    for (const { instructions } of episodes)
      for (const text of instructions) counts.set(text, (counts.get(text) ?? 0) + 1);
    const changing = episodes.filter(({ instructionsAt }) => instructionsAt).length;
    const untold = episodes.filter(({ instructions }) => instructions.length === 0).length;
    const lengths = episodes.map(({ length }) => length);
    const [shortest, longest] = [lengths.reduce((a, b) => Math.min(a, b)), lengths.reduce((a, b) => Math.max(a, b))];
    const json = {
      ...{ name, description, rate, actionDimension, stateDimension, cameras, fields, notes },
      episodes: { count: episodes.length, steps, shortest, longest },
      instructions: { different: counts.size, changing, untold, examples: [...counts.keys()].slice(0, SHOWN) },
    };
    const shape = (sizes: readonly number[] | undefined) => (sizes ? `[${sizes.join(', ')}]` : '');
    const oneLine = (text: string) => text.replace(/\s+/g, ' ');
    const rows = fields.map((field) => [
      ...[oneLine(field.name), field.kind, shape(field.shape)],
      field.use === null ? `nothing: ${field.reason}` : field.use + (field.reason ? ` (${field.reason})` : ''),
    ]);
    const seconds = (length: number) => `${(length / rate).toFixed(1)} s`;
    const more = counts.size > SHOWN ? [`  and ${counts.size - SHOWN} more`] : [];
    const lines = [
      `${name}: ${description}`,
      ...aligned([['field', 'kind', 'shape', 'becomes'], ...rows]),
      `episodes of ${shortest} to ${longest} steps (${seconds(shortest)} to ${seconds(longest)}); actions of ${actionDimension} numbers, states of ${stateDimension || 'none'}`,
      `${counts.size} different instructions${changing > 0 ? `, which change within ${changing} episodes` : ''}${untold > 0 ? `; ${untold} episodes have none` : ''}`,
      ...[...counts].slice(0, SHOWN).map(([text, count]) => `  ${quote(text)} in ${count} episodes`),
      ...more,
      ...notes,
    ];
    return { json, lines };
  },
});

function withoutNeed<T extends { readonly needs?: unknown }>({ needs, ...option }: T) {
  return option;
}
