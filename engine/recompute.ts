/**
 * Gradient checkpointing: of a part of the model only the results are kept, and backward runs the part again for what lies between
 * (Chen et al. 2016, arXiv 1604.06174). Memory for about one more forward pass.
 */
import { withGradients } from './gradients.ts';
import type { Step } from './running-step.ts';
import { reachedFrom, record, Tape, type TapeEntry, walk } from './tape.ts';
import type { Tensor } from './tensor.ts';

/**
 * The results of `fn`, without the memory of what it makes on the way.
 *
 * `fn` runs again in backward, and the callbacks that it calls do too: it reads the same tensors, gives the same results, and makes nothing
 * else that is used outside. A result without a gradient has none outside either. Throws where a result with one is not made by an operation
 * on the way.
 */
export function recompute(first: Tensor, op: string, fn: () => readonly Tensor[]): readonly Tensor[] {
  const step = first.device.currentStep(op);
  const { outputs, operands } = step.track((taken) => {
    const { result, tape } = withOwnTape(step, fn);
    const made = new Set(tape.flatMap(({ outputs }) => outputs));
    if (tape.length > 0 && result.some((output) => output.wantsGradient && !made.has(output)))
      throw new Error(
        `${op}: recompute returns what its function makes; a tensor that it only passes on is used as it is`,
      );
    for (const { buffer } of result) taken.delete(buffer);
    return { outputs: result, operands: operandsOf(tape) };
  });
  if (operands.length === 0) return outputs;
  const isLive = outputs.map(({ wantsGradient }) => wantsGradient);
  const live = <T>(results: readonly T[]) => results.filter((_, i) => isLive[i]);
  record(op, operands, live(outputs), (incoming, wants) =>
    withGradients(step, (gradients, taken) => {
      const { result, tape } = first.device.during('recompute', () => withOwnTape(step, fn));
      live(result).forEach((output, i) => {
        if (incoming[i]) gradients.add(output, incoming[i], op);
      });
      const wanted = reachedFrom(new Set(operands.filter((_, i) => wants[i])), tape);
      walk(tape, gradients, (tensor) => wanted.has(tensor));
      const found = operands.map((operand) => gradients.get(operand));
      for (const gradient of found) if (gradient) taken.delete(gradient.buffer);
      return found;
    }),
  );
  return outputs;
}

function withOwnTape<T>(step: Step, fn: () => T): { result: T; tape: readonly TapeEntry[] } {
  const current = step.part(Tape);
  const outer = current.entries;
  const tape: TapeEntry[] = [];
  current.entries = tape;
  try {
    return { result: fn(), tape };
  } finally {
    current.entries = outer;
  }
}

/** The tensors that a tape began with, as far as they want a gradient. */
function operandsOf(tape: readonly TapeEntry[]): Tensor[] {
  const made = new Set(tape.flatMap(({ outputs }) => outputs));
  const used = tape.flatMap(({ inputs }) => inputs.filter((input) => input.wantsGradient && !made.has(input)));
  return [...new Set(used)];
}
