/** Commands on their way to the queue: they wait in a list, which is encoded and submitted as a whole. */
import type { AsyncErrors } from './async-errors.ts';
import { bindGroup, type CommandSink, type DispatchOperation, encode, type Operation, slotBytes } from './commands.ts';
import type { BufferRange, Memory } from './memory.ts';
import type { Pace } from './pace.ts';
import type { Profiler } from './profile.ts';

const COMMANDS_PER_SUBMIT = 64;
const UNIFORM_BYTES = 64 * 1024;

/** Sums over all dispatches, the last two by the kernels' cost models. */
type Counts = Record<'dispatches' | 'workgroups' | 'flops' | 'bytes', number>;

export class Encoder implements CommandSink {
  /** Times every dispatch, in a pass of its own. */
  profiler: Profiler | null = null;
  private pending: Operation<BufferRange>[] = [];
  private readonly uniforms: GPUBuffer;
  private readonly slots = new Uint8Array(UNIFORM_BYTES);
  /** Bytes of `slots` that the pending dispatches take, and the seconds. */
  private used = 0;
  private seconds = 0;

  constructor(
    private readonly gpu: GPUDevice,
    memory: Memory,
    private readonly errors: AsyncErrors,
    private readonly counts: Counts,
    private readonly pace: Pace,
    /** Submit after each command. */
    private readonly debug: boolean,
  ) {
    this.uniforms = memory.uniform(UNIFORM_BYTES, 'op parameters');
  }

  add(operation: Operation<BufferRange>): void {
    this.errors.assertOpen();
    if (operation.kind === 'dispatch') {
      const bytes = slotBytes(operation);
      const seconds = this.pace.estimate(operation.cost);
      if (this.used + bytes > UNIFORM_BYTES || this.seconds + seconds > this.pace.limit) this.flush();
      const { counts, used } = this;
      const { grid, cost, uniform } = operation;
      if (uniform) this.slots.set(new Uint8Array(uniform.bytes), used);
      this.used += bytes;
      this.seconds += seconds;
      counts.dispatches += 1;
      counts.workgroups += grid[0] * grid[1] * grid[2];
      counts.flops += cost.flops;
      counts.bytes += cost.bytes;
    }
    this.pending.push(operation);
    if (this.pending.length >= COMMANDS_PER_SUBMIT || this.debug) this.flush();
  }

  /** Commands that were given before are submitted first, because writeBuffer overtakes it. */
  write(target: BufferRange, data: Uint8Array<ArrayBuffer>): void {
    this.errors.assertOpen();
    this.flush();
    const whole = data.byteLength - (data.byteLength % 4);
    this.errors.checked(`writing to ${target.buffer.label}`, () => {
      this.gpu.queue.writeBuffer(target.buffer, target.offset, data, 0, whole);
      if (whole === data.byteLength) return;
      const last = new Uint8Array(4);
      last.set(data.subarray(whole));
      this.gpu.queue.writeBuffer(target.buffer, target.offset + whole, last);
    });
  }

  flush(): void {
    const { pending, used, gpu } = this;
    const last = pending.at(-1);
    if (!last) return;
    this.pending = [];
    this.used = 0;
    this.seconds = 0;
    const label = last.kind === 'dispatch' ? last.label : last.kind;
    const what = pending.length === 1 ? label : `${pending.length} dispatches, the last ${label}`;
    this.errors.scoped(what, () => {
      if (used > 0) gpu.queue.writeBuffer(this.uniforms, 0, this.slots, 0, used);
      const encoder = gpu.createCommandEncoder();
      let offset = 0;
      const groupOf = (dispatch: DispatchOperation<BufferRange>) => {
        const group = bindGroup(gpu, dispatch, this.uniforms, offset);
        offset += slotBytes(dispatch);
        return group;
      };
      encode(encoder, pending, groupOf, this.profiler);
      gpu.queue.submit([encoder.finish()]);
    });
  }
}
