import { type Arena, type Device, loadKernel, persistentTensor, Tensor } from '../engine/index.ts';
import { streaming } from './streaming.ts';

const kernel = await loadKernel(new URL('./weight-average.wgsl', import.meta.url));
const THREADS = 64;

/** An exponential moving average of the parameters in `arenas`, in f32: 4 bytes for each parameter. It begins as their values. */
export class WeightAverage implements Disposable {
  /** Views of the averages, by the names of the parameters; after an `exchange`, of the parameters' own values. */
  readonly tensors: ReadonlyMap<string, Tensor>;
  private readonly pairs: readonly { arena: Arena; average: Tensor }[];

  /** @throws RangeError if the decay is not from 0 to below 1 */
  constructor(
    private readonly device: Device,
    arenas: readonly Arena[],
    private readonly decay: number,
  ) {
    if (!(decay >= 0 && decay < 1))
      throw new RangeError(`average of weights: decay ${decay}; expected from 0 to below 1`);
    const tensors = new Map<string, Tensor>();
    this.pairs = arenas.map((arena) => {
      const { group, values } = arena;
      const average = persistentTensor(device, [values.byteLength / 4], 'f32', `averages of ${group}`);
      device.copy(values, average, values.byteLength);
      for (const { name, shape, offset } of arena.tensors)
        tensors.set(name, new Tensor(device, shape, 'f32', average.buffer, offset, name, 'persistent', false));
      return { arena, average };
    });
    this.tensors = tensors;
  }

  get bytes(): number {
    return this.pairs.reduce((sum, { average }) => sum + average.byteLength, 0);
  }

  /** Moves the averages towards the parameters' values, after an update of these. One dispatch for each arena; inside device.step. */
  update(): void {
    this.run('update', 12);
  }

  /** Swaps the parameters' values and their averages. One dispatch for each arena; inside device.step. */
  exchange(): void {
    this.run('exchange', 0);
  }

  dispose(): void {
    for (const { average } of this.pairs) average.dispose();
    for (const tensor of this.tensors.values()) tensor.expire();
  }
  readonly [Symbol.dispose] = this.dispose;

  private run(entry: 'update' | 'exchange', operations: number): void {
    const { device, decay } = this;
    device.currentStep('average of weights');
    for (const { arena, average } of this.pairs) {
      const groups = average.byteLength / 16;
      const { fields, workgroups } = streaming(device, groups, THREADS);
      device.dispatch({
        ...{ kernel, entry, workgroups, parameters: { THREADS } },
        bindings: { value: arena.values, average },
        uniform: { ...fields, decay },
        flops: operations * groups,
        bytes: (entry === 'update' ? 3 : 4) * average.byteLength,
      });
    }
  }
}
