/**
 * The tape: what ran in a step, in order, so that backward can walk it in reverse.
 *
 * For a loss L and an op y = f(x), the entry of f turns dL/dy into dL/dx. Backward starts with dL/dL = 1 and visits the entries
 * from the last to the first; gradients that meet in one tensor are added in that order, so a run gives the same bits every time.
 *
 * Where gradients lie, and who frees their memory, is in gradients.ts; here they are a table from tensors to gradients.
 */
import type { Device } from './device.ts';
import { Gradients } from './gradients.ts';
import { emptyTensor, formatShape, type Tensor, viewTensor } from './tensor.ts';

/** One gradient for each output, null where no loss reaches it; `wants[i]` says whether input i needs one. */
export type BackwardRule = (gradients: (Tensor | null)[], wants: boolean[]) => (Tensor | null)[];

export interface TapeEntry {
  readonly op: string;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly backward: BackwardRule;
}

/** The tape of the step that is running. */
export class Tape {
  entries: TapeEntry[] = [];
}

/** Leaves a tape entry, if an input wants a gradient; then the outputs want one too. */
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

/** The same numbers, behind which no gradient passes. */
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

  step.track((taken) => {
    const gradients = new Gradients(step, taken);
    gradients.add(loss, options.gradient ?? ones(loss), 'backward: gradient');
    walk(tape, gradients, wants);
  });
}

/** Takes the gradients of a tape's results to what it began with: the chain rule, from the last entry to the first. */
export function walk(tape: readonly TapeEntry[], gradients: Gradients, wants: (tensor: Tensor) => boolean): void {
  for (const { op, inputs, outputs, backward: rule } of tape.toReversed()) {
    const incoming = outputs.map((output) => gradients.get(output));
    if (incoming.every((gradient) => gradient === null)) continue;
    const wanted = inputs.map(wants);
    const results = wanted.some(Boolean) ? gradients.run(() => rule(incoming, wanted)) : [];
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
