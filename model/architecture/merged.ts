import type { Tensor } from '../../engine/index.ts';
import { add, cast, matmul, scale } from '../../kernels/index.ts';
import { lowRankOf, type ModelConfiguration } from './configuration.ts';
import { lowRankParts } from './layers.ts';
import { Model } from './model.ts';

/** The configuration without low-rank adaptation. */
export function withoutAdapters({ lora: _, ...configuration }: ModelConfiguration): ModelConfiguration {
  return configuration;
}

/**
 * The same model without low-rank adaptation: W + scale B A is written over each adapted matrix W, rounded to its storage. It shares the
 * parameters of `model`, which is of no use from then on but still owns them.
 */
export async function merged(model: Model): Promise<Model> {
  const { device, configuration, architecture, parameters } = model;
  for (const { name, group } of architecture.parameters) {
    const parts = lowRankParts(name);
    if (!parts) continue;
    const matrix = parameters.get(parts.matrix);
    const whole = device.step((): Tensor => {
      const product = matmul(parameters.get(parts.up), parameters.get(name));
      return add(cast(matrix, 'f32'), scale(product, lowRankOf(configuration, group)!.scale));
    });
    matrix.write(await whole.read());
    whole.dispose();
  }
  return new Model(device, withoutAdapters(configuration), parameters);
}
