import { InputError, quote } from '../../engine/errors.ts';
import type { Dataset, Episode } from './dataset.ts';
import { asObject } from './json.ts';

/** Other wordings of instructions. */
export type Paraphrases = ReadonlyMap<string, readonly string[]>;

/**
 * Paraphrases from JSON: `{ "put the cup down": ["set down the cup", ...], ... }`.
 *
 * @param file what errors call it
 * @throws InputError where it is something else
 */
export function paraphrasesFromJson(json: unknown, file: string): Paraphrases {
  return new Map(
    Object.entries(asObject(json, file, 'instructions with lists of wordings')).map(([instruction, list]) => {
      if (!Array.isArray(list) || !list.every((text) => typeof text === 'string' && text.trim() !== ''))
        throw new InputError(`${file}: ${quote(instruction)}: a list of texts was expected`);
      return [instruction, list.map((text: string) => text.trim())];
    }),
  );
}

/** The data set with more wordings: training draws one of an episode's wordings each time, the source's own among them. */
export function withParaphrases(dataset: Dataset, paraphrases: Paraphrases): Dataset {
  const reword = (episode: Episode): Episode => {
    const { instructions, load } = episode;
    const all = new Set([...instructions, ...instructions.flatMap((text) => paraphrases.get(text) ?? [])]);
    // Prototypes keep getters that must not run, such as the numbers of an episode on disk.
    return Object.create(episode, {
      instructions: { value: [...all], enumerable: true },
      ...(load && { load: { value: async () => reword(await load()), enumerable: true } }),
    });
  };
  return { ...dataset, episodes: dataset.episodes.map(reword) };
}
