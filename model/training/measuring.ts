/** The losses of a model over examples, in batches of one shape. */
import { InputError, withoutTape } from '../../engine/index.ts';
import { type TrainingBatch, tensorsOf } from '../architecture/inputs.ts';
import type { Model } from '../architecture/model.ts';
import type { Counted } from '../architecture/objectives/index.ts';
import { trainingInputs, trainingPass } from '../architecture/training-pass.ts';
import type { Losses } from './history.ts';
import { type LossTensors, lossesOf } from './training-step.ts';

/**
 * Batches of `size` examples, each with the number `start` of its first one and with its losses. The last batch is filled up with the
 * first examples, which then count twice, so that every batch has the compiled shape. The noise is that of step number `step` plus
 * `start`. Throws the reason of an aborted `signal`.
 */
export async function* measuredBatches<Example, Batch extends TrainingBatch>(
  model: Model,
  maker: { make(examples: readonly Example[], step: number): Promise<Batch> },
  examples: readonly Example[],
  { size, step = 0, signal }: { size: number; step?: number; signal?: AbortSignal },
) {
  const { device, architecture } = model;
  for (let start = 0; start < examples.length; start += size) {
    signal?.throwIfAborted();
    const own = Array.from({ length: size }, (_, i) => examples[(start + i) % examples.length]);
    const batch = await maker.make(own, step + start);
    const inputs = trainingInputs(architecture, batch);
    // Nothing is computed twice, because there is no backward: only the results of each part of the model are kept.
    const pass = () => trainingPass(model, tensorsOf(device, inputs), { recompute: true });
    const kept = withoutTape(device, () => device.step(() => lossesOf(pass())));
    const losses = await readLosses(kept, 'held-out measurement').finally(() => {
      for (const loss of Object.values(kept)) loss.dispose();
    });
    yield { batch, inputs, losses, start };
  }
}

/** Means over batches, by the names of objectives. */
export class Means {
  private readonly sums = new Map<string, Counted>();

  add(name: string, { loss, count }: Counted): void {
    if (count === 0) return;
    const before = this.sums.get(name) ?? { loss: 0, count: 0 };
    this.sums.set(name, { loss: before.loss + loss * count, count: before.count + count });
  }

  all(): Losses {
    return Object.fromEntries([...this.sums].map(([name, { loss, count }]) => [name, loss / count]));
  }
}

export async function readLosses(tensors: LossTensors, what: string): Promise<Losses> {
  const reading = Object.entries(tensors).map(async ([name, tensor]) => {
    const [value] = await tensor.read();
    if (!Number.isFinite(value) || value >= 1e29)
      throw new InputError(`${what}: the ${name} loss is ${value}: training has diverged; use a lower learning rate`);
    return [name, value] as const;
  });
  return Object.fromEntries(await Promise.all(reading));
}
