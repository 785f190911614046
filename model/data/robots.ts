import { InputError } from '../../engine/files/errors.ts';
import type { Dataset, SlotMap } from './dataset.ts';
import { changedEpisode } from './parts.ts';
import { checkSlotMap, ownSlotMap } from './slots.ts';

/** A data set of a mixture, and the slots of its robot's dimensions. */
export interface RobotData {
  readonly dataset: Dataset;
  readonly slots: SlotMap;
  /** The sampling weight, for all data sets or for none; n^0.43 for a robot's n examples by default. */
  readonly weight?: number;
}

/**
 * Makes one data set of several, of one robot or of more. Episodes keep their robot's name and its raw numbers; a model
 * of the slots' width learns all of them in one batch, and padded dimensions carry no loss.
 *
 * @throws InputError if control rates or widths differ, a map does not fit its data set, one robot has two maps, or a
 *   weight is not above 0
 */
export function mixDatasets(members: readonly RobotData[]): Dataset {
  const datasets = members.map(({ dataset }) => dataset);
  const [first] = datasets;
  const unlike = datasets.find(({ rate }) => rate !== first.rate);
  if (unlike)
    throw new InputError(
      `"${first.name}" has ${first.rate} Hz, "${unlike.name}" ${unlike.rate}: a chunk would last another time in each; train on them apart, or resample one`,
    );
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
      throw fail('is there twice, with other slots: each needs a name of its own, which is that of its folder');
    if (dataset.stateDimension === 0 && slots.actions.some(({ relative }) => relative))
      throw fail(`has relative actions, and data set "${dataset.name}" no states: give it a map without`);
    robots[slots.robot] = slots;
    if (weighted && !(weight > 0 && Number.isFinite(weight)))
      throw new InputError(`mixture: the weight of "${dataset.name}" is not a number above 0`);
    weights[slots.robot] = (weights[slots.robot] ?? 0) + weight;
  }
  const cameras = [...new Set(datasets.flatMap((dataset) => dataset.cameras))].sort();
  // Places are those in the picture of the first camera.
  const withoutPlaces = (dataset: Dataset) => dataset.cameras[0] !== cameras[0] && { places: undefined };
  return {
    name: datasets.map(({ name }) => name).join(','),
    rate: first.rate,
    actionDimension: width,
    stateDimension: datasets.some(({ stateDimension }) => stateDimension > 0) ? width : 0,
    cameras,
    episodes: members.flatMap(({ dataset, slots }) =>
      dataset.episodes.map((episode) =>
        changedEpisode(episode, () => ({ robot: slots.robot, ...withoutPlaces(dataset) })),
      ),
    ),
    robots,
    weights: weighted ? weights : undefined,
  };
}

/**
 * A data set whose robot has the first dimensions of a wider model, as openpi and LeRobot pad numbers; unchanged where it has all of them,
 * or slot maps of its own.
 *
 * @throws InputError if it has more than the model
 */
export function padded(dataset: Dataset, width: number, model: string): Dataset {
  const { name, actionDimension, stateDimension, robots } = dataset;
  const widest = Math.max(actionDimension, stateDimension);
  if (widest > width)
    throw new InputError(`"${name}" has ${widest} dimensions of actions or states, and ${model} at most ${width}`);
  if (robots || (actionDimension === width && [0, width].includes(stateDimension))) return dataset;
  return mixDatasets([{ dataset, slots: ownSlotMap(dataset, width) }]);
}
