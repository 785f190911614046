/**
 * Drivers compile a pipeline when it is made or when it first runs, some for seconds. Here each runs once beforehand, on one
 * workgroup and buffers of zeros: every loop of a kernel is bounded by what it is given, and what it writes is thrown away.
 */
import { bindGroup } from './commands.ts';
import type { Device } from './device.ts';
import { ALIGNMENT } from './memory.ts';
import type { ReplayedOperation } from './placement.ts';
import type { RecordedDispatch } from './recorder.ts';

export interface ReadyPipeline {
  readonly label: string;
  readonly parameters: RecordedDispatch['parameters'];
  /** Making it, and its first dispatch. */
  readonly milliseconds: number;
}

/** Called with each, how many are done, and how many there are. */
export type OnPipeline = (pipeline: ReadyPipeline, done: number, total: number) => void;

/** Runs the pipelines of `operations` that have not been run so. */
export async function warmUp(
  device: Device,
  operations: readonly ReplayedOperation[],
  onPipeline: OnPipeline = () => {},
): Promise<void> {
  const dispatches = operations.filter((operation) => operation.kind === 'dispatch');
  const { pipelines, memory, errors } = device;
  const cold = [...new Map(dispatches.map((dispatch) => [dispatch.pipeline, dispatch])).values()].filter(
    ({ pipeline }) => !pipelines.warm.has(pipeline),
  );
  const most = Math.max(0, ...cold.map(({ bindings }) => bindings.length));
  const scratch = Array.from({ length: most }, () => memory.persistent(ALIGNMENT, 'warm-up'));
  const zeros = memory.uniform(ALIGNMENT, 'warm-up');
  try {
    for (const [done, dispatch] of cold.entries()) {
      const begin = performance.now();
      run(device, dispatch, scratch, zeros);
      await errors.settle(device.gpu.queue.onSubmittedWorkDone());
      pipelines.warm.add(dispatch.pipeline);
      const { label, parameters, pipeline } = dispatch;
      const milliseconds = performance.now() - begin + (pipelines.makingTimes.get(pipeline) ?? 0);
      onPipeline({ label, parameters, milliseconds }, done + 1, cold.length);
    }
  } finally {
    for (const buffer of [...scratch, zeros]) memory.free(buffer);
  }
}

function run(device: Device, dispatch: RecordedDispatch, scratch: readonly GPUBuffer[], zeros: GPUBuffer): void {
  const bindings = dispatch.bindings.map((binding, i) => ({
    ...binding,
    range: { buffer: scratch[i], offset: 0, byteLength: ALIGNMENT },
  }));
  device.submit(`warm-up of ${dispatch.label}`, (encoder) => {
    const pass = encoder.beginComputePass();
    pass.setPipeline(dispatch.pipeline);
    pass.setBindGroup(0, bindGroup(device.gpu, { ...dispatch, bindings }, zeros, 0));
    pass.dispatchWorkgroups(1);
    pass.end();
  });
}
