import { elementCount, type ParameterSet, type Random, randomStream, type Shape, streams } from '../../engine/index.ts';
import { fillUniform } from '../../kernels/index.ts';
import type { InitialValues } from './configuration.ts';
import type { Initialisation, ModelParameter } from './layers.ts';

/**
 * Fills parameters for training from scratch; the same seed gives the same numbers.
 *
 * Matrices are LeCun normal, or uniform of the same deviation: standard deviation 1 / sqrt(fan-in). Token and position embeddings have
 * 1 / sqrt(width), so that embeddings times sqrt(width), and logits, start near standard deviation 1. The latents of a resampler have
 * standard deviation 1. Gains of 1 + weight, adaptive modulation, biases and learned rows are 0 and other gains 1, as in openpi; unlike
 * there, the image projector does not start at zero, because no weights are loaded.
 */
export function initialise(
  parameters: ParameterSet,
  specifications: readonly ModelParameter[],
  seed: number,
  kind: InitialValues = 'normal',
): void {
  specifications.forEach(({ name, shape, initialisation, gateBias }, index) => {
    const tensor = parameters.get(name);
    const isRandom = initialisation !== 'zero' && initialisation !== 'one';
    if (isRandom && kind === 'uniform') {
      const bound = Math.sqrt(3 / fanIn(shape, initialisation));
      const address = { seed, step: index, stream: streams.initialisation };
      parameters.device.step(() => fillUniform(tensor.pieces, address, bound));
      return;
    }
    let first = 0;
    for (const piece of tensor.pieces) {
      const { size } = piece;
      const values = new Float32Array(size);
      if (initialisation === 'one') values.fill(1);
      else if (isRandom) {
        const root = Math.sqrt(fanIn(shape, initialisation));
        randomStream(seed, index, streams.initialisation).fillNormal(values, first);
        for (let i = 0; i < size; i++) values[i] /= root;
      }
      if (gateBias !== undefined) values.fill(gateBias, (2 * size) / 3);
      piece.write(values);
      first += size;
    }
  });
}

/** The inverse of the variance of random initial values. */
function fanIn(shape: Shape, initialisation: Exclude<Initialisation, 'zero' | 'one'>): number {
  const [rows, columns] = shape;
  return { embedding: columns, position: columns, matrix: elementCount(shape) / rows, standard: 1 }[initialisation];
}

/** Half waves over the whole order, for sines and cosines. */
const HALF_WAVES = [0.5, 1, 2, 4, 8, 16];

/** Rows [count, width] of norm 1 for things in an order, such as places: a random projection of waves, so that neighbours are alike. */
export function orderedRows(count: number, width: number, random: Random): Float32Array {
  const waves = Array.from({ length: count }, (_, row) => {
    const place = row / (count - 1);
    return [
      2 * place - 1,
      ...HALF_WAVES.flatMap((own) => [Math.sin(Math.PI * own * place), Math.cos(Math.PI * own * place)]),
    ];
  });
  const means = waves[0].map((_, wave) => waves.reduce((sum, own) => sum + own[wave], 0) / count);
  const projection = new Float32Array(means.length * width);
  random.fillNormal(projection);
  const rows = new Float32Array(count * width);
  waves.forEach((own, row) => {
    const projected = Array.from({ length: width }, (_, column) =>
      own.reduce((sum, value, wave) => sum + (value - means[wave]) * projection[wave * width + column], 0),
    );
    const norm = Math.hypot(...projected);
    rows.set(
      projected.map((value) => value / norm),
      row * width,
    );
  });
  return rows;
}
