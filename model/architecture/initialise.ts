import { elementCount, type ParameterSet, randomStream, streams } from '../../engine/index.ts';
import type { ModelParameter } from './layers.ts';

/**
 * Fills parameters for training from scratch; the same seed gives the same numbers.
 *
 * Matrices are LeCun normal: standard deviation 1 / sqrt(fan-in). Token and position embeddings have 1 / sqrt(width),
 * so that embeddings times sqrt(width), and logits, start near standard deviation 1. Gains of 1 + weight, adaptive
 * modulation, biases and learned rows are 0 and other gains 1, as in openpi; unlike there, the image projector does not start
 * at zero, because no weights are loaded.
 */
export function initialise(parameters: ParameterSet, specifications: readonly ModelParameter[], seed: number): void {
  specifications.forEach(({ name, shape, initialisation, gateBias }, index) => {
    const size = elementCount(shape);
    const values = new Float32Array(size);
    if (initialisation === 'one') values.fill(1);
    else if (initialisation !== 'zero') {
      const fanIn = initialisation === 'matrix' ? size / shape[0] : shape[1];
      randomStream(seed, index, streams.initialisation).fillNormal(values);
      for (let i = 0; i < size; i++) values[i] /= Math.sqrt(fanIn);
    }
    if (gateBias !== undefined) values.fill(gateBias, (2 * size) / 3);
    parameters.get(name).write(values);
  });
}
