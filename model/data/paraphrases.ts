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
export function withParaphrases(dataset: Dataset, paraphrases: Paraphrases): Dataset {
  const all = (texts: readonly string[]) => [
    ...new Set([...texts, ...texts.flatMap((text) => paraphrases.get(text) ?? [])]),
  ];
  const change = ({ instructions, instructionsAt }: Episode): Partial<Episode> => ({
    instructions: all(instructions),
    ...(instructionsAt && { instructionsAt: (step: number) => all(instructionsAt(step)) }),
  });
  return { ...dataset, episodes: dataset.episodes.map((episode) => changedEpisode(episode, change)) };
}
