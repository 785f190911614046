/** GPU times of dispatches as a file that chrome://tracing and Perfetto open. */
import type { DispatchTime } from '../../engine/index.ts';

/** The trace event format: complete events in microseconds. */
export function chromeTrace(times: readonly DispatchTime[], adapter: string) {
  const place = { pid: 1, tid: 1 };
  return {
    displayTimeUnit: 'ms',
    traceEvents: [
      { name: 'process_name', ph: 'M', ...place, args: { name: adapter } },
      { name: 'thread_name', ph: 'M', ...place, args: { name: 'training step' } },
      ...times.map(({ label, begin, nanoseconds, workgroups, flops, bytes }) => ({
        name: label,
        cat: label.split(' ')[0],
        ph: 'X',
        ...place,
        ts: begin / 1000,
        dur: nanoseconds / 1000,
        args: { workgroups, flops, bytes, 'GFLOP/s': flops / nanoseconds, 'GB/s': bytes / nanoseconds },
      })),
    ],
  };
}
