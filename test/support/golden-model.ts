/** The comparisons of a whole model with a golden case; sections 4 and 6 of the fixtures' README say what the files hold. */
import { expect, test } from 'vitest';
import { backward, type Tensor } from '../../engine/index.ts';
import { type Edge, edge, full } from '../../kernels/index.ts';
import type { BlockSettings, ModelConfiguration } from '../../model/architecture/configuration.ts';
import { type TrainingBatch, tensorsOf } from '../../model/architecture/inputs.ts';
import { Model } from '../../model/architecture/model.ts';
import { trainingInputs, trainingPass } from '../../model/architecture/training-pass.ts';
import { type ActOptions, act } from '../../model/policy/acting.ts';
import { testDevice } from './devices.ts';
import { type Fixture, fixtureTolerance } from './fixtures.ts';
import { expectClose, expectZero, relativeError } from './numbers.ts';

interface GoldenModel {
  readonly fixture: Fixture;
  readonly configuration: (variant: string) => ModelConfiguration;
  readonly batch: TrainingBatch;
  /** The weights by their names in the model, and nothing else. */
  readonly weights: Pick<Fixture, 'names' | 'get'>;
  readonly gradients: Fixture;
}

/** The edges of a fixture. */
export function edgesOf(
  edges: readonly { query: string; key: string; mask: 'full' | 'causal'; stopGradient: boolean }[],
): { query: string; key: string; edge: Edge }[] {
  return edges.map(({ query, key, mask, stopGradient }) => ({
    query,
    key,
    edge: stopGradient ? edge({ mask, stopKey: true, stopValue: true }) : mask === 'full' ? full : edge({ mask }),
  }));
}

export function testGoldenModel({ fixture, configuration, batch, weights, gradients }: GoldenModel): void {
  const { settings } = fixture;
  const blocks = (settings.blocks as readonly BlockSettings[]).filter(({ memory }) => !memory);
  const validity = fixture.get('layout/validity');
  const tolerance = (what: string) => fixtureTolerance(fixture, what);

  /** Whether each row [batch, rows of the chosen blocks] is real. */
  const realRows = (chosen: (block: BlockSettings) => boolean, copies = true): boolean[] => {
    const tokens = validity.shape[1];
    const columns = blocks.flatMap((block) => Array<boolean>(block.length * (block.repeats ?? 1)).fill(chosen(block)));
    const own = blocks.flatMap((block) =>
      Array.from({ length: block.length * (block.repeats ?? 1) }, (_, row) => copies || row < block.length),
    );
    return Array.from(validity.data, (value) => value === 1).filter((_, i) => columns[i % tokens] && own[i % tokens]);
  };
  const rowsThrough = (expert: string) => realRows(({ weights: own }) => own === expert);
  const noisyRows = (copies: boolean) => {
    const rows = realRows(({ input }) => input === 'noisyActions', copies);
    return rows.length > 0 ? rows : null;
  };

  /** Compares the elements of real rows with the `part`-th part of an expected tensor. */
  const compareNumbers = (actual: Float32Array, what: string, rows: readonly boolean[] | null = null, part = 0) => {
    const expected = fixture.get(`expected/${what}`).data.subarray(part * actual.length, (part + 1) * actual.length);
    const width = rows ? actual.length / rows.length : 1;
    const keep = (_: number, i: number) => !rows || rows[Math.floor(i / width)];
    expectClose(Array.from(actual).filter(keep), Array.from(expected).filter(keep), tolerance(what), what);
  };

  const loaded = async (variant = 'main'): Promise<Model> => {
    const model = new Model(await testDevice('normal'), configuration(variant));
    expect([...model.parameters].map(({ name }) => name).sort()).toEqual([...weights.names].sort());
    for (const parameter of model.parameters) {
      const { data, shape } = weights.get(parameter.name);
      expect(shape, parameter.name).toEqual(parameter.shape);
      parameter.write(data as Float32Array);
    }
    return model;
  };

  test('forward: residual streams, hidden states, predictions and losses', async () => {
    using model = await loaded();
    const pass = model.device.step(() =>
      trainingPass(model, tensorsOf(model.device, trainingInputs(model.architecture, batch)), { allRows: true }),
    );
    const compare = async (tensor: Tensor, what: string, rows?: readonly boolean[] | null) =>
      compareNumbers((await tensor.read()) as Float32Array, what, rows);
    for (const [expert, hidden] of Object.entries(pass.hidden)) {
      for (const [layer, residual] of pass.residuals.entries())
        if (fixture.has(`expected/residual/${expert}/${layer}`))
          await compare(residual[expert], `residual/${expert}/${layer}`, rowsThrough(expert));
      await compare(hidden, `hidden/${expert}`, rowsThrough(expert));
    }
    const compared: string[] = [];
    for (const [name, result] of Object.entries(pass.objectives)) {
      await compare(result.loss, `${name}Loss`);
      for (const what of ['condition', 'noisy', 'target', 'velocity', 'noise', 'prediction', 'rowLoss']) {
        if (result[what]?.dtype !== 'f32') continue;
        const stored = name.endsWith(' gripper') ? 'gripper' : what;
        compared.push(stored);
        await compare(result[what], stored, what === 'velocity' ? noisyRows(true) : undefined);
      }
      if (!result.logSumExp) continue;
      const masked = (await result.logSumExp.read()).map((value, i) => value * batch.lossMask![i]);
      compareNumbers(masked as Float32Array, 'rowLogSumExp');
    }
    await compare(pass.loss, 'loss');
    for (const what of ['condition', 'velocity', 'noise', 'prediction', 'gripper', 'rowLoss'])
      expect(compared.includes(what), what).toBe(fixture.has(`expected/${what}`));
  });

  const runs = Object.entries<Record<string, string[]>>(settings.zeroGradients).flatMap(([variant, zero]) =>
    Object.keys(zero).map((loss) => ({ variant, loss })),
  );
  test.each(runs)('gradients of every parameter, $variant, $loss loss', async ({ variant, loss }) => {
    using model = await loaded(variant);
    model.device.step(() => {
      const pass = trainingPass(model, tensorsOf(model.device, trainingInputs(model.architecture, batch)));
      backward(loss === 'total' ? pass.loss : pass.objectives[loss].loss);
    });
    const zero: string[] = settings.zeroGradients[variant][loss];
    const vanishing: string[] = settings.vanishingGradients[variant]?.[loss] ?? [];
    // With a single objective the total is its loss.
    const names = model.objectives.length === 1 ? [model.objectives[0].name] : [];
    const norm = settings.gradientNorms[variant === 'main' ? loss : `${variant}/${loss}`];
    for (const parameter of model.parameters) {
      const { name, size, grad } = parameter;
      const actual = grad ? await grad.read() : new Float32Array(size);
      if (zero.includes(name)) expectZero(actual, name);
      else if (vanishing.includes(name))
        expect(relativeError(actual, new Float32Array(size)), name).toBeLessThan(1e-5 * norm);
      else {
        // A gradient is stored once: that of a variant where it differs from the main case, that of a loss where it differs from the total.
        const keys = [loss, 'total', ...names].flatMap((own) => [`${variant}/gradient/${own}`, `gradient/${own}`]);
        const stored = keys.map((key) => `${key}/${name}`).find((key) => gradients.has(key));
        const allowed = Math.max(...keys.map((key) => tolerance(`${key}/${name}`)));
        expectClose(actual, gradients.get(stored ?? name).data, allowed, stored ?? name);
      }
    }
  });

  const sampled = async (options: Pick<ActOptions, 'previous'> = {}) => {
    using model = await loaded();
    const noise = fixture.get('input/samplingNoise').data as Float32Array;
    const states: Float32Array[] = [];
    const steps: number = settings.eulerSteps;
    const actions = await act(model, batch, { noise, steps, onState: (state) => states.push(state), ...options });
    expect(states.length).toBe(steps);
    return { states, actions: actions! };
  };
  if (fixture.has('expected/sample/states'))
    test('cached sampling', async () => {
      const rows = noisyRows(false);
      const { states, actions } = await sampled();
      for (const [step, state] of states.entries()) compareNumbers(state, 'sample/states', rows, step);
      compareNumbers(actions, 'sample/actions', rows);
    });

  if (fixture.has('expected/continued/states'))
    test('chunks that continue previous ones', async () => {
      const { data, shape } = fixture.get('input/previous');
      const size = data.length / shape[0];
      const chunks = Array.from({ length: shape[0] }, (_, i) => data.slice(i * size, (i + 1) * size) as Float32Array);
      const { states } = await sampled({ previous: { chunks, ...settings.continued } });
      for (const [step, state] of states.entries()) compareNumbers(state, 'continued/states', null, step);
    });

  if (fixture.has('expected/prediction'))
    test('actions in one pass', async () => {
      using model = await loaded();
      compareNumbers((await act(model, batch))!, fixture.has('expected/chunk') ? 'chunk' : 'prediction');
    });

  if (fixture.has('expected/decode/ids'))
    test('cached greedy decoding', async () => {
      using model = await loaded();
      const steps: number = settings.decodeSteps;
      const ids: number[][] = Array.from({ length: batch.batch }, () => []);
      const logits: number[][] = Array.from({ length: batch.batch }, () => []);
      await act(model, batch, {
        onLogits: (scores) => {
          const vocabulary = scores.length / batch.batch;
          for (const [sample, own] of logits.entries())
            own.push(...scores.subarray(sample * vocabulary, (sample + 1) * vocabulary));
        },
        writer: {
          allowed: (sample) => (ids[sample].length === steps ? null : 'all'),
          write: (sample, id) => ids[sample].push(id) > 0,
        },
      });
      expect(ids.flat()).toEqual(Array.from(fixture.get('expected/decode/ids').data));
      compareNumbers(Float32Array.from(logits.flat()), 'decode/logits');
    });
}
