import { InputError } from '../../engine/files/errors.ts';
import type { Dataset, SlotMap } from './dataset.ts';
import { checkMixable } from './dataset-mixture.ts';
import { changedEpisode } from './parts.ts';
import { checkSlotMap } from './slots.ts';

/** A data set of a mixture, and where its robot's dimensions stand among those of all. */
export interface RobotData {
  readonly dataset: Dataset;
  readonly slots: SlotMap;
  /** How often it comes beside the others, which have weights too; n^0.43 of a robot's n examples by default. */
  readonly weight?: number;
}

/**
 * Data sets of several robots, or of one, as one data set, whose episodes keep the numbers of their robot and its name. A model of the slots'
 * width learns them in one batch; padded dimensions carry no loss.
 *
 * @throws InputError where control rates or widths differ, a map does not fit its data set, one robot has two, or a weight is not above 0
 */
export function mixRobots(members: readonly RobotData[]): Dataset {
  const datasets = members.map(({ dataset }) => dataset);
  checkMixable(datasets, { slots: true });
  const [{ width }] = members.map(({ slots }) => slots);
  const robots: Record<string, SlotMap> = {};
  const weighted = members.some(({ weight }) => weight !== undefined);
  const weights: Record<string, number> = {};
  for (const { dataset, slots, weight = Number.NaN } of members) {
    checkSlotMap(slots, dataset);
    const fail = (complaint: string) => new InputError(`mixture: robot "${slots.robot}" ${complaint}`);
    if (slots.width !== width) throw fail(`has ${slots.width} slots, the first robot ${width}`);
    const known = robots[slots.robot];
    if (known && JSON.stringify(known) !== JSON.stringify(slots))
      throw fail('is there twice, with other slots: give each a name of its own');
    if (dataset.stateDimension === 0 && slots.actions.some(({ relative }) => relative))
      throw fail(`has relative actions, and data set "${dataset.name}" no states: give it a map without`);
    robots[slots.robot] = slots;
    if (weighted && !(weight > 0 && Number.isFinite(weight)))
      throw new InputError(`mixture: the weight of "${dataset.name}" is not a number above 0`);
    weights[slots.robot] = (weights[slots.robot] ?? 0) + weight;
  }
  return {
    name: datasets.map(({ name }) => name).join(','),
    rate: datasets[0].rate,
    actionDimension: width,
    stateDimension: datasets.some(({ stateDimension }) => stateDimension > 0) ? width : 0,
    cameras: [...new Set(datasets.flatMap(({ cameras }) => cameras))].sort(),
    episodes: members.flatMap(({ dataset, slots }) =>
      dataset.episodes.map((episode) => changedEpisode(episode, () => ({ robot: slots.robot }))),
    ),
    robots,
    weights: weighted ? weights : undefined,
  };
}
