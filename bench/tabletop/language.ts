import type { DecodeCounts } from '../../model/policy/decodes.ts';
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

/** How a policy follows one kind of instruction: numbers of episodes. */
export interface LanguageRow {
  readonly instruction: string;
  readonly episodes: number;
  readonly success: number;
  readonly rightObject: number;
  /** Episodes in which the policy went for the thing that the scene's own instruction names; null if nothing was exchanged. */
  readonly original: number | null;
  /** Action tokens that were decoded; null for a policy that acts by none. */
  readonly decodes: DecodeCounts | null;
}

interface LanguageOptions extends Omit<EvaluationOptions, 'change' | 'film'> {
  readonly scenes: readonly SceneSettings[];
  /** Called after each row with its episodes and their film. */
  readonly onRow?: (row: LanguageRow, evaluation: Evaluation, film: Film) => void;
}

/**
 * Lets a policy act in the same scenes with their own instruction and with others, and in scenes of pairs of colour and
 * shape that no training has. The goal of an episode is that of its instruction. `policy` makes a policy for each row, so that
 * all rows have the same noise; it tells the film its subtasks.
 */
export async function languageTable(
  policy: (film: Film) => WorldPolicy,
  { scenes, onRow, ...options }: LanguageOptions,
): Promise<LanguageRow[]> {
  const placing = scenes.filter(({ task }) => task === 'place');
  const varied = (variation: Variation) => scenes.map(({ task }) => ({ task, variation }));
  const rows: [string, readonly SceneSettings[], NamedThing?][] = [
    ['its own', scenes],
    ['another object named', placing, 'object'],
    ['the other bin, button or drawer named', scenes, 'fixture'],
    ['forms that no training has', varied('words')],
    ['pairs of colour and shape that no training has', varied('pairs')],
  ];
  const table: LanguageRow[] = [];
  for (const [instruction, own, thing] of rows) {
    if (own.length === 0) continue;
    const change = thing && ((scene: Scene) => exchanged(scene, thing));
    const film = new Film();
    const evaluation = await evaluateClosedLoop(policy(film), { ...options, scenes: own, change, film });
    const { episodes } = evaluation;
    const count = (of: (episode: EpisodeResult) => boolean) => episodes.filter(of).length;
    const row = {
      instruction,
      episodes: episodes.length,
      success: count(({ success }) => success),
      rightObject: count(({ rightObject }) => rightObject),
      decodes: evaluation.decodes,
      original: thing ? count((episode) => wentForOriginal(episode, thing)) : null,
    };
    table.push(row);
    onRow?.(row, evaluation, film);
  }
  return table;
}

/** Whether an episode with an exchanged instruction went as the scene's own instruction says. */
function wentForOriginal({ seed, settings, firstMoved, bin }: EpisodeResult, thing: NamedThing): boolean {
  const { object, fixture } = makeScene(seed, settings);
  if (thing === 'object') return firstMoved === object;
  return (settings.task === 'place' ? bin : firstMoved) === fixture;
}
