/** Random models: each is refused with one line, or trains, adds up over parts of a batch, and acts as it was trained. */
import { describe, expect, test } from 'vitest';
import { backward, InputError } from '../../engine/index.ts';
import { sourceOf, windowOf } from '../../model/architecture/configuration.ts';
import { type TrainingBatch, tensorsOf } from '../../model/architecture/inputs.ts';
import { Architecture, Model } from '../../model/architecture/model.ts';
import { maximumDelayOf } from '../../model/architecture/objectives/index.ts';
import { alphaBars } from '../../model/architecture/objectives/process.ts';
import { groupsReached } from '../../model/architecture/reach.ts';
import { rowsBefore, trainingBlocks, validityOf } from '../../model/architecture/sequence.ts';
import { lossShares, trainingInputs, trainingPass, withShares } from '../../model/architecture/training-pass.ts';
import { act } from '../../model/policy/acting.ts';
import { testDevice } from '../support/devices.ts';
import { long } from '../support/long.ts';
import { expectClose, expectZero, normals } from '../support/numbers.ts';
import { batchFor, randomConfiguration } from '../support/random-configuration.ts';

const BATCH = 3;
const seeds = Array.from({ length: long ? 1000 : 40 }, (_, seed) => seed);

/** The line that refuses a model; null if it is made. Any other error is a mistake. */
function refusalOf(make: () => unknown): string | null {
  try {
    make();
    return null;
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    expect(error.message).not.toContain('\n');
    return error.message;
  }
}

/** Control steps `begin` ... `begin + size - 1`. */
function partOf(whole: TrainingBatch, begin: number, size: number): TrainingBatch {
  const cut = (value: unknown): unknown => {
    if (ArrayBuffer.isView(value)) {
      const numbers = value as Float32Array;
      const each = numbers.length / whole.batch;
      return numbers.slice(begin * each, (begin + size) * each);
    }
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([name, own]) => [name, cut(own)]));
  };
  return { ...(cut(whole) as TrainingBatch), batch: size };
}

/** Gradients of the weighted sum, or of one loss, by parameter. */
async function gradientsOf(
  model: Model,
  batches: readonly TrainingBatch[],
  { objective, recompute = false }: { objective?: string; recompute?: boolean } = {},
): Promise<Map<string, ArrayLike<number>>> {
  const parts = batches.map((batch) => trainingInputs(model.architecture, batch));
  const shares = lossShares(model, parts);
  model.device.step(() => {
    model.parameters.zeroGradients();
    for (const [i, part] of parts.entries()) {
      const inputs = parts.length === 1 ? part : withShares(part, shares[i]);
      const pass = trainingPass(model, tensorsOf(model.device, inputs), { recompute });
      backward(objective ? pass.objectives[objective].loss : pass.loss);
    }
  });
  const gradients = new Map<string, ArrayLike<number>>();
  for (const { name, size, grad } of model.parameters)
    gradients.set(name, grad ? await grad.read() : new Float32Array(size));
  return gradients;
}

const flat = (gradients: Map<string, ArrayLike<number>>) => [...gradients.values()].flatMap((own) => Array.from(own));

describe('random models', () => {
  test.each(seeds)('seed %i', async (seed) => {
    const configuration = randomConfiguration(seed);
    const refusal = refusalOf(() => new Architecture(configuration));
    if (refusal) return;
    const device = await testDevice('normal');
    using model = new Model(device, configuration);
    for (const [i, parameter] of [...model.parameters].entries()) parameter.write(normals(parameter.size, i, 0.3));
    const batch = batchFor(configuration, BATCH, seed);
    const whole = await gradientsOf(model, [batch]);
    expect(flat(whole).every(Number.isFinite), 'finite gradients').toBe(true);
    expectClose(flat(await gradientsOf(model, [batch], { recompute: true })), flat(whole), 1e-6, 'recomputed');
    const window = windowOf(configuration);
    const parts = [partOf(batch, 0, window), partOf(batch, window, 2 * window)];
    expectClose(flat(await gradientsOf(model, parts)), flat(whole), 1e-5, 'parts');
    for (const { name, blocks, reads = blocks } of model.objectives) {
      const reached = groupsReached(configuration, reads);
      if (model.architecture.trainsNothing({ blocks: reads })) continue;
      const own = await gradientsOf(model, [batch], { objective: name });
      for (const { name: parameter, group } of model.architecture.parameters)
        if (!reached.has(group)) expectZero(own.get(parameter) as Float32Array, `${name}: ${parameter}`);
    }
    await expectActing(model, batch);
  });
});

/** Every objective that acts gives what the pass of training gives on the same tokens, noise and time. */
async function expectActing(model: Model, given: TrainingBatch): Promise<void> {
  const { configuration, device, architecture } = model;
  const { blocks, horizon, actionDimension } = configuration;
  const [noisy] = blocks.filter(({ input }) => input === 'noisyActions');
  const noise = normals(given.batch * horizon * actionDimension, 77);
  const copies = noisy?.repeats ?? 1;
  const size = horizon * actionDimension;
  const repeated = Float32Array.from({ length: noise.length * copies }, (_, i) => {
    return noise[Math.floor(i / (size * copies)) * size + (i % size)];
  });
  const diffuses = configuration.objectives.some(
    (own) => own.kind === 'diffusion' || (own.kind === 'denoisingHead' && own.process === 'diffusion'),
  );
  // Two steps of diffusion begin at level 50, where these actions become the noise itself.
  const share = alphaBars[50];
  const actions = diffuses ? noise.map((own) => (own * (1 - Math.sqrt(1 - share))) / Math.sqrt(share)) : given.actions;
  const time = new Float32Array(given.batch * copies).fill(diffuses ? 0.51 : 1);
  const delay = Math.max(...configuration.objectives.map(maximumDelayOf));
  const delays = new Uint32Array(given.batch * copies).fill(delay);
  const batch = { ...given, actions, noise: repeated, time, delays };
  const pass = device.step(() =>
    trainingPass(model, tensorsOf(device, trainingInputs(architecture, batch)), { allRows: true }),
  );
  /** The ids of the batch, whatever the logits. */
  const written = new Map<string, number>();
  const scores = new Map<number, number>();
  const running = trainingBlocks(configuration);
  const predicting = new Map<number, number>();
  const onLogits = (logits: Float32Array) => {
    expect(logits.every(Number.isFinite)).toBe(true);
    const size = logits.length / given.batch;
    for (const [sample, row] of predicting) {
      const own = logits.subarray(sample * size, (sample + 1) * size);
      scores.set(row, Math.log(own.reduce((sum, logit) => sum + Math.exp(logit), 0)));
    }
    predicting.clear();
  };
  const allowed = (sample: number, target: string): number[] | null => {
    const block = blocks.find(({ name }) => name === target)!;
    const { ids, valid } = batch.ids[sourceOf(block)];
    const key = `${target}/${sample}`;
    const at = written.get(key) ?? 0;
    written.set(key, at + 1);
    const row = sample * block.length + at;
    if (!valid[row]) return null;
    predicting.set(sample, rowsBefore(configuration, batch, running, target)[row]);
    return [ids[row]];
  };
  const writer = { allowed, write: () => true };
  for (const objective of model.objectives) {
    written.clear();
    const states: Float32Array[] = [];
    const onState = (state: Float32Array) => states.push(state);
    const before = Array.from({ length: given.batch }, (_, i) => batch.actions!.slice(i * size, (i + 1) * size));
    const previous = objective.continues && delay > 0 ? { chunks: before, delay } : undefined;
    const options = { objective, noise, steps: diffuses ? 2 : 1, writer, onLogits, onState, previous };
    const acting = act(model, batch, options);
    if (!objective.acts) {
      await expect(acting).rejects.toThrow(InputError);
      continue;
    }
    const made = await acting;
    const { velocity, noise: predicted, prediction } = pass.objectives[objective.name];
    if (objective.decode) {
      const expected = await pass.objectives[objective.name].logSumExp.read();
      const compared = [...scores].filter(([row]) => batch.lossMask![row]);
      expectClose(
        compared.map(([, own]) => own),
        compared.map(([row]) => expected[row]),
        1e-5,
        'log-sum-exp',
      );
    }
    // Rows of padding say nothing.
    const validity = validityOf(configuration, batch);
    const isPadded = (name: string) => Array.from(validity[name] ?? []).includes(0);
    if (isPadded((objective.reads ?? objective.blocks).at(-1)!)) continue;
    if (states.length > 0) {
      const all = await (velocity ?? predicted).read();
      const own = noise.map((value, i) => {
        if (i % size < delay * actionDimension) return batch.actions![i];
        const ofCopy = all[Math.floor(i / size) * size * copies + (i % size)];
        if (velocity) return value - ofCopy;
        const clean = (value - Math.sqrt(1 - share) * ofCopy) / Math.sqrt(share);
        return Math.sqrt(alphaBars[0]) * clean + Math.sqrt(1 - alphaBars[0]) * ofCopy;
      });
      expectClose(states[0], own, 1e-5, `actions of ${objective.name}`);
    } else if (made) expectClose(made, await prediction.read(), 1e-5, `actions of ${objective.name}`);
  }
}
