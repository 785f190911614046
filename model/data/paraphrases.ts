import type { ByteSource } from '../../engine/files/bytes.ts';
import { InputError, quote } from '../../engine/files/errors.ts';
import type { Dataset, Episode } from './dataset.ts';
import { readJsonObject } from './json.ts';
import { changedEpisode } from './parts.ts';

/** Paraphrases by instruction. */
export type Paraphrases = ReadonlyMap<string, readonly string[]>;

/** Reads paraphrases from a JSON file `{ "put the cup down": ["set down the cup", ...], ... }`, and closes it. */
export async function readParaphrases(file: ByteSource): Promise<Paraphrases> {
  return new Map(
    Object.entries(await readJsonObject(file)).map(([instruction, list]) => {
      if (!Array.isArray(list) || !list.every((text) => typeof text === 'string' && text.trim() !== ''))
        throw new InputError(`${file.name}: ${quote(instruction)}: a list of texts, none of them blank, was expected`);
      return [instruction, list.map((text: string) => text.trim())];
    }),
  );
}

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
