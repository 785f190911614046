/**
 * Where gradients lie: which memory a backward rule writes to, who holds it, and when it is free again.
 *
 *   parameters    +=   always: onto the zeros that zeroGradients left, and onto what earlier ops and earlier backwards added
 *   activations    =   by the first op that has a gradient for it
 *                 +=   by each later op, where gradientSum says `accumulate`
 *
 * A rule gives the gradient of an operand in one of two ways:
 *
 *   it asks gradientSum for the place, writes there or adds as told, and returns that same tensor;
 *   or it returns any other tensor, one of its own or an incoming gradient as it is, which is then added here.
 *
 * Memory that a rule takes and does not return is released behind it; a gradient's, when no tensor's gradient lies in it any more.
 */
import { gridFor } from './grid.ts';
import { type Kernel, loadKernel } from './kernel.ts';
import type { Step } from './running-step.ts';
import { elementCount, emptyTensor, formatShape, type Tensor } from './tensor.ts';

/** The gradients of the backward whose rule is running. */
class ActiveBackward {
  gradients: Gradients | null = null;
}
const THREADS = 64;
const accumulate: Kernel = await loadKernel(new URL('./accumulate.wgsl', import.meta.url));

/** Forgets the gradients of `parameters`: the next backward starts from zero. */
export function zeroGradients(parameters: Iterable<Tensor>): void {
  // Before the first backward too: what a captured step's first run leaves out, no run does.
  for (const parameter of parameters) if (isLeaf(parameter)) parameter.device.clear(ownGradient(parameter));
}

/** Where the gradient of an operand lies: a rule writes it there, every element, or with `accumulate` adds to it. */
export interface GradientSum {
  readonly gradient: Tensor;
  readonly accumulate: boolean;
}

/**
 * For the rule that is running, where the gradient of its operand `input` lies, to be returned as it is: a parameter's own, what later
 * ops have left for `input` in this backward if nobody else reads that any more, or new memory.
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

/** Runs `work` with gradients of its own; the memory that it takes, less what it deletes from `taken`, is released at its end. */
export function withGradients<T>(step: Step, work: (gradients: Gradients, taken: Set<GPUBuffer>) => T): T {
  return step.track((taken) => work(new Gradients(step, taken), taken));
}

/**
 * Gradients on their way back, up to those of parameters, which lie outside; a buffer taken on the way is released as soon as no
 * gradient lies in it any more.
 */
export class Gradients {
  private readonly table = new Map<Tensor, Tensor>();
  private readonly holders = new Map<GPUBuffer, number>();
  /** The gradients that the rule that ran last has added to, and returned as they are. */
  private readonly addedTo = new Set<Tensor>();
  /** All that it returned, held until each has been added: one tensor may stand for several operands. */
  private returned: Tensor[] = [];

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

  /** The gradient so far, for the rule that is running to add to; null where another tensor's gradient shares its memory. */
  toAddTo(tensor: Tensor): Tensor | null {
    const present = this.get(tensor);
    if (!present || !this.taken.has(present.buffer) || this.holders.get(present.buffer) !== 1) return null;
    this.addedTo.add(present);
    return present;
  }

  /** Runs a rule, whose gradientSum looks here; what it took and did not return is released. */
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

  /** Forgets the gradients of what an op made: its rule has passed them on. */
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
