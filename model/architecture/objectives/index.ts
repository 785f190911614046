import type { ModelConfiguration } from '../configuration.ts';
import { Classification } from './classification.ts';
import { Denoising } from './denoising.ts';
import { DenoisingHead } from './denoising-head.ts';
import { NextToken } from './next-token.ts';
import type { Objective, ObjectiveDescription } from './objective.ts';
import { Regression } from './regression.ts';
import type { ObjectiveSettings } from './settings.ts';

export { isReal } from './chunk.ts';
export * from './objective.ts';
export type { PreviousChunks } from './real-time-chunking.ts';
export { rowCount } from './rows.ts';
export { blocksRun, notDecodable, targetsBefore } from './running.ts';
export * from './settings.ts';

/** The objectives of a model, in the order in which their losses are summed. A new kind is a file beside these, and a line here. */
export function objectivesOf(configuration: ModelConfiguration): Objective[] {
  return configuration.objectives.flatMap((settings): Objective[] => {
    const objective = objectiveOf(settings, configuration);
    return objective instanceof Regression && objective.gripper ? [objective, objective.gripper] : [objective];
  });
}

function objectiveOf(settings: ObjectiveSettings, configuration: ModelConfiguration): Objective {
  switch (settings.kind) {
    case 'nextToken':
      return new NextToken(settings, configuration);
    case 'flow':
    case 'diffusion':
      return new Denoising(settings, configuration);
    case 'denoisingHead':
      return new DenoisingHead(settings, configuration);
    case 'regression':
      return new Regression(settings, configuration);
    case 'classification':
      return new Classification(settings, configuration);
  }
}

/** The objectives in words. */
export function describedObjectives(configuration: ModelConfiguration): ObjectiveDescription[] {
  return objectivesOf(configuration).map(({ name, meaning, baseline }) => ({
    ...{ name, title: `${name} loss`, meaning },
    baseline: baseline?.name ?? null,
  }));
}

/** The objective that a policy acts by: the last one that can. */
export function actingObjective(objectives: readonly Objective[]): Objective | null {
  return objectives.findLast(({ acts }) => acts !== undefined) ?? null;
}
