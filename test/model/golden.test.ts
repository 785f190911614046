import { describe } from 'vitest';
import type { BlockSettings, ModelConfiguration } from '../../model/architecture/configuration.ts';
import type { TrainingBatch } from '../../model/architecture/inputs.ts';
import { describeFixture, type Fixture, readFixture } from '../support/fixtures.ts';
import { edgesOf, testGoldenModel } from '../support/golden-model.ts';

interface FixtureBlock extends Omit<BlockSettings, 'input'> {
  readonly input: BlockSettings['input'] | 'ids' | 'actions';
}

/** Inputs as the first fixtures call them. */
const inputOf = ({ name, input }: FixtureBlock): BlockSettings['input'] =>
  input === 'ids' ? (name === 'fast' ? 'target' : 'prompt') : input === 'actions' ? 'noisyActions' : input;

function configurationOf({ settings }: Fixture, edges: Parameters<typeof edgesOf>[0]): ModelConfiguration {
  const { config, alpha } = settings;
  const { backbone, expert, vision } = config;
  const blocks = (settings.blocks as FixtureBlock[]).map((block) => ({ ...block, input: inputOf(block) }));
  const { patch, image, cameras, width, depth, heads, mlp } = vision;
  return {
    backbone: 'gemma',
    vocabulary: backbone.vocabulary,
    experts: {
      backbone: { width: backbone.width, hidden: backbone.mlp },
      ...(expert && { expert: { width: expert.width, hidden: expert.mlp, adaptive: expert.time === 'adaptive' } }),
    },
    depth: backbone.depth,
    heads: backbone.heads,
    kvHeads: backbone.kvHeads,
    headDimension: backbone.headDim,
    vision: {
      towers: { vision: { width, depth, heads, hidden: mlp } },
      ...{ patch, imageHeight: image[0], imageWidth: image[1], cameras },
    },
    horizon: config.horizon ?? 0,
    actionDimension: config.actionDim ?? 0,
    stateDimension: config.state?.dim ?? 0,
    blocks,
    edges: edgesOf(edges),
    objectives: [
      ...(blocks.some(({ input }) => input === 'target')
        ? [{ kind: 'nextToken', name: 'token', weight: 1 } as const]
        : []),
      ...(config.flow ? [{ kind: 'flow', name: 'flow', weight: alpha, block: 'action' } as const] : []),
    ],
  };
}

function batchOf(fixture: Fixture): TrainingBatch {
  const data = (name: string) => (fixture.has(`input/${name}`) ? fixture.get(`input/${name}`).data : null);
  const ids = Object.fromEntries(
    ['language', 'fast'].flatMap((name) => {
      const own = data(`${name}Ids`);
      return own ? [[name, { ids: own, valid: data(`${name}Valid`)! }]] : [];
    }),
  );
  const horizon = fixture.settings.config.horizon ?? 0;
  const mask = data('actionLossMask');
  return {
    batch: fixture.settings.batch,
    images: data('images') as Float32Array,
    cameraValid: data('cameraValid'),
    ids,
    numbers: { state: data('state') as Float32Array },
    actions: data('actions') as Float32Array | null,
    noise: data('noise') as Float32Array | null,
    time: data('time'),
    actionValid: mask && Uint8Array.from({ length: mask.length * horizon }, (_, i) => mask[Math.floor(i / horizon)]),
    realDimensions: null,
    lossTarget: data('lossTarget'),
    lossMask: data('lossMask'),
  };
}

const cases = ['ki-dummy', 'pi0-dummy', 'pi05-dummy', 'pi0fast-dummy'];

describe('models golden', () => {
  for (const name of cases)
    describeFixture(name, () => {
      const fixture = readFixture(name);
      const { edges, variants } = fixture.settings;
      testGoldenModel({
        ...{ fixture, batch: batchOf(fixture) },
        configuration: (variant) => configurationOf(fixture, variants?.[variant]?.edges ?? edges),
        weights: readFixture(name, ['.weights']),
        gradients: readFixture(name, ['.gradients']),
      });
    });
});
