/** Export of dispatches and their GPU times for chrome://tracing and Perfetto. */
import type { DispatchTime } from '../../engine/index.ts';

/** The dispatches in the trace event format, as complete events in microseconds. */
export function chromeTrace(times: readonly DispatchTime[], adapter: string) {
  const thread = { pid: 1, tid: 1 };
  return {
    displayTimeUnit: 'ms',
    traceEvents: [
      { name: 'process_name', ph: 'M', ...thread, args: { name: adapter } },
      { name: 'thread_name', ph: 'M', ...thread, args: { name: 'training step' } },
      ...times.map(({ label, begin, nanoseconds, workgroups, flops, bytes }) => ({
        name: label,
        cat: label.split(' ')[0],
        ph: 'X',
        ...thread,
        ts: begin / 1000,
        dur: nanoseconds / 1000,
        args: { workgroups, flops, bytes, 'GFLOP/s': flops / nanoseconds, 'GB/s': bytes / nanoseconds },
      })),
    ],
  };
}
