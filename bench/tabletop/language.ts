import {
  type EpisodeResult,
  type Evaluation,
  type EvaluationOptions,
  evaluateClosedLoop,
  type WorldPolicy,
} from './evaluation.ts';
import { Film } from './film.ts';
import { exchanged, makeScene, type NamedThing } from './make-scene.ts';
import type { Scene, SceneSettings, Variation } from './scene.ts';

export type LanguageRow = Awaited<ReturnType<typeof languageTable>>[number];

interface LanguageOptions extends Omit<EvaluationOptions, 'change' | 'film'> {
  readonly scenes: readonly SceneSettings[];
  /** Called after each kind of instruction with its episodes and their film. */
  readonly onRow?: (instruction: string, evaluation: Evaluation, film: Film) => void;
}

/**
 * Lets a policy act in the same scenes with their own instruction and with others, and in scenes of pairs of colour and
 * shape that no training has. The goal of an episode is that of its instruction. A row has numbers of episodes. `policy` makes a policy
 * for each row, so that all rows have the same noise; it tells the film its subtasks.
 */
export async function languageTable(
  policy: (film: Film) => WorldPolicy,
  { scenes, onRow, ...options }: LanguageOptions,
) {
  const placing = scenes.filter(({ task }) => task === 'place');
  const varied = (variation: Variation) => scenes.map(({ task }) => ({ task, variation }));
  const rows: [string, readonly SceneSettings[], NamedThing?][] = [
    ['its own', scenes],
    ['another object named', placing, 'object'],
    ['the other bin, button or drawer named', scenes, 'fixture'],
    ['forms that no training has', varied('words')],
    ['pairs of colour and shape that no training has', varied('pairs')],
  ];
  const rowOf = async ([instruction, own, thing]: (typeof rows)[number]) => {
    const change = thing && ((scene: Scene) => exchanged(scene, thing));
    const film = new Film();
    const evaluation = await evaluateClosedLoop(policy(film), { ...options, scenes: own, change, film });
    onRow?.(instruction, evaluation, film);
    const { episodes, decodes } = evaluation;
    const count = (of: (episode: EpisodeResult) => boolean) => episodes.filter(of).length;
    return {
      ...{ instruction, episodes: episodes.length, decodes },
      success: count(({ success }) => success),
      rightObject: count(({ rightObject }) => rightObject),
      // Episodes in which the policy went for the thing that the scene's own instruction names; null if nothing was exchanged.
      original: thing ? count((episode) => wentForOriginal(episode, thing)) : null,
    };
  };
  const table: Awaited<ReturnType<typeof rowOf>>[] = [];
  for (const row of rows.filter(([, own]) => own.length > 0)) table.push(await rowOf(row));
  return table;
}

/** Whether an episode with an exchanged instruction went as the scene's own instruction says. */
export function wentForOriginal({ seed, settings, firstMoved, bin }: EpisodeResult, thing: NamedThing): boolean {
  const { object, fixture } = makeScene(seed, settings);
  if (thing === 'object') return firstMoved === object;
  return (settings.task === 'place' ? bin : firstMoved) === fixture;
}
