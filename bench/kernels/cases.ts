/** The ops of a step at the sizes of a model with operands, which `insula bench kernels` measures and the test of cost models counts. */
import { type Device, elementCount, ParameterSet, type Shape, type Tensor, tensor } from '../../engine/index.ts';
import { AdamW } from '../../kernels/index.ts';
import { type Direction, taskOf, waves } from '../measure/operation-task.ts';
import type { Task } from '../measure/work.ts';
import type { Problem } from './problem.ts';
import { problemsOf } from './problems.ts';
import type { ModelShape } from './shapes.ts';

interface KernelCase {
  /** The op and its place in a model. */
  readonly name: string;
  /** Makes the operands, outside of any step. */
  make(device: Device): Operands;
}

/** Operands, and the op that runs on them inside a step. */
export class Operands implements Disposable {
  constructor(
    /** Runs the op; returns the output that `gradient` belongs to, or null if there is none. */
    readonly forward: () => Tensor | null,
    /** Gradient of the output; null if the op has no backward. */
    readonly gradient: Tensor | null,
    private readonly held: readonly Disposable[],
  ) {}

  /** The op to measure, forward and, if it has one, backward. */
  tasks(device: Device): { direction: 'forward' | 'backward'; task: Task }[] {
    const { forward, gradient } = this;
    if (!gradient) return [{ direction: 'forward', task: { prepare: () => () => void forward() } }];
    const task = (direction: Direction) => taskOf(device, direction, () => forward()!, gradient);
    return (['forward', 'backward'] as const).map((direction) => ({ direction, task: task(direction) }));
  }

  [Symbol.dispose](): void {
    for (const each of this.held) each[Symbol.dispose]();
  }
}

/** Every case of a model. Float operands hold waves of about unit variance, divided by the square root of their last axis. */
export function kernelCases(model: ModelShape): KernelCase[] {
  const made = problemsOf(model).map(
    (problem): KernelCase => ({ name: problem.name, make: (device) => operandsOf(device, problem) }),
  );
  return [...made, adamwCase(model, 'f32'), adamwCase(model, '8bit')];
}

/** Operands of a problem's shapes on the device. */
export function operandsOf(device: Device, { operands, pair: [run], backward }: Problem): Operands {
  const operand = (shape: Shape, seed: number) => {
    const made = tensor(device, waves(elementCount(shape), seed, shape.at(-1)), shape);
    made.wantsGradient = true; // it is no parameter, so its gradient is computed but not kept
    return made;
  };
  const made = Object.values(operands).map((own, i) => {
    if (!('shape' in own)) return operand(own, i);
    const { shape, ids } = own;
    return tensor(device, ids ?? waves(elementCount(shape)), shape, { dtype: ids ? 'u32' : 'f32' });
  });
  // The shape of the gradient is known after one run.
  const shape = backward && device.step(() => [...run(...made).shape]);
  const gradient = shape ? operand(shape, made.length) : null;
  return new Operands(() => run(...made), gradient, gradient ? [...made, gradient] : made);
}

/** AdamW on all parameters of one gated MLP, with clipping by group. */
function adamwCase({ width, hidden }: ModelShape, moments: 'f32' | '8bit'): KernelCase {
  const size = 3 * width * hidden;
  return {
    name: `AdamW, moments in ${moments}, ${size} parameters`,
    make(device) {
      const weights = ['gate', 'up', 'down'].map((name) => ({ name, shape: [hidden, width], group: 'backbone' }));
      const set = new ParameterSet(device, weights);
      const optimizer = new AdamW(set, { maximumNorm: 1, moments });
      const numbers = optimizer.nextSchedule(1e-4);
      const schedule = tensor(device, numbers, [numbers.length]);
      const forward = () => {
        optimizer.step(schedule);
        return null;
      };
      return new Operands(forward, null, [schedule, optimizer, set]);
    },
  };
}
