/** Values and batches under which a gradient that is exactly 0 has no path: gates are open, and every row counts. */
import { randomStream, streams } from '../../engine/index.ts';
import type { ModelConfiguration } from '../architecture/configuration.ts';
import type { TrainingBatch } from '../architecture/inputs.ts';
import type { Model } from '../architecture/model.ts';
import { mapped } from '../architecture/records.ts';
import { randomBatch } from '../training/random-batch.ts';

const SEED = 1;

/**
 * Replaces the zeros of parameters that begin with zeros by random numbers: of those that are frozen, or of the others. Returns whether
 * there were any.
 */
export async function fillZeros(
  { architecture, parameters }: Pick<Model, 'architecture' | 'parameters'>,
  ofFrozen = false,
): Promise<boolean> {
  let found = false;
  for (const [index, { name, initialisation, gateBias, frozen = false }] of architecture.parameters.entries()) {
    if ((initialisation !== 'zero' && gateBias === undefined) || frozen !== ofFrozen) continue;
    const tensor = parameters.get(name);
    const values = await tensor.read();
    if (!values.includes(0)) continue;
    const random = new Float32Array(values.length);
    randomStream(SEED, index, streams.initialisation).fillNormal(random);
    tensor.write(values.map((own, i) => own || random[i] / 2));
    found = true;
  }
  return found;
}

/** A random batch without padding, in which every row with a target counts. */
export function wholeBatch(configuration: ModelConfiguration, examples: number, seed: number): TrainingBatch {
  const batch = randomBatch(configuration, examples, seed);
  const ones = ({ length }: ArrayLike<number>) => new Uint8Array(length).fill(1);
  return {
    ...batch,
    ids: mapped(batch.ids, ({ ids, valid }) => ({ ids, valid: ones(valid) })),
    rowTargets: mapped(batch.rowTargets!, ({ data, valid }) => ({ data, valid: ones(valid) })),
  };
}
