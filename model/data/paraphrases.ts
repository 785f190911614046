import type { ByteSource } from '../../engine/files/bytes.ts';
import { InputError, quote } from '../../engine/files/errors.ts';
import type { Dataset, Episode } from './dataset.ts';
import { readJsonObject } from './json.ts';
import { changedEpisode } from './parts.ts';

/** Other wordings of instructions. */
export type Paraphrases = ReadonlyMap<string, readonly string[]>;

/**
 * Reads paraphrases from a JSON file: `{ "put the cup down": ["set down the cup", ...], ... }`; closed after reading.
 *
 * @throws InputError where it is something else
 */
export async function readParaphrases(file: ByteSource): Promise<Paraphrases> {
  return new Map(
    Object.entries(await readJsonObject(file)).map(([instruction, list]) => {
      if (!Array.isArray(list) || !list.every((text) => typeof text === 'string' && text.trim() !== ''))
        throw new InputError(`${file.name}: ${quote(instruction)}: a list of texts was expected`);
      return [instruction, list.map((text: string) => text.trim())];
    }),
  );
}

/** The data set with more wordings: training draws one of an episode's wordings each time, the source's own among them. */
export function withParaphrases(dataset: Dataset, paraphrases: Paraphrases): Dataset {
  const all = (texts: readonly string[]) => [
    ...new Set([...texts, ...texts.flatMap((text) => paraphrases.get(text) ?? [])]),
  ];
  const reword = ({ instructions, instructionsAt }: Episode): Partial<Episode> => ({
    instructions: all(instructions),
    ...(instructionsAt && { instructionsAt: (step: number) => all(instructionsAt(step)) }),
  });
  return { ...dataset, episodes: dataset.episodes.map((episode) => changedEpisode(episode, reword)) };
}
