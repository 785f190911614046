/**
 * The tape: what ran in a step, in order, so that backward can walk it in reverse.
 *
 * For a loss L and an op y = f(x), the tape entry of f turns dL/dy into dL/dx. Backward starts with dL/dL = 1 and visits the entries
 * from the last to the first. A tensor that several ops read gets a gradient from each of them; they are added in that order, so a
 * run gives the same bits every time. A leaf is a tensor that no op on the tape made; the leaves that want a gradient are parameters.
 *
 * A `Step` is the span in which ops run; the tape belongs to it and ends with it. `Gradients` maps each tensor to its gradient so far:
 * a parameter's is its `grad`, which stays until it is zeroed. gradients.ts says in which memory gradients lie, and for how long.
 */
import type { Device } from './device.ts';
import { type Gradients, withGradients } from './gradients.ts';
import { emptyTensor, formatShape, type Tensor, viewTensor } from './tensor.ts';

/**
 * The derivative of an op. It gets dL/dy of each output y, null where no loss reaches y, and returns dL/dx of each input x, null for
 * an input that wants none; `wants[i]` says whether input i wants one. A gradient is f32, in the shape of its tensor.
 */
export type BackwardRule = (gradients: (Tensor | null)[], wants: boolean[]) => (Tensor | null)[];

export interface TapeEntry {
  readonly op: string;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly backward: BackwardRule;
}

/**
 * Called for each op. Forward: when the op is recorded; its results may not be encoded yet, those of the op before are. Backward: after
 * its rule, with null for an operand without a gradient.
 */
export type OpObserver = (
  phase: 'forward' | 'backward',
  op: string,
  results: readonly (Tensor | null)[],
  operands: readonly Tensor[],
) => void;

/** The entries of a step in the order in which its ops ran. `step.part(Tape)` is empty when the step begins. */
export class Tape {
  entries: TapeEntry[] = [];
  observer: OpObserver | null = null;
}

/** Has `observer` told of every op that runs from now on in the step that is running. */
export function observeOps(device: Device, observer: OpObserver): void {
  device.currentStep('observeOps').part(Tape).observer = observer;
}

/** Puts an op that has run on the tape, if one of its inputs wants a gradient: its outputs then want one too, and are no leaves. */
export function record(
  op: string,
  inputs: readonly Tensor[],
  outputs: readonly Tensor[],
  backward: BackwardRule,
): void {
  const { device } = outputs[0];
  const tape = device.currentStep(op).part(Tape);
  tape.observer?.('forward', op, outputs, inputs);
  if (!device.taping || !inputs.some((input) => input.wantsGradient)) return;
  tape.entries.push({ op, inputs, outputs, backward });
  for (const output of outputs) {
    output.wantsGradient = true;
    output.recorded = true;
  }
}

/** Runs `fn` without a tape, for evaluation and inference. After the first await of an asynchronous `fn` the tape is back. */
export function withoutTape<T>(device: Device, fn: () => T): T {
  const outer = device.taping;
  device.taping = false;
  try {
    return fn();
  } finally {
    device.taping = outer;
  }
}

/** A view of `source`, the same numbers in the same memory, that is not on the tape: no gradient passes through it. */
export function stopGradient(source: Tensor): Tensor {
  return viewTensor(source, source.shape, 0, 'stopGradient');
}

/**
 * Adds dL/dp into `p.grad` for every leaf p that wants a gradient, or only for `parameters`.
 *
 * `loss` has one element, or comes with `gradient`, a tensor of its shape, in place of dL/dL = 1. Backward may be called several times
 * in a step.
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
  const parameters = options.parameters && new Set([...options.parameters].flatMap(({ pieces }) => pieces));
  for (const { gradientStorage, name } of parameters ?? [])
    if (!gradientStorage)
      throw new Error(
        `backward: '${name}' is no parameter, or a frozen one: gradients are kept for trained parameters only`,
      );
  const reached = parameters ? reachedFrom(parameters, tape) : null;
  const wants = (tensor: Tensor) => (reached ? reached.has(tensor) : tensor.wantsGradient);

  device.during('backward', () =>
    withGradients(step, (gradients) => {
      gradients.add(loss, options.gradient ?? ones(loss), 'backward: gradient');
      walk(tape, gradients, wants);
    }),
  );
}

/**
 * The chain rule: carries gradients from the results of a tape back to its leaves, from the last entry to the first. When the walk
 * comes to an entry, every op that read its outputs has been visited. So the gradients of these outputs are complete, and nothing needs
 * them once the entry's own rule has run. `runRule` runs it, and frees the memory that it took and does not return.
 */
export function walk(tape: readonly TapeEntry[], gradients: Gradients, wants: (tensor: Tensor) => boolean): void {
  for (const { op, inputs, outputs, backward: rule } of tape.toReversed()) {
    const incoming = outputs.map((output) => gradients.get(output));
    if (incoming.every((gradient) => gradient === null)) continue;
    const wanted = inputs.map(wants);
    const outgoing = wanted.some(Boolean) ? gradients.runRule(() => rule(incoming, wanted)) : [];
    inputs[0].device.currentStep(op).part(Tape).observer?.('backward', op, outgoing, inputs);
    outgoing.forEach((gradient, i) => {
      if (gradient && wanted[i]) gradients.add(inputs[i], gradient, `${op} backward: the gradient of input ${i}`);
    });
    gradients.remove(outputs);
  }
}

/** The `parameters`, and every tensor on the tape that was made from one of them. */
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
