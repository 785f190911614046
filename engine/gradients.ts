/**
 * The memory of gradients: where a backward rule (tape.ts) writes them, and when their memory is free again.
 *
 *   parameters    +=   always: onto the zeros that zeroGradients left, and the gradients of earlier ops and earlier backwards
 *   activations    =   by the first op that has a gradient for the tensor
 *                 +=   by each later op, if gradientSum says `accumulate`
 *
 * A rule gives the gradient of an operand in one of two ways:
 *
 *   it asks gradientSum for a tensor, writes there, or adds if told so, and returns that same tensor;
 *   or it returns any other tensor, one of its own or an incoming gradient, and the sum is made here.
 *
 * Memory that a rule takes and does not return is released after it. The memory of a gradient is released when no gradient lies in it.
 */
import { gridFor } from './grid.ts';
import { type Kernel, loadKernel } from './kernel.ts';
import type { Step } from './running-step.ts';
import { elementCount, emptyTensor, formatShape, type Tensor } from './tensor.ts';

/** The backward that runs a rule now, with its gradients. */
class ActiveBackward {
  gradients: Gradients | null = null;
}
const THREADS = 64;
const accumulate: Kernel = await loadKernel(new URL('./accumulate.wgsl', import.meta.url));

/** Forgets the gradients of `parameters`: the next backward starts from zero. */
export function zeroGradients(parameters: Iterable<Tensor>): void {
  // Before the first backward too, because every run of a captured step does only what its first run did.
  for (const { pieces } of parameters)
    for (const piece of pieces) if (isLeaf(piece)) piece.device.clear(ownGradient(piece));
}

/** The tensor for the gradient of an operand. A rule writes every element of it or, with `accumulate`, adds to every element. */
export interface GradientSum {
  readonly gradient: Tensor;
  readonly accumulate: boolean;
}

/**
 * Gives the rule that is running a tensor for the gradient of its operand `input`, which the rule returns: a parameter's own gradient,
 * or the sum that later ops have left for `input` in this backward, if no other tensor's gradient shares its memory, or a new tensor.
 */
export function gradientSum(input: Tensor, op: string): GradientSum {
  if (isLeaf(input)) return { gradient: ownGradient(input), accumulate: true };
  const present = input.device.currentStep(op).part(ActiveBackward).gradients?.toAddTo(input);
  if (present) return { gradient: present, accumulate: true };
  return { gradient: emptyTensor(input.device, input.shape, 'f32', op), accumulate: false };
}

function isLeaf({ recorded, gradientStorage }: Tensor): boolean {
  return !recorded && gradientStorage !== null;
}

function ownGradient(leaf: Tensor): Tensor {
  leaf.grad ??= leaf.gradientStorage!();
  return leaf.grad;
}

/** Runs `work` with a new table of gradients. At its end the memory that it took is released, except what it deleted from `taken`. */
export function withGradients<T>(step: Step, work: (gradients: Gradients, taken: Set<GPUBuffer>) => T): T {
  return step.track((taken) => work(new Gradients(step, taken), taken));
}

/**
 * The table of one backward: the gradient so far of every tensor that still waits for its op's rule. Parameters are not in it, because
 * their gradients stay. A buffer of the backward is released as soon as no gradient lies in it.
 */
export class Gradients {
  private readonly table = new Map<Tensor, Tensor>();
  private readonly holders = new Map<GPUBuffer, number>();
  /** Gradients in the table that the last rule has added to by itself. */
  private readonly addedTo = new Set<Tensor>();
  /** The gradients that the last rule returned, held until each has been added: one tensor may be that of several operands. */
  private returned: Tensor[] = [];

  constructor(
    private readonly step: Step,
    private readonly taken: ReadonlySet<GPUBuffer>,
  ) {}

  get(tensor: Tensor): Tensor | null {
    return this.table.get(tensor) ?? null;
  }

  /** Adds `gradient` to that of `tensor`; an error about its shape names it by `what`. */
  add(tensor: Tensor, gradient: Tensor, what: string): void {
    requireShape(what, gradient, tensor);
    const present = this.table.get(tensor);
    if (gradient === tensor.grad || (gradient === present && this.addedTo.has(gradient))) return;
    this.hold(gradient);
    if (isLeaf(tensor)) {
      accumulateInto('addInto', tensor, { b: gradient, target_: ownGradient(tensor) });
      this.drop(gradient);
    } else if (present) {
      const sum = emptyTensor(tensor.device, tensor.shape, 'f32', 'accumulate');
      accumulateInto('add', sum, { a: present, b: gradient, sum });
      this.hold(sum);
      this.table.set(tensor, sum);
      this.drop(present);
      this.drop(gradient);
    } else this.table.set(tensor, gradient);
  }

  /** The gradient so far, if the running rule may add to it: null if there is none, or another gradient shares its memory. */
  toAddTo(tensor: Tensor): Tensor | null {
    const present = this.get(tensor);
    if (!present || !this.taken.has(present.buffer) || this.holders.get(present.buffer) !== 1) return null;
    this.addedTo.add(present);
    return present;
  }

  /** Runs a rule, with these gradients behind gradientSum, and releases the memory that it took and does not return. */
  runRule(rule: () => (Tensor | null)[]): (Tensor | null)[] {
    const { step } = this;
    const active = step.part(ActiveBackward);
    const outer = active.gradients;
    active.gradients = this;
    this.addedTo.clear();
    try {
      return step.track((taken) => {
        const results = rule();
        this.returned = results.filter((gradient) => gradient !== null);
        for (const gradient of this.returned) {
          taken.delete(gradient.buffer);
          this.hold(gradient);
        }
        return results;
      });
    } finally {
      active.gradients = outer;
    }
  }

  /** Forgets the gradients of an op's outputs, after its rule has passed them on. */
  remove(outputs: readonly Tensor[]): void {
    for (const gradient of this.returned.splice(0)) this.drop(gradient);
    for (const output of outputs) {
      const gradient = this.table.get(output);
      if (gradient) this.drop(gradient);
      this.table.delete(output);
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
