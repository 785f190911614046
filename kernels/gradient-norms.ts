import {
  type Arena,
  type BufferRange,
  loadKernel,
  type ParameterSet,
  persistentTensor,
  type Tensor,
} from '../engine/index.ts';

const kernel = await loadKernel(new URL('./gradient-norms.wgsl', import.meta.url));
const GROUPS_PER_SLICE = 4096;
const MOST_SLICES = 1024;

/** L2 norms of the gradients of each group of parameters, and of all together; NaN where a gradient is not finite. */
export interface NormsOfGroups {
  groups: Record<string, number>;
  /** NaN too where a loss was not finite. */
  total: number;
  /** Whether the update that follows changes anything; see gradient-norms.wgsl. */
  usable: boolean;
}

/** How many numbers a norm has, and a partial sum, in gradient-norms.wgsl. */
const [NORM, PARTIAL] = [4, 2];
const LOWEST_EXPONENT = -126;

/** Measures the gradients of a parameter set on the device; what it keeps there lives until disposed. */
export class GradientNorms implements Disposable {
  /** All arenas but those of frozen parameters. */
  readonly arenas: readonly Arena[];
  readonly groups: readonly string[];
  /** Norms and clip factors [1 + groups, 4]: of all together, then of each group; see gradient-norms.wgsl. */
  readonly norms: Tensor;
  private readonly partials: Tensor;
  /** Where the partial sums of each arena begin; one more entry for the end, where that of the losses lies. */
  private readonly firstSlices: readonly number[];

  constructor(readonly parameters: ParameterSet) {
    const { device } = parameters;
    this.arenas = parameters.arenas.filter((arena) => arena.rate !== null);
    this.groups = [...new Set(this.arenas.map((arena) => arena.group))];
    const firstSlices = [0];
    for (const arena of this.arenas) firstSlices.push(firstSlices[firstSlices.length - 1] + slicesOf(arena));
    this.firstSlices = firstSlices;
    const partials = new Int32Array(PARTIAL * (firstSlices[this.arenas.length] + 1));
    partials[partials.length - 1] = LOWEST_EXPONENT;
    this.partials = persistentTensor(device, [partials.length], 'f32', 'gradient norms');
    device.write(this.partials, partials);
    this.norms = persistentTensor(device, [1 + this.groups.length, NORM], 'f32', 'gradient norms');
  }

  /** Has the next `measure` find the step unusable if one of `losses`, a number each, is not finite or 1e29 and more. */
  checkLosses(losses: Iterable<Tensor>): void {
    for (const loss of losses)
      this.run('checkLoss', { loss, partials: this.partials }, 1, { first: this.firstSlices[this.arenas.length] });
  }

  /** Encodes the norms of the gradients as they are now, and the clip factors for `maximumNorm`; without it they are 1. */
  measure(maximumNorm = 3e38): void {
    this.arenas.forEach((arena, index) => {
      const gradient = arena.gradients();
      const slices = slicesOf(arena);
      const { byteLength } = gradient;
      const fields = { groups: byteLength / 16, slices, first: this.firstSlices[index] };
      const cost = { flops: 0.75 * byteLength, bytes: byteLength + 4 * PARTIAL * slices };
      this.run('sumSquares', { gradient, partials: this.partials }, slices, fields, cost);
    });
    const spans = this.groups.map((group) => this.arenas.flatMap((arena, i) => (arena.group === group ? [i] : [])));
    [[...this.arenas.keys()], ...spans].forEach((span, slot) => {
      const first = this.firstSlices[span[0] ?? 0];
      const end = this.firstSlices[(span.at(-1) ?? -1) + 1] + (slot === 0 ? 1 : 0);
      const count = end - first;
      const { partials, norms } = this;
      const cost = { flops: 3 * count, bytes: 4 * (PARTIAL * count + NORM) };
      this.run('norm', { partials, norms }, 1, { first, count, slot, maximumNorm }, cost);
    });
  }

  async read(): Promise<NormsOfGroups> {
    return this.named(await this.norms.read());
  }

  /** What the numbers of `norms` say. */
  named(values: Float32Array): NormsOfGroups {
    const [total, ...groups] = Array.from({ length: 1 + this.groups.length }, (_, slot) => {
      const [length, scale, , unusable] = values.subarray(NORM * slot);
      return unusable !== 0 && length === 0 ? Number.NaN : length / scale;
    });
    const byName = Object.fromEntries(this.groups.map((group, i) => [group, groups[i]]));
    return { groups: byName, total, usable: values[NORM - 1] === 0 };
  }

  /** Which row of `norms` belongs to `group`, or to all groups together. */
  slot(group: string | null): number {
    return group === null ? 0 : 1 + this.groups.indexOf(group);
  }

  dispose(): void {
    for (const tensor of [this.partials, this.norms]) tensor.dispose();
  }
  readonly [Symbol.dispose] = this.dispose;

  private run(
    entry: string,
    bindings: Record<string, BufferRange>,
    workgroups: number,
    fields: Record<string, number>,
    cost?: { flops: number; bytes: number },
  ): void {
    const { device } = this.parameters;
    const uniform = { groups: 0, slices: 0, first: 0, count: 0, slot: 0, maximumNorm: 0, ...fields };
    device.dispatch({
      kernel,
      entry,
      parameters: { THREADS: device.software ? 8 : 64 }, // a slice is no work for several subgroups of a software adapter
      bindings,
      uniform,
      workgroups: [workgroups],
      ...cost,
    });
  }
}

function slicesOf({ elements }: Arena): number {
  return Math.min(Math.ceil(elements / 4 / GROUPS_PER_SLICE), MOST_SLICES);
}
