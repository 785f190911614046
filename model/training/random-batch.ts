import { type Random, randomStream } from '../../engine/index.ts';
import { type ModelConfiguration, sourceOf, windowOf } from '../architecture/configuration.ts';
import type { TrainingBatch } from '../architecture/inputs.ts';
import { objectivesOf, rowCount } from '../architecture/objectives/index.ts';
import { rowsOf, trainingBlocks } from '../architecture/sequence.ts';

/** Objectives draw from streams of their own, far from those of the batch. */
const OBJECTIVE_STREAMS = 1024;

/**
 * A batch of random numbers for any model, for measurements and tests: so many examples, each with all its control steps. Prompt
 * lengths, token ids, noise and times depend on (seed, step).
 */
export function randomBatch(
  configuration: ModelConfiguration,
  examples: number,
  seed: number,
  step = 0,
): TrainingBatch {
  const batch = examples * windowOf(configuration);
  const { blocks, vocabulary, vision, horizon, actionDimension, stateDimension } = configuration;
  const objectives = objectivesOf(configuration);
  let streams = 0;
  const random = (): Random => randomStream(seed, step, streams++);
  const normals = (count: number) => {
    const numbers = new Float32Array(count);
    random().fillNormal(numbers);
    return numbers;
  };
  const integers = (count: number, below: number) => {
    const stream = random();
    return Uint32Array.from({ length: count }, (_, i) => Math.min(below - 1, Math.floor(stream.uniform(i) * below)));
  };
  const ofTokens = blocks.filter(({ input }) => input === 'prompt' || input === 'target');
  const ids = Object.fromEntries(
    ofTokens.map((block) => {
      const { length } = block;
      // At least half of the tokens are real.
      const real = integers(batch, Math.ceil(length / 2)).map((missing) => length - missing);
      const valid = Uint8Array.from({ length: batch * length }, (_, i) =>
        i % length < real[Math.floor(i / length)] ? 1 : 0,
      );
      return [sourceOf(block), { ids: integers(batch * length, vocabulary), valid }];
    }),
  );
  const running = trainingBlocks(configuration);
  const targets = blocks.filter(({ input }) => input === 'target');
  const rows = rowsOf(running, (targets[0] ?? running[0]).name).of;
  const lossMask = new Uint8Array(batch * rows);
  for (const target of targets) {
    const { start, length } = rowsOf(running, target.name);
    const { valid } = ids[sourceOf(target)];
    for (let sample = 0; sample < batch; sample++)
      lossMask.set(valid.subarray(sample * length, (sample + 1) * length), sample * rows + start);
  }
  const numbers = blocks.flatMap((block) => {
    const dimension =
      block.input === 'state' ? stateDimension : block.input === 'numbers' ? block.dimension : undefined;
    return dimension === undefined ? [] : [[sourceOf(block), normals(batch * block.length * dimension)]];
  });
  const rowTargets = configuration.objectives.flatMap((objective) => {
    if (objective.kind !== 'classification' && objective.kind !== 'regression') return [];
    const dimension = objective.kind === 'classification' ? 1 : objective.dimension;
    if (dimension === undefined) return [];
    const rows =
      (batch * rowCount(configuration, objective.rows)) / (('rowsPerStep' in objective && objective.rowsPerStep) || 1);
    const data = objective.kind === 'classification' ? integers(rows, objective.classes) : normals(rows * dimension);
    return [[objective.name, { data, valid: integers(rows, 2) }]];
  });
  const drawn = objectives.map((objective, i) =>
    objective.draw?.((stream) => randomStream(seed, step, OBJECTIVE_STREAMS * (i + 1) + stream), batch, 0),
  );
  return {
    batch,
    images: vision && normals(batch * vision.cameras * vision.imageHeight * vision.imageWidth * 3),
    cameraValid: vision && new Uint8Array(batch * vision.cameras).fill(1),
    ids,
    numbers: Object.fromEntries(numbers),
    lossTarget: targets.length > 0 ? integers(batch * rows, vocabulary) : null,
    lossMask: targets.length > 0 ? lossMask : null,
    actions: horizon > 0 ? normals(batch * horizon * actionDimension) : null,
    noise: null,
    time: null,
    actionValid: null,
    realDimensions: null,
    rowTargets: Object.fromEntries(rowTargets),
    ...Object.assign({}, ...drawn),
  };
}
