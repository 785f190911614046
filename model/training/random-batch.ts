import { type Random, randomStream } from '../../engine/index.ts';
import { sampleTimes } from '../../kernels/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import type { TrainingBatch } from '../architecture/inputs.ts';

/**
 * A batch of random numbers for any model, for measurements and tests. Prompt lengths, token ids, noise and times
 * depend on (seed, step).
 */
export function randomBatch(
  { blocks, backbone, vision, horizon, actionDimension, stateDimension, losses }: ModelConfiguration,
  batch: number,
  seed: number,
  step = 0,
): TrainingBatch {
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
  const backboneBlocks = blocks.filter(({ weights }) => weights === 'backbone');
  const rows = backboneBlocks.reduce((sum, { length }) => sum + length, 0);
  const ids = Object.fromEntries(
    blocks
      .filter(({ input }) => input === 'ids')
      .map(({ name, length }) => {
        // At least half of the tokens are real.
        const real = integers(batch, Math.ceil(length / 2)).map((missing) => length - missing);
        const valid = Uint8Array.from({ length: batch * length }, (_, i) =>
          i % length < real[Math.floor(i / length)] ? 1 : 0,
        );
        return [name, { ids: integers(batch * length, backbone.vocabulary), valid }];
      }),
  );
  const fast = backboneBlocks.find(({ name }) => name === 'fast');
  const isTarget = (i: number) => {
    const row = i % rows;
    const token = fast ? row - (rows - fast.length) : -1;
    return fast && token >= 0 && ids.fast.valid[Math.floor(i / rows) * fast.length + token] ? 1 : 0;
  };
  const chunk = batch * horizon * actionDimension;
  return {
    batch,
    images: vision && normals(batch * vision.cameras * vision.imageHeight * vision.imageWidth * 3),
    cameraValid: vision && new Uint8Array(batch * vision.cameras).fill(1),
    ids,
    state: blocks.some(({ input }) => input === 'state') ? normals(batch * stateDimension) : null,
    lossTarget: losses.token ? integers(batch * rows, backbone.vocabulary) : null,
    lossMask: losses.token ? Uint8Array.from({ length: batch * rows }, (_, i) => isTarget(i)) : null,
    actions: losses.flow ? normals(chunk) : null,
    noise: losses.flow ? normals(chunk) : null,
    time: losses.flow ? sampleTimes(random(), batch) : null,
    actionValid: null,
    realDimensions: null,
  };
}
