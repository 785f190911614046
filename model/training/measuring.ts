/** The losses of a model over examples, in batches of one shape. */
import { readTogether, withoutTape } from '../../engine/index.ts';
import type { GradientNorms, NormsOfGroups } from '../../kernels/index.ts';
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
    const losses = await readLosses(kept).finally(() => {
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

export async function readLosses(tensors: LossTensors): Promise<Losses> {
  return named(tensors, await readTogether(Object.values(tensors)));
}

/** The losses of a step and the norms of its gradients. */
export async function readOutcome(
  tensors: LossTensors,
  gradients: GradientNorms,
): Promise<{ losses: Losses; norms: NormsOfGroups }> {
  const read = await readTogether([...Object.values(tensors), gradients.norms]);
  return { losses: named(tensors, read), norms: gradients.named(read[read.length - 1]) };
}

const named = (tensors: LossTensors, read: readonly Float32Array[]): Losses =>
  Object.fromEntries(Object.keys(tensors).map((name, i) => [name, read[i][0]]));

/** Losses that are numbers, and words about the others: those of 1e29 and more hold the 1e30 of an impossible score or target. */
export function finiteLosses(losses: Losses): { finite: Losses; others: string[] } {
  const entries = Object.entries(losses);
  const isUsable = ([, loss]: [string, number]) => Math.abs(loss) < 1e29;
  const others = entries.filter((entry) => !isUsable(entry)).map(([name, loss]) => `the ${name} loss is ${loss}`);
  return { finite: Object.fromEntries(entries.filter(isUsable)), others };
}

/** What was not finite in the parts of a step that was skipped, or too large. */
export function skipReason(parts: readonly Losses[], { groups, total }: NormsOfGroups): string {
  const losses = parts.flatMap((part) => finiteLosses(part).others);
  const gradients = Object.keys(groups).filter((group) => Number.isNaN(groups[group]));
  const others = gradients.length > 0 ? [`the gradient of ${gradients.join(' and ')} is not finite`] : [];
  const words = [...new Set([...losses, ...others])];
  return words.length > 0
    ? words.join(', ')
    : `the gradient's norm is ${total.toPrecision(3)}, too large to be squared`;
}
