import { type Arena, bytesPerElement, type Device, loadKernel, persistentTensor, Tensor } from '../engine/index.ts';
import { streaming } from './streaming.ts';

const kernel = await loadKernel(new URL('./weight-average.wgsl', import.meta.url));
const THREADS = 64;
/** How often a value and its average are read or written. */
const MOVED = { begin: [1, 1], update: [1, 2], exchange: [2, 2] } as const;

/** An exponential moving average of the parameters in `arenas`, f32 or bf16, in 4 bytes for each parameter. It begins as their values. */
export class WeightAverage implements Disposable {
  /**
   * Views of what is stored, by the names of the parameters: the averages, and after an `exchange` the parameters' own values. Those of a
   * bf16 parameter have bits of both, and are for a checkpoint alone; see weight-average.wgsl. One view for each piece of a parameter.
   */
  readonly tensors: ReadonlyMap<string, readonly Tensor[]>;
  private readonly pairs: readonly { arena: Arena; average: Tensor }[];

  /** @throws RangeError if the decay is not from 0 to below 1 */
  constructor(
    private readonly device: Device,
    arenas: readonly Arena[],
    private readonly decay: number,
  ) {
    if (!(decay >= 0 && decay < 1))
      throw new RangeError(`average of weights: decay ${decay}; expected from 0 to below 1`);
    const tensors = new Map<string, Tensor[]>();
    this.pairs = arenas.map((arena) => {
      const { group, elements } = arena;
      const average = persistentTensor(device, [elements], 'f32', `averages of ${group}`);
      for (const { name, shape, firstElement } of arena.tensors) {
        const at = bytesPerElement.f32 * firstElement;
        const view = new Tensor(device, shape, 'f32', average.buffer, at, name, 'persistent', false);
        tensors.set(name, [...(tensors.get(name) ?? []), view]);
      }
      return { arena, average };
    });
    this.tensors = tensors;
    device.step(() => this.run('begin', 0));
  }

  get bytes(): number {
    return this.pairs.reduce((sum, { average }) => sum + average.byteLength, 0);
  }

  /**
   * Moves the averages towards the parameters' values, after an update of these, which `norms` [1 + groups, 4] (gradient-norms.ts) may have
   * had skipped. One dispatch for each arena; inside device.step.
   */
  update(norms: Tensor): void {
    this.run('update', 12, { norms });
  }

  /** Swaps the parameters' values and their averages. One dispatch for each arena; inside device.step. */
  exchange(): void {
    this.run('exchange', 0);
  }

  dispose(): void {
    for (const { average } of this.pairs) average.dispose();
    for (const views of this.tensors.values()) for (const view of views) view.expire();
  }
  readonly [Symbol.dispose] = this.dispose;

  private run(entry: keyof typeof MOVED, operations: number, others: Readonly<Record<string, Tensor>> = {}): void {
    const { device, decay } = this;
    device.currentStep('average of weights');
    const [ofValues, ofAverages] = MOVED[entry];
    for (const { arena, average } of this.pairs) {
      const groups = arena.elements / 4;
      const isHalf = arena.dtype === 'bf16';
      const { fields, workgroups } = streaming(device, groups, THREADS);
      device.dispatch({
        ...{ kernel, entry, workgroups },
        parameters: { THREADS, ...(isHalf && { Value: 'bf16', unpack: 'bf16', exchanged: 'bf16', HALF: 2 ** 15 }) },
        bindings: { value: arena.values, average, ...others },
        uniform: { ...fields, decay },
        flops: operations * groups,
        bytes: ofValues * arena.values.byteLength + ofAverages * average.byteLength,
      });
    }
  }
}
