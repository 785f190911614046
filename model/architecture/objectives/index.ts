import type { ModelConfiguration } from '../configuration.ts';
import { classification } from './classification.ts';
import { denoising } from './denoising.ts';
import { denoisingHead } from './denoising-head.ts';
import { nextToken } from './next-token.ts';
import type { Objective, ObjectiveDescription } from './objective.ts';
import { regression } from './regression.ts';
import type { ObjectiveSettings } from './settings.ts';

export { isReal } from './chunk.ts';
export * from './objective.ts';
export type { PreviousChunks } from './real-time-chunking.ts';
export { rowCount } from './rows.ts';
export { blocksRun, notDecodable, targetsBefore } from './running.ts';
export * from './settings.ts';

/** The objectives of a model, in the order in which their losses are summed. A new kind is a file beside these, and a line here. */
export function objectivesOf(configuration: ModelConfiguration): Objective[] {
  return configuration.objectives.flatMap((settings) => made(settings, configuration));
}

function made(settings: ObjectiveSettings, configuration: ModelConfiguration): Objective | Objective[] {
  switch (settings.kind) {
    case 'nextToken':
      return nextToken(settings, configuration);
    case 'flow':
    case 'diffusion':
      return denoising(settings, configuration);
    case 'denoisingHead':
      return denoisingHead(settings, configuration);
    case 'regression':
      return regression(settings, configuration);
    case 'classification':
      return classification(settings, configuration);
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
