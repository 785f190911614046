import {
  type BufferRange,
  elementCount,
  InputError,
  loadKernel,
  type ParameterSet,
  persistentTensor,
  Tensor,
  tensor,
} from '../engine/index.ts';
import { GradientNorms, type NormsOfGroups } from './gradient-norms.ts';
import { expectShape } from './operand.ts';
import { streaming } from './streaming.ts';

const kernel = await loadKernel(new URL('./adamw.wgsl', import.meta.url));
const THREADS = 64;

export interface AdamWOptions {
  beta1?: number;
  beta2?: number;
  epsilon?: number;
  /** Decoupled decay, multiplied by the learning rate; applied to every parameter. */
  weightDecay?: number;
  /** Gradients with a larger L2 norm are scaled down to it (no epsilon); default: no clipping. */
  maximumNorm?: number;
  /** Whether the norm is that of each group of parameters (default) or of all together. */
  clip?: 'perGroup' | 'together';
}

/** What a checkpoint keeps: moments by name, `firstMoment/<parameter>` and `secondMoment/<parameter>`. */
export interface AdamWState<T> {
  step: number;
  tensors: Map<string, T>;
}

interface Moments {
  readonly values: BufferRange;
  readonly gradients: () => BufferRange;
  readonly first: Tensor;
  readonly second: Tensor;
  readonly slot: number;
}

/**
 * AdamW (Loshchilov and Hutter 2019) over a parameter set, with clipping by the global norm; all on the device.
 *
 * Groups whose parameters do not want gradients are left alone. A parameter that no loss has reached counts as having gradient 0:
 * its moments and its weight still decay.
 */
export class AdamW implements Disposable {
  private stepCount = 0;
  private readonly options: Required<Omit<AdamWOptions, 'clip' | 'maximumNorm'>>;
  private readonly maximumNorm: number | undefined;
  private readonly gradientNorms: GradientNorms;
  private readonly moments: readonly Moments[];
  private readonly byName = new Map<string, Tensor>();

  constructor(
    readonly parameters: ParameterSet,
    options: AdamWOptions = {},
  ) {
    const { beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weightDecay = 0, maximumNorm, clip = 'perGroup' } = options;
    for (const [name, beta] of Object.entries({ beta1, beta2 }))
      if (!(beta >= 0 && beta < 1)) throw new RangeError(`AdamW: ${name} is ${beta}; expected from 0 to below 1`);
    if (maximumNorm !== undefined && !(maximumNorm > 0))
      throw new RangeError(`AdamW: maximumNorm is ${maximumNorm}; expected a number above 0`);
    this.options = { beta1, beta2, epsilon, weightDecay };
    this.maximumNorm = maximumNorm;
    this.gradientNorms = new GradientNorms(parameters);
    const { device } = parameters;
    this.moments = this.gradientNorms.arenas.map(({ group, values, gradients, tensors }) => {
      const [first, second] = ['first', 'second'].map((which) => {
        const arena = persistentTensor(device, [values.byteLength / 4], 'f32', `${which} moments of ${group}`);
        for (const { name, shape, offset } of tensors) {
          const key = `${which}Moment/${name}`;
          this.byName.set(key, new Tensor(device, shape, 'f32', arena.buffer, offset, key, 'persistent', false));
        }
        return arena;
      });
      return { values, gradients, first, second, slot: this.gradientNorms.slot(clip === 'together' ? null : group) };
    });
  }

  /** Steps taken. */
  get steps(): number {
    return this.stepCount;
  }

  /** Counts a step; returns what it needs of the host: [learning rate, bias corrections of both moments]. */
  nextSchedule(learningRate: number): Float32Array<ArrayBuffer> {
    if (!Number.isFinite(learningRate) || learningRate < 0)
      throw new RangeError(`AdamW: learning rate ${learningRate}; expected a number from 0`);
    this.stepCount += 1;
    // The kernel's f32 betas, so that the corrections are those of the averages that it keeps.
    const correction = (beta: number) => 1 / (1 - Math.fround(beta) ** this.stepCount);
    return Float32Array.of(learningRate, correction(this.options.beta1), correction(this.options.beta2));
  }

  /**
   * Updates the parameters by their gradients, which stay as they are. Inside device.step.
   *
   * Takes the learning rate; or, in a step that is captured, a tensor [3] of what `nextSchedule` returned.
   */
  step(learningRate: number | Tensor): void {
    const { device } = this.parameters;
    device.currentStep('AdamW');
    if (learningRate instanceof Tensor) expectShape('AdamW', 'schedule', learningRate, [3]);
    const schedule =
      learningRate instanceof Tensor ? learningRate : tensor(device, this.nextSchedule(learningRate), [3]);
    this.gradientNorms.measure(this.maximumNorm);
    const { beta1, beta2, epsilon, weightDecay: decay } = this.options;
    for (const { values, gradients, first, second, slot } of this.moments) {
      const { fields, workgroups } = streaming(device, values.byteLength / 16, THREADS);
      device.dispatch({
        kernel,
        entry: 'update',
        parameters: { THREADS },
        bindings: {
          gradient: gradients(),
          clip: this.gradientNorms.clip,
          value: values,
          firstMoment: first,
          secondMoment: second,
          schedule,
        },
        uniform: { ...fields, slot, decay, epsilon, beta1, beta2 },
        workgroups,
        flops: (17 * values.byteLength) / 4,
        bytes: 7 * values.byteLength,
      });
    }
  }

  /** L2 norms of the gradients at the last step, before clipping. */
  norms(): Promise<NormsOfGroups> {
    return this.gradientNorms.read();
  }

  /** For a checkpoint: read the tensors with `read()`; they live as long as this optimizer. */
  state(): AdamWState<Tensor> {
    return { step: this.stepCount, tensors: new Map(this.byName) };
  }

  /** Takes up a saved state. Throws, changing nothing, where a moment is missing or has another size. */
  restore({ step, tensors }: AdamWState<Float32Array>): void {
    if (!Number.isInteger(step) || step < 0)
      throw new InputError(`optimizer state: step ${step}; expected a whole number`);
    for (const [name, { shape }] of this.byName) {
      const found = tensors.get(name);
      if (!found) throw new InputError(`optimizer state: '${name}' is missing; the checkpoint is of another model`);
      if (found.length !== elementCount(shape))
        throw new InputError(
          `optimizer state: '${name}' has ${found.length} numbers; this model's has ${elementCount(shape)}`,
        );
    }
    this.stepCount = step;
    for (const [name, moment] of this.byName) moment.write(tensors.get(name)!);
  }

  dispose(): void {
    this.gradientNorms.dispose();
    for (const { first, second } of this.moments) {
      first.dispose();
      second.dispose();
    }
    for (const moment of this.byName.values()) moment.expire();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
