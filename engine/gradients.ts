/**
 * Where gradients lie: which memory a backward rule writes to, who holds it, and when it is free again.
 *
 * A rule asks where to put the gradient of an operand, and returns the tensor that it was given:
 *
 *   gradientTensor    writes it: into a parameter's own gradient where that is zero, else into new memory, which is added later
 *   gradientSum       writes it, or adds it where the answer says `accumulate`: to a parameter's own gradient, or to what later ops
 *                     have left for the operand; that it was added is known by its being the same tensor
 *   gradientToAddTo   adds it, to a few elements of a parameter's own gradient or of zeros
 *
 * or returns any other tensor of its own, or an incoming gradient as it is. Memory that a rule takes and does not return is released
 * behind it; a gradient's, when no tensor's gradient lies in it any more.
 */
import { gridFor } from './grid.ts';
import { type Kernel, loadKernel } from './kernel.ts';
import type { Step } from './running-step.ts';
import { elementCount, emptyTensor, formatShape, type Tensor, zeroTensor } from './tensor.ts';

/** Parameters whose gradient was zeroed in the step, and not written since. */
class ZeroedGradients extends Set<Tensor> {}
/** The gradients of the backward whose rule is running. */
class ActiveBackward {
  gradients: Gradients | null = null;
}
const THREADS = 64;
const accumulate: Kernel = await loadKernel(new URL('./accumulate.wgsl', import.meta.url));

/** Forgets the gradients of `parameters`: the next backward starts from zero. */
export function zeroGradients(parameters: Iterable<Tensor>): void {
  const all = [...parameters];
  gradientsAreZero(all, (parameter) => parameter.device.clear(parameter.grad!));
}

/** Notes that the gradients of `parameters` are zero from here on; `clear` is called for each that there is. */
export function gradientsAreZero(parameters: Iterable<Tensor>, clear: (parameter: Tensor) => void = () => {}): void {
  for (const parameter of parameters) {
    const { device } = parameter;
    // Cleared before the first backward too: what a captured step's first run leaves out, no run does.
    if (parameter.wantsGradient) parameter.grad ??= parameter.gradientStorage?.() ?? null;
    if (!parameter.grad) continue;
    clear(parameter);
    if (!device.inStep) continue;
    device.currentStep('zeroGradients').part(ZeroedGradients).add(parameter);
  }
}

/**
 * Where a backward rule writes the gradient of its operand `input`, every element of it: a parameter whose gradient is zero gets it
 * in place, which saves a sum and the memory for it. To be returned as it is.
 */
export function gradientTensor(input: Tensor, op: string): Tensor {
  const step = input.device.currentStep(op);
  if (isLeaf(input) && step.part(ZeroedGradients).delete(input)) return input.grad!;
  return emptyTensor(input.device, input.shape, 'f32', op);
}

/** A gradient that a rule writes, or with `accumulate` adds to. */
export interface GradientSum {
  readonly gradient: Tensor;
  readonly accumulate: boolean;
}

/**
 * As gradientTensor, for a rule that can also add: to a parameter's gradient, or to what other ops have left for `input` in this
 * backward, where nobody else reads that any more.
 */
export function gradientSum(input: Tensor, op: string): GradientSum {
  const step = input.device.currentStep(op);
  if (isLeaf(input)) {
    const accumulate = !step.part(ZeroedGradients).delete(input);
    input.grad ??= input.gradientStorage!();
    return { gradient: input.grad, accumulate };
  }
  const present = step.part(ActiveBackward).gradients?.toAddTo(input);
  if (present) return { gradient: present, accumulate: true };
  return { gradient: emptyTensor(input.device, input.shape, 'f32', op), accumulate: false };
}

/** As gradientTensor, for a rule that adds to few of the elements: the gradient of a parameter as it is, or zeros. */
export function gradientToAddTo(input: Tensor, op: string): Tensor {
  const step = input.device.currentStep(op);
  if (!isLeaf(input)) return zeroTensor(input.device, input.shape, 'f32', op);
  step.part(ZeroedGradients).delete(input);
  input.grad ??= input.gradientStorage!();
  return input.grad;
}

function isLeaf({ recorded, gradientStorage }: Tensor): boolean {
  return !recorded && gradientStorage !== null;
}

/** Gradients on their way back; a buffer taken on the way is released as soon as no gradient lies in it any more. */
export class Gradients {
  private readonly table = new Map<Tensor, Tensor>();
  private readonly holders = new Map<GPUBuffer, number>();
  /** The gradients that the rule that ran last has added to, and returned as they are. */
  private readonly addedTo = new Set<Tensor>();

  constructor(
    private readonly step: Step,
    private readonly taken: ReadonlySet<GPUBuffer>,
  ) {}

  get(tensor: Tensor): Tensor | null {
    return this.table.get(tensor) ?? null;
  }

  /** Adds to the gradient of `tensor`; `what` names it in the error where it has another shape. */
  add(tensor: Tensor, gradient: Tensor, what: string): void {
    requireShape(what, gradient, tensor);
    const present = this.table.get(tensor);
    this.hold(gradient);
    if (!present) {
      this.table.set(tensor, gradient);
      return;
    }
    if (present === gradient && (gradient === tensor.grad || this.addedTo.has(gradient))) {
      this.drop(gradient);
      return;
    }
    if (present === tensor.grad || gradient === tensor.grad) {
      const [own, other] = present === tensor.grad ? [present, gradient] : [gradient, present];
      accumulateInto('addInto', tensor, { b: other, target_: own });
      this.table.set(tensor, own);
      this.drop(other);
      return;
    }
    const sum = emptyTensor(tensor.device, tensor.shape, 'f32', 'accumulate');
    accumulateInto('add', sum, { a: present, b: gradient, sum });
    this.hold(sum);
    this.table.set(tensor, sum);
    this.drop(present);
    this.drop(gradient);
  }

  /** The gradient so far, for the rule that is running to add to; null where another tensor's gradient shares its memory. */
  toAddTo(tensor: Tensor): Tensor | null {
    const present = this.get(tensor);
    if (!present || !this.taken.has(present.buffer) || this.holders.get(present.buffer) !== 1) return null;
    this.addedTo.add(present);
    return present;
  }

  /** Runs a rule, whose gradientSum looks here; what it took and did not return is released. */
  run(rule: () => (Tensor | null)[]): (Tensor | null)[] {
    const { step } = this;
    const active = step.part(ActiveBackward);
    const outer = active.gradients;
    active.gradients = this;
    this.addedTo.clear();
    try {
      return step.track((taken) => {
        const results = rule();
        for (const gradient of results) if (gradient) taken.delete(gradient.buffer);
        return results;
      });
    } finally {
      active.gradients = outer;
    }
  }

  remove(tensor: Tensor): void {
    const gradient = this.table.get(tensor);
    if (!gradient) return;
    this.table.delete(tensor);
    this.drop(gradient);
  }

  addToLeaves(): void {
    for (const [leaf, gradient] of this.table) {
      if (!isLeaf(leaf) || gradient === leaf.grad) continue;
      this.step.part(ZeroedGradients).delete(leaf);
      leaf.grad ??= leaf.gradientStorage!();
      accumulateInto('addInto', leaf, { b: gradient, target_: leaf.grad });
    }
  }

  private hold(gradient: Tensor): void {
    this.holders.set(gradient.buffer, (this.holders.get(gradient.buffer) ?? 0) + 1);
  }

  private drop(gradient: Tensor): void {
    const left = this.holders.get(gradient.buffer)! - 1;
    this.holders.set(gradient.buffer, left);
    if (left === 0 && this.taken.has(gradient.buffer)) this.step.release(gradient.buffer);
  }
}

function accumulateInto(entry: string, like: Tensor, bindings: Record<string, Tensor>): void {
  const elements = elementCount(like.shape);
  like.device.dispatch({
    kernel: accumulate,
    entry,
    bindings,
    uniform: { elements },
    workgroups: gridFor(elements, 4 * THREADS),
    flops: elements,
    bytes: 12 * elements,
  });
}

function requireShape(what: string, gradient: Tensor, like: Tensor): void {
  const same = gradient.shape.length === like.shape.length && gradient.shape.every((size, i) => size === like.shape[i]);
  if (!same || gradient.dtype !== 'f32')
    throw new Error(
      `${what} is ${gradient.dtype} ${formatShape(gradient.shape)}; expected f32 ${formatShape(like.shape)}`,
    );
}
