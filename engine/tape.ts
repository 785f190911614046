/**
 * The tape: what ran in a step, in order, so that backward can walk it in reverse.
 *
 * For a loss L and an op y = f(x), the entry of f turns dL/dy into dL/dx. Backward starts with dL/dL = 1 and visits the entries
 * from the last to the first. A tensor that several ops read gets a gradient from each of them; they are added in that order, so a
 * run gives the same bits every time. A leaf is a tensor that no op on the tape made; the leaves that want a gradient are parameters.
 *
 * `Gradients` is a table from tensors to their gradients so far, and a parameter's is its `grad`; in which memory they lie, and when
 * it is free again, is told in gradients.ts. A `Step` is the span in which ops run: it owns the tape, which ends with it.
 */
import type { Device } from './device.ts';
import { type Gradients, withGradients } from './gradients.ts';
import { emptyTensor, formatShape, type Tensor, viewTensor } from './tensor.ts';

/**
 * Gets dL/dy of each output y, null where no loss reaches it, and returns dL/dx of each input x, null for those that want none;
 * `wants[i]` says whether input i does.
 */
export type BackwardRule = (gradients: (Tensor | null)[], wants: boolean[]) => (Tensor | null)[];

export interface TapeEntry {
  /** Its name, for errors. */
  readonly op: string;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly backward: BackwardRule;
}

/** The tape of a step, `step.part(Tape)`: empty when the step begins. */
export class Tape {
  entries: TapeEntry[] = [];
}

/** Leaves a tape entry behind an op, if one of its inputs wants a gradient; then its outputs want one too, and are no leaves. */
export function record(
  op: string,
  inputs: readonly Tensor[],
  outputs: readonly Tensor[],
  backward: BackwardRule,
): void {
  const { device } = outputs[0];
  if (!device.taping || !inputs.some((input) => input.wantsGradient)) return;
  device.currentStep(op).part(Tape).entries.push({ op, inputs, outputs, backward });
  for (const output of outputs) {
    output.wantsGradient = true;
    output.recorded = true;
  }
}

/** Runs `fn` without a tape: evaluation and inference. What an asynchronous `fn` does after its first await is on the tape again. */
export function withoutTape<T>(device: Device, fn: () => T): T {
  const outer = device.taping;
  device.taping = false;
  try {
    return fn();
  } finally {
    device.taping = outer;
  }
}

/** The same numbers in a tensor that leaves no tape entry, so that no gradient passes it. */
export function stopGradient(source: Tensor): Tensor {
  return viewTensor(source, source.shape, 0, 'stopGradient');
}

/**
 * Adds dL/dp into `p.grad` for every leaf p that wants a gradient, or only for `parameters`.
 *
 * `loss` has one element, or comes with `gradient`, a tensor of its shape that stands for dL/d(loss). May be called several
 * times in a step: the tape lives until the step ends.
 */
export function backward(loss: Tensor, options: { parameters?: Iterable<Tensor>; gradient?: Tensor } = {}): void {
  const { device } = loss;
  const step = device.currentStep('backward');
  loss.assertAlive('backward');
  if (!loss.wantsGradient) throw new Error(`backward: no parameter reaches the loss made by '${loss.name}'`);
  if (!options.gradient && loss.size !== 1)
    throw new Error(
      `backward: the loss has shape ${formatShape(loss.shape)}; give { gradient } for one with several elements`,
    );
  const tape = step.part(Tape).entries;
  const parameters = options.parameters && new Set(options.parameters);
  for (const { gradientStorage, name } of parameters ?? [])
    if (!gradientStorage)
      throw new Error(
        `backward: '${name}' is no parameter, or a frozen one: gradients are kept for trained parameters only`,
      );
  const wanted = parameters ? reachedFrom(parameters, tape) : null;
  const wants = (tensor: Tensor) => (wanted ? wanted.has(tensor) : tensor.wantsGradient);

  withGradients(step, (gradients) => {
    gradients.add(loss, options.gradient ?? ones(loss), 'backward: gradient');
    walk(tape, gradients, wants);
  });
}

/**
 * The chain rule: takes the gradients of a tape's results to what the tape began with, from the last entry to the first. When the
 * walk comes to an entry, every op that read its outputs has been visited, so their gradients are complete; behind it they are not
 * needed any more.
 */
export function walk(tape: readonly TapeEntry[], gradients: Gradients, wants: (tensor: Tensor) => boolean): void {
  for (const { op, inputs, outputs, backward: rule } of tape.toReversed()) {
    const incoming = outputs.map((output) => gradients.get(output));
    if (incoming.every((gradient) => gradient === null)) continue;
    const wanted = inputs.map(wants);
    const results = wanted.some(Boolean) ? gradients.runRule(() => rule(incoming, wanted)) : [];
    results.forEach((gradient, i) => {
      if (gradient && wanted[i]) gradients.add(inputs[i], gradient, `${op} backward: the gradient of input ${i}`);
    });
    gradients.remove(outputs);
  }
}

/** Everything that was made from one of `parameters`, and they themselves. */
export function reachedFrom(parameters: ReadonlySet<Tensor>, tape: readonly TapeEntry[]): Set<Tensor> {
  const reached = new Set(parameters);
  for (const { inputs, outputs } of tape)
    if (inputs.some((input) => reached.has(input))) for (const output of outputs) reached.add(output);
  return reached;
}

function ones(like: Tensor): Tensor {
  const one = emptyTensor(like.device, like.shape, 'f32', 'backward');
  like.device.write(one, new Float32Array(like.size).fill(1));
  return one;
}
