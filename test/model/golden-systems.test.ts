/** Small systems with other blocks, objectives and experts; section 6 of the fixtures' README. */
import { describe } from 'vitest';
import type { BlockSettings, ExpertSettings, ModelConfiguration } from '../../model/architecture/configuration.ts';
import type { Ids, TrainingBatch } from '../../model/architecture/inputs.ts';
import type { ObjectiveSettings } from '../../model/architecture/objectives/index.ts';
import { describeFixture, type Fixture, readFixture } from '../support/fixtures.ts';
import { edgesOf, testGoldenModel } from '../support/golden-model.ts';

interface GroupSettings extends Pick<ExpertSettings, 'encoder' | 'crossAttention'> {
  readonly width: number;
  readonly mlp: number;
  readonly time: 'adaptive' | 'concatenate' | null;
}

/** An objective as the fixtures write it: as the model does, but for the rows that it reads and the sizes of the residual head. */
type FixtureObjective = ObjectiveSettings & {
  readonly block: string;
  /** The rows of a regression: one row earlier than those of its block. */
  readonly rows?: 'before';
  readonly head?: { readonly hidden: number; readonly blocks: number };
};

interface FixtureTower {
  readonly name: string;
  readonly frozen: boolean;
}

function objectiveOf(objective: FixtureObjective, { settings }: Fixture): ObjectiveSettings {
  const { kind, block } = objective;
  if (kind === 'denoisingHead') return { ...objective, rows: { block } };
  if (kind !== 'regression') return objective;
  const { rows, head, ...given } = objective;
  if (head && 'trunk' in head) return { ...given, head, rows: { block } };
  const length = settings.blocks.find((own: BlockSettings) => own.name === block).length;
  return {
    ...{ ...given, rows: { block } },
    rowsPerStep: length / settings.config.horizon,
    before: rows === 'before',
    ...(head && { head: { width: head.hidden, blocks: head.blocks } }),
  };
}

function configurationOf(fixture: Fixture): ModelConfiguration {
  const { config, blocks, edges, objectives } = fixture.settings;
  const { backbone, vision } = config;
  const towers: readonly FixtureTower[] = vision.towers;
  const experts: [string, GroupSettings][] = Object.entries({ backbone, ...config.experts });
  const { width, depth, heads, mlp, patch, image, cameras, resampler, towerPerCamera } = vision;
  return {
    backbone: 'gemma',
    vocabulary: backbone.vocabulary,
    experts: Object.fromEntries(
      experts.map(([name, { width, mlp, time, encoder, crossAttention }]) => [
        name,
        { width, hidden: mlp, adaptive: time === 'adaptive', encoder, crossAttention },
      ]),
    ),
    depth: backbone.depth,
    heads: backbone.heads,
    kvHeads: backbone.kvHeads,
    headDimension: backbone.headDim,
    vision: {
      towers: Object.fromEntries(towers.map(({ name }) => [name, { width, depth, heads, hidden: mlp }])),
      ...{ patch, imageHeight: image[0], imageWidth: image[1], cameras, towerPerCamera },
      ...(resampler && { resampler: { ...resampler, headDimension: resampler.headDim, hidden: resampler.mlp } }),
    },
    history: config.history,
    horizon: config.horizon ?? 0,
    actionDimension: config.actionDim ?? 0,
    stateDimension: config.stateDim ?? 0,
    blocks,
    edges: edgesOf(edges),
    objectives: objectives.map((objective: FixtureObjective) => objectiveOf(objective, fixture)),
    rules: towers.filter(({ frozen }) => frozen).map(({ name }) => ({ match: name, frozen: true })),
  };
}

function batchOf(fixture: Fixture): TrainingBatch {
  const data = (name: string) => (fixture.has(`input/${name}`) ? fixture.get(`input/${name}`).data : null);
  const floats = (name: string) => data(name) as Float32Array | null;
  const blocks: readonly BlockSettings[] = fixture.settings.blocks;
  const ids: Record<string, Ids> = {};
  const numbers: Record<string, Float32Array> = {};
  const rowValid: Record<string, ArrayLike<number>> = {};
  for (const { name, input } of blocks) {
    if (input === 'prompt' || input === 'target')
      ids[name] = { ids: data(`${name}Ids`)!, valid: data(`${name}Valid`)! };
    if (input === 'state' || input === 'numbers') numbers[name] = floats(name)!;
    const valid = data(`rowValid/${name}`);
    if (valid) rowValid[name] = valid;
  }
  return {
    ...{ batch: fixture.settings.batch, ids, numbers, rowValid },
    images: floats('images'),
    cameraValid: data('cameraValid'),
    lossTarget: data('lossTarget'),
    lossMask: data('lossMask'),
    actions: floats('actions'),
    noise: floats('noise'),
    time: data('time'),
    delays: data('delays') ?? undefined,
    actionValid: data('actionValid'),
    realDimensions: data('realDimensions'),
  };
}

const cases = [
  'transfusion-dummy',
  'hybrid-dummy',
  'ki-continuous-state-dummy',
  'ki-special-state-dummy',
  'ki-repeats-dummy',
  'dual-encoder-dummy',
  'parallel-l1-dummy',
  'parallel-l1-oft-dummy',
  'mixed-dummy',
  'questions-dummy',
  'numbers-dummy',
  'two-experts-dummy',
  'policy-lstm-dummy',
  'policy-transformer-dummy',
  'interleaved-dummy',
  'flamingo-dummy',
  'encoder-decoder-dummy',
  'hybrid-original-dummy',
  'diffusion-head-dummy',
  'flow-head-dummy',
  'delayed-flow-dummy',
  'delayed-flow-concatenated-dummy',
];

describe('small systems golden', () => {
  for (const name of cases)
    describeFixture(name, () => {
      const fixture = readFixture(name);
      const weight = 'weight/';
      testGoldenModel({
        ...{ fixture, gradients: fixture, batch: batchOf(fixture) },
        configuration: () => configurationOf(fixture),
        weights: {
          names: fixture.names.filter((key) => key.startsWith(weight)).map((key) => key.slice(weight.length)),
          get: (key) => fixture.get(weight + key),
        },
      });
    });
});
