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

/** L2 norms of the gradients of each group of parameters, and of all together. */
export interface NormsOfGroups {
  groups: Record<string, number>;
  total: number;
}

/** Measures the gradients of a parameter set on the device; what it keeps there lives until disposed. */
export class GradientNorms implements Disposable {
  /** All arenas but those of frozen parameters. */
  readonly arenas: readonly Arena[];
  readonly groups: readonly string[];
  /** Clip factors [groups + 1]: of each group by its own norm, and the last of all by the norm of all together. */
  readonly clip: Tensor;
  private readonly values: Tensor;
  private readonly partialSums: Tensor;
  /** Where the partial sums of each arena begin; one more entry for the end. */
  private readonly firstSlices: readonly number[];

  constructor(readonly parameters: ParameterSet) {
    const { device } = parameters;
    this.arenas = parameters.arenas.filter((arena) => arena.rate !== null);
    this.groups = [...new Set(this.arenas.map((arena) => arena.group))];
    const firstSlices = [0];
    for (const arena of this.arenas) firstSlices.push(firstSlices[firstSlices.length - 1] + slicesOf(arena));
    this.firstSlices = firstSlices;
    this.partialSums = persistentTensor(device, [firstSlices[firstSlices.length - 1]], 'f32', 'gradient norms');
    this.values = persistentTensor(device, [this.groups.length + 1], 'f32', 'gradient norms');
    this.clip = persistentTensor(device, [this.groups.length + 1], 'f32', 'gradient norms');
  }

  /** Encodes the norms of the gradients as they are now, and the clip factors for `maximumNorm`; without it they are 1. */
  measure(maximumNorm = 3e38): void {
    this.arenas.forEach((arena, index) => {
      const gradient = arena.gradients();
      const slices = slicesOf(arena);
      const { byteLength } = gradient;
      const fields = { groups: byteLength / 16, slices, first: this.firstSlices[index] };
      const cost = { flops: byteLength / 2, bytes: byteLength + 4 * slices };
      this.run('sumSquares', { gradient, partialSums: this.partialSums }, slices, fields, cost);
    });
    const spans = this.groups.map((group) => this.arenas.flatMap((arena, i) => (arena.group === group ? [i] : [])));
    [...spans, [...this.arenas.keys()]].forEach((span, slot) => {
      const first = this.firstSlices[span[0] ?? 0];
      const count = this.firstSlices[(span.at(-1) ?? -1) + 1] - first;
      const { partialSums, values: norms, clip } = this;
      const cost = { flops: count, bytes: 4 * count + 8 };
      this.run('norm', { partialSums, norms, clip }, 1, { first, count, slot, maximumNorm }, cost);
    });
  }

  async read(): Promise<NormsOfGroups> {
    const values = await this.values.read();
    const groups = Object.fromEntries(this.groups.map((group, i) => [group, values[i]]));
    return { groups, total: values[this.groups.length] };
  }

  /** Which element of `clip` belongs to `group`, or to all groups together. */
  slot(group: string | null): number {
    return group === null ? this.groups.length : this.groups.indexOf(group);
  }

  dispose(): void {
    for (const tensor of [this.partialSums, this.values, this.clip]) tensor.dispose();
  }
  readonly [Symbol.dispose] = this.dispose;

  private run(
    entry: string,
    bindings: Record<string, BufferRange>,
    workgroups: number,
    fields: Record<string, number>,
    cost: { flops: number; bytes: number },
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
