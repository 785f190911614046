import { describe, expect, test } from 'vitest';
import { backward, type Tensor } from '../../engine/index.ts';
import { edge, full } from '../../kernels/index.ts';
import type { BlockSettings, ModelConfiguration } from '../../model/architecture/configuration.ts';
import { type TrainingBatch, tensorsOf, trainingInputs } from '../../model/architecture/inputs.ts';
import { trainingPass } from '../../model/architecture/losses.ts';
import { Model } from '../../model/architecture/model.ts';
import { decodeGreedily } from '../../model/policy/decoding.ts';
import { sampleActions } from '../../model/policy/sampling.ts';
import { testDevice } from '../support/devices.ts';
import { describeFixture, type Fixture, fixtureTolerance, readFixture } from '../support/fixtures.ts';
import { expectClose, expectZero, relativeError } from '../support/numbers.ts';

function configurationOf(
  { settings }: Fixture,
  edges: { query: string; key: string; mask: 'full' | 'causal'; stopGradient: boolean }[],
): ModelConfiguration {
  const { config, blocks, alpha } = settings;
  const { backbone, expert, vision } = config;
  return {
    backbone: { width: backbone.width, hidden: backbone.mlp, vocabulary: backbone.vocabulary },
    expert: expert && { width: expert.width, hidden: expert.mlp, time: expert.time },
    depth: backbone.depth,
    heads: backbone.heads,
    kvHeads: backbone.kvHeads,
    headDimension: backbone.headDim,
    vision: {
      width: vision.width,
      depth: vision.depth,
      heads: vision.heads,
      hidden: vision.mlp,
      patch: vision.patch,
      imageHeight: vision.image[0],
      imageWidth: vision.image[1],
      cameras: vision.cameras,
    },
    horizon: config.horizon ?? 0,
    actionDimension: config.actionDim ?? 0,
    stateDimension: config.state?.dim ?? 0,
    blocks: blocks as BlockSettings[],
    edges: edges.map(({ query, key, mask, stopGradient }) => ({
      query,
      key,
      edge: stopGradient ? edge({ mask, stopKey: true, stopValue: true }) : mask === 'full' ? full : edge({ mask }),
    })),
    losses: { token: blocks.some((block: BlockSettings) => block.name === 'fast'), flow: config.flow, alpha },
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
    state: data('state') as Float32Array | null,
    actions: data('actions') as Float32Array | null,
    noise: data('noise') as Float32Array | null,
    time: data('time'),
    actionValid: mask && Uint8Array.from({ length: mask.length * horizon }, (_, i) => mask[Math.floor(i / horizon)]),
    realDimensions: null,
    lossTarget: data('lossTarget'),
    lossMask: data('lossMask'),
  };
}

async function loaded(fixture: Fixture, weights: Fixture, variant?: string): Promise<Model> {
  const edges = variant ? fixture.settings.variants[variant].edges : fixture.settings.edges;
  const model = new Model(await testDevice('normal'), configurationOf(fixture, edges));
  const names = new Set([...model.parameters].map((parameter) => parameter.name));
  expect(names).toEqual(new Set(weights.names));
  for (const parameter of model.parameters) {
    const { data, shape } = weights.get(parameter.name);
    expect(shape).toEqual(parameter.shape);
    parameter.write(data as Float32Array);
  }
  return model;
}

const cases = ['ki-dummy', 'pi0-dummy', 'pi05-dummy', 'pi0fast-dummy'];

describe('models golden', () => {
  for (const name of cases) describeFixture(name, () => testCase(name));
});

function testCase(name: string): void {
  const fixture = readFixture(name);
  const weights = readFixture(name, ['.weights']);
  const gradients = readFixture(name, ['.gradients']);
  const tolerance = (what: string) => fixtureTolerance(fixture, what);

  test('forward: residual streams, hidden states, velocity and losses', async () => {
    using model = await loaded(fixture, weights);
    const batch = batchOf(fixture);
    const pass = model.device.step(() =>
      trainingPass(model, tensorsOf(model.device, trainingInputs(model.configuration, batch))),
    );
    const compare = async (tensor: Tensor, what: string, rows?: (row: number) => boolean) => {
      const expected = fixture.get(`expected/${what}`).data;
      const actual = await tensor.read();
      const width = tensor.shape.at(-1) ?? 1;
      const keep = (_: number, i: number) => !rows || rows(Math.floor(i / width));
      expectClose(Array.from(actual).filter(keep), Array.from(expected).filter(keep), tolerance(what), what);
    };
    const validity = fixture.get('layout/validity');
    const tokens = validity.shape[1];
    const backboneRows = fixture.settings.blocks
      .filter((block: BlockSettings) => block.weights === 'backbone')
      .reduce((sum: number, block: BlockSettings) => sum + block.length, 0);
    const real = (row: number) => validity.data[Math.floor(row / backboneRows) * tokens + (row % backboneRows)] === 1;
    const stacks = [
      ['backbone', real],
      ['expert', undefined],
    ] as const;
    for (const [index, [stack, rows]] of stacks.entries()) {
      if (!pass.hidden[index]) continue;
      // The fixtures' last residual of rows that nothing reads is theirs to define; all rows of every layer are compared.
      for (const [layer, residual] of pass.residuals.entries())
        await compare(residual[index]!, `residual/${stack}/${layer}`, rows);
      await compare(pass.hidden[index]!, `hidden/${stack}`, rows);
    }
    for (const what of ['condition', 'noisy', 'target', 'velocity', 'flowLoss', 'tokenLoss', 'loss'] as const)
      if (fixture.has(`expected/${what}`)) await compare(pass[what]!, what);
    if (pass.rows) {
      await compare(pass.rows.rowLoss, 'rowLoss');
      const mask = batch.lossMask!;
      const masked = (await pass.rows.logSumExp.read()).map((value, i) => value * mask[i]);
      expectClose(masked, fixture.get('expected/rowLogSumExp').data, tolerance('rowLogSumExp'), 'rowLogSumExp');
    }
  });

  const variants = ['main', ...Object.keys(fixture.settings.variants ?? {})];
  const runs = variants.flatMap((variant) =>
    (['total', 'flow', 'token'] as const)
      .filter((loss) =>
        gradients.names.some((key) => key.startsWith(`${variant === 'main' ? '' : `${variant}/`}gradient/${loss}/`)),
      )
      .map((loss) => ({ variant, loss })),
  );
  test.each(runs)('gradients of every parameter, $variant, $loss loss', async ({ variant, loss }) => {
    const main = variant === 'main';
    using model = await loaded(fixture, weights, main ? undefined : variant);
    model.device.step(() => {
      const pass = trainingPass(model, tensorsOf(model.device, trainingInputs(model.configuration, batchOf(fixture))));
      backward({ total: pass.loss, flow: pass.flowLoss!, token: pass.tokenLoss! }[loss]);
    });
    const root = `${main ? '' : `${variant}/`}gradient/${loss}`;
    const zero: string[] = fixture.settings.zeroGradients[variant]?.[loss] ?? [];
    const vanishing: string[] = fixture.settings.vanishingGradients[variant]?.[loss] ?? [];
    const norm = fixture.settings.gradientNorms[main ? loss : `${variant}/${loss}`];
    for (const parameter of model.parameters) {
      const actual = parameter.grad ? await parameter.grad.read() : new Float32Array(parameter.size);
      const key = `${root}/${parameter.name}`;
      if (zero.includes(parameter.name)) expectZero(actual, key);
      else if (vanishing.includes(parameter.name))
        expect(relativeError(actual, new Float32Array(actual.length)), key).toBeLessThan(1e-5 * norm);
      else expectClose(actual, gradients.get(key).data, tolerance(key), key);
    }
  });

  test.skipIf(!fixture.settings.eulerSteps)('cached Euler sampling', async () => {
    using model = await loaded(fixture, weights);
    const states: Float32Array[] = [];
    const noise = fixture.get('input/samplingNoise').data as Float32Array;
    const actions = await sampleActions(model, batchOf(fixture), noise, { onState: (state) => states.push(state) });
    const expected = fixture.get('expected/sample/states').data as Float32Array;
    states.forEach((state, i) => {
      expectClose(
        state,
        expected.subarray(i * state.length, (i + 1) * state.length),
        tolerance('sample/states'),
        `Euler step ${i + 1}`,
      );
    });
    expectClose(actions, fixture.get('expected/sample/actions').data, tolerance('sample/actions'), 'actions');
  });

  test.skipIf(!fixture.settings.decodeSteps)('cached greedy decoding', async () => {
    using model = await loaded(fixture, weights);
    const { ids, logits } = await decodeGreedily(model, batchOf(fixture), 'fast', fixture.settings.decodeSteps);
    expect(Array.from(ids)).toEqual(Array.from(fixture.get('expected/decode/ids').data));
    expectClose(logits, fixture.get('expected/decode/logits').data, tolerance('decode/logits'), 'logits');
  });
}
