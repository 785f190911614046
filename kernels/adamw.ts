import {
  type Arena,
  bytesPerElement,
  elementCount,
  gridFor,
  InputError,
  loadKernel,
  type ParameterSet,
  Tensor,
  tensor,
} from '../engine/index.ts';
import { type ArenaMoments, joinMoments, type Moment, type MomentStorage, momentsOf } from './adamw-moments.ts';
import { GradientNorms } from './gradient-norms.ts';
import { expectShape } from './operand.ts';
import { streaming } from './streaming.ts';
import { WeightAverage } from './weight-average.ts';

const kernel = await loadKernel(new URL('./adamw.wgsl', import.meta.url));
const THREADS = 64;
const BLOCK_GROUPS = 16;
/** Operations of four random words, and of the rounding of a group of four elements by them. */
const ROUNDING_OPERATIONS = 490;
/** Operations of a group of four elements: the update; for packed moments also four random words, and the packing of integers. */
const OPERATIONS: Readonly<Record<MomentStorage, number>> = { f32: 68, bf16: 590, '8bit': 820 };
/** Steps are exact as f32, which the schedule is. */
const MOST_STEPS = 2 ** 24;

export interface AdamWOptions {
  beta1?: number;
  beta2?: number;
  epsilon?: number;
  /** Decoupled decay, multiplied by the learning rate; applied to every parameter that is not frozen. */
  weightDecay?: number;
  /** Gradients with a larger L2 norm are scaled down to it (no epsilon); default: no clipping. */
  maximumNorm?: number;
  /** Whether the norm is that of each group of parameters (default) or of all together. */
  clip?: 'perGroup' | 'together';
  /**
   * Storage of the moments; default f32. Packed ones are rounded stochastically, with the same bits on every adapter for a seed: bf16
   * to 8 bits of precision, 8bit to 4 relative to the largest of 64 neighbours (adamw.wgsl).
   */
  moments?: MomentStorage;
  /** The seed of stochastic rounding, from 0 to 2^53 - 1; default 0. */
  seed?: number;
  /** Decay of an exponential moving average of the weights, from 0 to below 1 (weight-average.wgsl); default: no average. */
  average?: number;
}

/**
 * The state that a checkpoint keeps: moments by name, `firstMoment/<parameter>` and `secondMoment/<parameter>`. With an average of the
 * weights a checkpoint is written and read inside `averaged`: `trainingWeight/<parameter>` then holds the weight that training goes on from.
 */
export interface AdamWState<T> {
  step: number;
  tensors: Map<string, T>;
}

/**
 * AdamW (Loshchilov and Hutter 2019) over a parameter set, with clipping by the global norm; all on the device.
 *
 * A step with a gradient or a loss that is not finite, in whatever group, is skipped: no weight, moment or average changes. So is one
 * with a gradient whose square is beyond f32 although it is clipped. A skipped step counts in `steps`, so that learning rate, random bits
 * and bias corrections depend on the step's number alone: the host need not wait to learn of it, and a resumed run gives the same bits.
 * Moments of k gradients after t steps are then corrected by 1 - beta^t in place of 1 - beta^k, which differ in the first steps only.
 *
 * A parameter's `rate` multiplies its learning rate, and so its decay. Frozen parameters keep their values, have no moments and count
 * in no norm. A parameter that no loss has reached counts as having gradient 0: its moments and its weight still decay.
 *
 * Parameters in bf16 are rounded stochastically, as packed moments are; those in f16 must be frozen.
 *
 * With `average` it also keeps a moving average of the weights, which begins as the values at construction.
 */
export class AdamW implements Disposable {
  /** Taken so far. */
  steps = 0;
  /** null without `average`. */
  readonly average: WeightAverage | null;
  private readonly options: Required<Omit<AdamWOptions, 'clip' | 'maximumNorm' | 'average'>>;
  private readonly maximumNorm: number | undefined;
  /** Norms of the gradients at the last step, before clipping, and whether it was taken. */
  readonly gradientNorms: GradientNorms;
  /** Whether a step draws random bits. */
  private readonly rounds: boolean;
  private readonly arenas: readonly { arena: Arena; moments: ArenaMoments; slot: number }[];
  private readonly byName: ReadonlyMap<string, Moment>;

  constructor(
    readonly parameters: ParameterSet,
    options: AdamWOptions = {},
  ) {
    const { beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weightDecay = 0, maximumNorm, clip = 'perGroup' } = options;
    const { moments = 'f32', seed = 0 } = options;
    for (const [name, beta] of Object.entries({ beta1, beta2 }))
      if (!(beta >= 0 && beta < 1)) throw new RangeError(`AdamW: ${name} is ${beta}; expected from 0 to below 1`);
    if (maximumNorm !== undefined && !(maximumNorm > 0))
      throw new RangeError(`AdamW: maximumNorm is ${maximumNorm}; expected a number above 0`);
    if (!Number.isSafeInteger(seed) || seed < 0)
      throw new RangeError(`AdamW: seed ${seed}; expected a whole number from 0 to 2^53 - 1`);
    this.options = { beta1, beta2, epsilon, weightDecay, moments, seed };
    this.maximumNorm = maximumNorm;
    this.gradientNorms = new GradientNorms(parameters);
    const half = this.gradientNorms.arenas.find(({ dtype }) => dtype === 'f16');
    if (half)
      throw new InputError(`AdamW: parameter '${half.tensors[0].name}' is f16; those that are trained are f32 or bf16`);
    this.rounds = moments !== 'f32' || this.gradientNorms.arenas.some(({ dtype }) => dtype === 'bf16');
    const { device } = parameters;
    const pieces = new Map<string, Moment[]>();
    this.arenas = this.gradientNorms.arenas.map((arena) => {
      const made = momentsOf(device, arena, moments);
      for (const [name, moment] of made.byName) pieces.set(name, [...(pieces.get(name) ?? []), moment]);
      return { arena, moments: made, slot: this.gradientNorms.slot(clip === 'together' ? null : arena.group) };
    });
    this.average =
      options.average === undefined ? null : new WeightAverage(device, this.gradientNorms.arenas, options.average);
    for (const [name, views] of this.average?.tensors ?? []) pieces.set(`trainingWeight/${name}`, [...views]);
    this.byName = new Map(Array.from(pieces, ([name, own]) => [name, joinMoments(own)]));
  }

  get scheduleSize(): number {
    return this.rounds ? 4 : 3;
  }

  /**
   * Counts a step; returns what it needs of the host: [learning rate, bias corrections of both moments], and where moments or
   * parameters are rounded the step's number behind them.
   */
  nextSchedule(learningRate: number): Float32Array<ArrayBuffer> {
    if (!Number.isFinite(learningRate) || learningRate < 0)
      throw new RangeError(`AdamW: learning rate ${learningRate}; expected a number from 0`);
    if (this.rounds && this.steps + 1 >= MOST_STEPS)
      throw new RangeError(`AdamW: packed moments and parameters take fewer than ${MOST_STEPS} steps`);
    this.steps += 1;
    // The kernel's f32 betas, so that the corrections are those of the averages that it keeps.
    const correction = (beta: number) => 1 / (1 - Math.fround(beta) ** this.steps);
    const { beta1, beta2 } = this.options;
    const step = this.rounds ? [this.steps] : [];
    return Float32Array.of(learningRate, correction(beta1), correction(beta2), ...step);
  }

  /**
   * Updates the parameters by their gradients, which stay as they are. Inside device.step.
   *
   * Takes the learning rate; or, in a step that is captured, a tensor of what `nextSchedule` returned.
   */
  step(learningRate: number | Tensor): void {
    const { device } = this.parameters;
    device.currentStep('AdamW');
    const scheduleShape = [this.scheduleSize];
    if (learningRate instanceof Tensor) expectShape('AdamW', 'schedule', learningRate, scheduleShape);
    else if (device.recorder)
      throw new Error(
        `AdamW: ${device.recorder.name} would keep the learning rate of its first run; give it an input of what nextSchedule returns`,
      );
    const schedule =
      learningRate instanceof Tensor ? learningRate : tensor(device, this.nextSchedule(learningRate), scheduleShape);
    device.during('update', () => this.update(schedule));
  }

  private update(schedule: Tensor): void {
    const { device } = this.parameters;
    const { beta1, beta2, epsilon, weightDecay: decay, moments: kind, seed } = this.options;
    const { norms } = this.gradientNorms;
    this.gradientNorms.measure(this.maximumNorm);
    this.arenas.forEach(({ arena: { dtype, elements, values, gradients, rate }, moments, slot }, arena) => {
      const groups = elements / 4;
      const isRounded = dtype === 'bf16';
      const { entry, parameters, bindings, bytes } = moments;
      const { fields, workgroups } = streaming(device, groups, THREADS);
      const blockThreads = (groups / BLOCK_GROUPS) * Number(parameters.BLOCK_THREADS);
      device.dispatch({
        kernel,
        entry,
        parameters: {
          ...{ THREADS, ...parameters },
          ...(isRounded && { Value: dtype, unpackValue: dtype, packValue: dtype }),
        },
        bindings: { gradient: gradients(), norms, schedule, value: values, ...bindings },
        uniform: {
          ...fields,
          ...{ slot, arena, seedLow: seed % 2 ** 32, seedHigh: Math.floor(seed / 2 ** 32) },
          ...{ factor: rate!, decay, epsilon, beta1, beta2 },
        },
        workgroups: entry === 'update' ? workgroups : gridFor(blockThreads, THREADS),
        flops: (OPERATIONS[kind] + (isRounded ? ROUNDING_OPERATIONS : 0)) * groups,
        bytes: 2 * values.byteLength + bytesPerElement.f32 * elements + 2 * bytes,
      });
    });
    this.average?.update(norms);
  }

  /** The result of `work`, which runs while the parameters hold their averages; without averages they hold their own values. */
  async averaged<T>(work: () => Promise<T>): Promise<T> {
    this.exchange();
    try {
      return await work();
    } finally {
      this.exchange();
    }
  }

  /** Swaps the parameters' values and their averages, if there are any. */
  exchange(): void {
    const { average } = this;
    if (average) this.parameters.device.step(() => average.exchange());
  }

  /** Bytes of the moments, and of the averages of the weights. */
  get bytes(): { moments: number; averages: number } {
    const moments = this.arenas.reduce((sum, own) => sum + own.moments.bytes, 0);
    return { moments, averages: this.average?.bytes ?? 0 };
  }

  /** Has the next step skipped if one of `losses`, a number each, is not finite. Inside device.step; for each part of a step. */
  checkLosses(losses: Iterable<Tensor>): void {
    this.gradientNorms.checkLosses(losses);
  }

  /** For a checkpoint: read the moments with `read()`; they live as long as this optimizer. */
  state(): AdamWState<Moment> {
    return { step: this.steps, tensors: new Map(this.byName) };
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
    this.steps = step;
    for (const [name, moment] of this.byName) moment.write(tensors.get(name)!);
  }

  dispose(): void {
    this.gradientNorms.dispose();
    this.average?.dispose();
    for (const { moments } of this.arenas) for (const made of Object.values(moments.bindings)) made.dispose();
    for (const { pieces } of this.byName.values())
      for (const piece of pieces) if (piece instanceof Tensor) piece.expire();
  }
  readonly [Symbol.dispose] = this.dispose;
}
