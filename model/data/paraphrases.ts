import * as v from 'valibot';
import type { ByteSource } from '../../engine/files/bytes.ts';
import { dictionary, readChecked } from '../../engine/files/json-schema.ts';
import type { Dataset, Episode } from './dataset.ts';
import { changedEpisode } from './parts.ts';

/** Paraphrases by instruction. */
export type Paraphrases = ReadonlyMap<string, readonly string[]>;

const text = v.pipe(v.string('text'), v.trim(), v.nonEmpty('text'));

/** Reads paraphrases from a JSON file `{ "put the cup down": ["set down the cup", ...], ... }`, and closes it. */
export const readParaphrases = async (file: ByteSource): Promise<Paraphrases> =>
  new Map(Object.entries(await readChecked(file, dictionary(v.array(text, 'a list of texts')))));

/** Adds paraphrases to a data set: training draws one of an episode's instructions each time, or one of these. */
export const withParaphrases = (dataset: Dataset, paraphrases: Paraphrases): Dataset =>
  withMore(dataset, (text) => paraphrases.get(text) ?? []);

const forms = ['please X', 'can you X', 'now X', 'your task: X', 'X, please', 'I want you to X', 'go on and X'];

/** Adds paraphrases that fit every instruction in the imperative. */
export const withForms = (dataset: Dataset): Dataset =>
  withMore(dataset, (text) => forms.map((form) => form.replace('X', () => text)));

function withMore(dataset: Dataset, paraphrasesOf: (text: string) => readonly string[]): Dataset {
  const all = (texts: readonly string[]) => [...new Set([...texts, ...texts.flatMap(paraphrasesOf)])];
  const change = ({ instructions, instructionsAt }: Episode): Partial<Episode> => ({
    instructions: all(instructions),
    ...(instructionsAt && { instructionsAt: (step: number) => all(instructionsAt(step)) }),
  });
  return { ...dataset, episodes: dataset.episodes.map((episode) => changedEpisode(episode, change)) };
}
