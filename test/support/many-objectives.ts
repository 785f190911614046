/** A small model with every kind of objective and of rows that a head can read. */
import { causal, full } from '../../kernels/index.ts';
import type { ModelConfiguration } from '../../model/architecture/configuration.ts';
import type { TrainingBatch } from '../../model/architecture/inputs.ts';
import type { ObjectiveSettings } from '../../model/architecture/objectives/index.ts';
import { randomBatch } from '../../model/training/random-batch.ts';
import { integers, normals } from './numbers.ts';

const everyObjective: readonly ObjectiveSettings[] = [
  { kind: 'nextToken', name: 'token', weight: 1 },
  { kind: 'flow', name: 'flow', weight: 1, block: 'action' },
  {
    ...{
      kind: 'regression',
      name: 'l1',
      weight: 1,
      rows: { block: 'slots' },
      error: 'l1',
      rowsPerStep: 2,
      before: true,
    },
    head: { width: 10, blocks: 1 },
  },
  { kind: 'regression', name: 'goal', weight: 1, rows: { block: 'readout' }, error: 'huber', dimension: 3 },
  { kind: 'regression', name: 'depth', weight: 1, rows: { tower: 'vision' }, error: 'squared', dimension: 2 },
  {
    kind: 'regression',
    name: 'behind',
    weight: 1,
    rows: { block: 'language', layer: 2 },
    error: 'squared',
    dimension: 2,
  },
  { kind: 'classification', name: 'entering', weight: 1, rows: { block: 'language', layer: 1 }, classes: 5 },
  { kind: 'classification', name: 'kind', weight: 1, rows: { block: 'readout' }, classes: 4 },
  {
    ...{ kind: 'classification', name: 'mark', weight: 1, rows: { block: 'image', layer: 1 }, classes: 3 },
    balanced: true,
  },
  { kind: 'classification', name: 'patch', weight: 1, rows: { tower: 'vision' }, classes: 6 },
];

export const manyObjectives: ModelConfiguration = {
  backbone: 'gemma',
  vocabulary: 40,
  experts: { backbone: { width: 16, hidden: 24 }, expert: { width: 12, hidden: 16, adaptive: true } },
  ...{ depth: 2, heads: 2, kvHeads: 1, headDimension: 8 },
  vision: {
    towers: { vision: { width: 16, depth: 1, heads: 2, hidden: 16 } },
    ...{ patch: 4, imageHeight: 8, imageWidth: 8, cameras: 2 },
  },
  ...{ horizon: 3, actionDimension: 4, stateDimension: 0 },
  blocks: [
    { name: 'image', input: 'images', weights: 'backbone', length: 8, after: [] },
    { name: 'language', input: 'prompt', weights: 'backbone', length: 5, after: ['image'] },
    { name: 'target', input: 'target', weights: 'backbone', length: 4, after: ['image', 'language'] },
    { name: 'readout', input: 'learned', weights: 'backbone', length: 2, after: ['image', 'language'] },
    { name: 'slots', input: 'zeros', weights: 'backbone', length: 6, after: ['image', 'language'] },
    { name: 'action', input: 'noisyActions', weights: 'expert', length: 3, after: ['image', 'language'], repeats: 2 },
  ],
  edges: ['image', 'language', 'target', 'readout', 'slots', 'action'].flatMap((query) => [
    { query, key: 'image', edge: full },
    { query, key: 'language', edge: full },
    ...(query === 'image' || query === 'language'
      ? []
      : [{ query, key: query, edge: query === 'target' ? causal : full }]),
  ]),
  objectives: everyObjective,
};

/** Rows of an example that each head with targets of its own reads, and the numbers or the classes of a row. */
const rowTargets: Readonly<
  Record<string, { readonly rows: number; readonly dimension?: number; readonly classes?: number }>
> = {
  goal: { rows: 2, dimension: 3 },
  depth: { rows: 8, dimension: 2 },
  behind: { rows: 5, dimension: 2 },
  entering: { rows: 5, classes: 5 },
  kind: { rows: 2, classes: 4 },
  mark: { rows: 8, classes: 3 },
  patch: { rows: 8, classes: 6 },
};

/** Random examples, of which each has fewer real steps, dimensions and rows than the one before; the last has almost none. */
export function unevenBatch(batch: number): TrainingBatch {
  const { horizon, actionDimension } = manyObjectives;
  const real = (count: number, each: number) =>
    Uint8Array.from({ length: batch * each }, (_, i) =>
      i % each < each - (Math.floor(i / each) * count) / batch ? 1 : 0,
    );
  const targets = Object.entries(rowTargets).map(([name, { rows, dimension = 1, classes }], seed) => {
    const count = batch * rows * dimension;
    const data = classes === undefined ? normals(count, seed) : integers(count, classes, seed);
    // The last of eight examples has no marked row.
    return [name, { data, valid: real(name === 'mark' ? rows + 2 : rows, rows) }];
  });
  return {
    ...randomBatch(manyObjectives, batch, 1),
    actionValid: real(horizon, horizon),
    realDimensions: real(actionDimension, actionDimension),
    rowTargets: Object.fromEntries(targets),
  };
}
