/** `insula inspect --swap`. */
import { aligned, digits } from '../bench/measure/table.ts';
import { counted } from '../engine/files/errors.ts';
import { InputError } from '../engine/index.ts';
import { actingObjective, describedObjectives } from '../model/architecture/objectives/index.ts';
import type { Image } from '../model/data/dataset.ts';
import { evaluationSamples, loadExamples, type Sample } from '../model/data/index.ts';
import { type MovedExample, meanMoves, swappedActions, swappedLosses } from '../model/inspect/swapped.ts';
import { movesSection, moveWords } from '../model/report/moves-section.ts';
import { swappedSection } from '../model/report/swapped-section.ts';
import { observationAt } from '../model/training/batches.ts';
import type { Measurement } from './measurement.ts';
import { swappedLines } from './text.ts';

/** Control steps by default, and those that the page shows. */
const [STEPS, SHOWN] = [32, 6];

export const swap = {
  help: `how far losses and predicted actions move when each of --batch control steps (${STEPS} by default) gets the pictures, or the words, of another`,
  needsReal: true,
  async measure({ model, real }, { batch = STEPS }, { signal }) {
    const { policy, settings, split } = real!;
    const samples = evaluationSamples(split.heldOut, batch);
    const losses = await swappedLosses(policy, settings, samples, signal);
    if (!losses.pictures && !losses.words)
      throw new InputError(
        `--swap: these ${samples.length} control steps have the same words, and no pictures of another episode: take more with --batch, or other --data`,
      );
    const moved = actingObjective(model.objectives) ? await swappedActions(policy, settings, samples, signal) : null;
    const objectives = describedObjectives(model.configuration);
    const [camera] = policy.encoding.settings.cameras;
    return {
      examples: `${counted(samples.length, 'control step')} of held-out episodes`,
      json: { losses, moves: moved && { ...meanMoves(moved), byExample: moved.map(({ moves }) => moves) } },
      lines: [...swappedLines(losses, objectives), ...(moved ? moveLines(moved) : []), ''],
      sections: async () => {
        const shown = (moved ?? []).slice(0, SHOWN).map(async (own) => ({
          ...own,
          pictures: camera === undefined ? [] : await picturesAt([own.sample, own.others.pictures], camera),
        }));
        const section = swappedSection(losses, objectives);
        return [...(section ? [section] : []), ...(moved ? [movesSection(moved, await Promise.all(shown))] : [])];
      },
    };
  },
} satisfies Measurement;

/** The pictures of a camera; null where there is no example. */
const picturesAt = (samples: readonly (Sample | null)[], camera: string): Promise<(Image | null)[]> =>
  Promise.all(
    samples.map(async (sample) => {
      if (!sample) return null;
      const [loaded] = await loadExamples([sample]);
      return (await observationAt(loaded as Sample, [camera])).images[camera];
    }),
  );

function moveLines(moved: readonly MovedExample[]): string[] {
  const moves = meanMoves(moved);
  const rows = moveWords.flatMap(([name, words]) => (moves[name] === null ? [] : [[words, digits(moves[name])]]));
  return [
    '',
    'root mean square distance of predicted chunks from those of the unchanged steps with the same noise, in units of normalised actions:',
    ...aligned(rows, 1),
  ];
}
