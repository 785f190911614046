import { configurationOf, type ModelSizes, type System, systems } from '../../model/systems/index.ts';

/** The sizes of a model that runs in milliseconds. */
export const tinySizes: ModelSizes = {
  backbone: { width: 32, hidden: 64 },
  vocabulary: 50,
  expert: { width: 24, hidden: 40 },
  depth: 2,
  heads: 2,
  kvHeads: 1,
  headDimension: 16,
  vision: { width: 32, depth: 1, heads: 2, hidden: 48, patch: 8, imageHeight: 16, imageWidth: 16, cameras: 1 },
  promptTokens: 6,
  targetTokens: 5,
  horizon: 4,
  actionDimension: 3,
  stateDimension: 5,
};

const modelOf = (system: System) => JSON.stringify(configurationOf(system, tinySizes));

/** One system for each model: others differ from one of them in their tokens or in their recipe alone. */
export const distinctSystems = systems.filter(
  (system) => systems.find((other) => modelOf(other) === modelOf(system)) === system,
);
