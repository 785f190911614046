/**
 * Drivers compile a pipeline when it is made or when it first runs, some for seconds. Here those of a step are made side by side, and
 * each runs once beforehand, on one workgroup, with op parameters of zero and small buffers that hold whatever earlier ones left: op
 * parameters bound every loop of a kernel, so none runs long, and nobody reads what is written.
 */
import { bindGroup, encode } from './commands.ts';
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

/**
 * Compiles and runs the pipelines of `operations` that have not been run so. Rejects, when none is under way any more, with the first
 * error, which names the kernel.
 */
export async function warmUp(
  device: Device,
  operations: readonly ReplayedOperation[],
  onPipeline: OnPipeline = () => {},
): Promise<void> {
  const dispatches = operations.filter((operation) => operation.kind === 'dispatch');
  const { pipelines, memory, errors } = device;
  const cold = [...new Map(dispatches.map((dispatch) => [dispatch.pipeline, dispatch])).values()].filter(
    ({ pipeline }) => !pipeline.warm,
  );
  const most = Math.max(0, ...cold.map(({ bindings }) => bindings.length));
  const scratch = Array.from({ length: most }, () => memory.persistent(ALIGNMENT, 'warm-up'));
  const zeros = memory.uniform(ALIGNMENT, 'warm-up');
  const waiting = [...cold];
  let done = 0;
  let idle = 0; // since when the queue has had nothing to do
  const prepare = async (dispatch: RecordedDispatch) => {
    const { label, parameters, pipeline } = dispatch;
    const begin = performance.now();
    await pipeline.compile(pipelines.atOnce > 1);
    const made = performance.now();
    run(device, dispatch, scratch, zeros);
    await errors.settle(device.gpu.queue.onSubmittedWorkDone());
    pipeline.warm = true;
    const milliseconds = made - begin + performance.now() - Math.max(made, idle);
    idle = performance.now();
    done += 1;
    onPipeline({ label, parameters, milliseconds }, done, cold.length);
  };
  const work = async () => {
    try {
      for (let next = waiting.shift(); next; next = waiting.shift()) await prepare(next);
    } finally {
      waiting.length = 0; // after an error no other begins
    }
  };
  try {
    const ends = await Promise.allSettled(Array.from({ length: pipelines.atOnce }, work));
    const failed = ends.find((end) => end.status === 'rejected');
    if (failed) throw failed.reason;
  } finally {
    for (const buffer of [...scratch, zeros]) memory.free(buffer);
  }
}

function run(device: Device, dispatch: RecordedDispatch, scratch: readonly GPUBuffer[], zeros: GPUBuffer): void {
  const bindings = dispatch.bindings.map((binding, i) => ({
    ...binding,
    range: { buffer: scratch[i], offset: 0, byteLength: ALIGNMENT },
  }));
  const immediates = dispatch.immediates && new ArrayBuffer(dispatch.immediates.byteLength);
  const once = { ...dispatch, bindings, immediates, grid: [1, 1, 1] as const };
  device.submit(`warm-up of ${dispatch.label}`, (encoder) =>
    encode(encoder, [once], (own) => bindGroup(device.gpu, own, zeros, 0), null),
  );
}
