/** The memory of the machine, in which the buffers of a software adapter lie. Node only. */

/** What the rest of the process takes meanwhile. */
const RESERVE_BYTES = 128 * 1024 * 1024;

/** Bytes that the machine, or the container, can still give to buffers; null on macOS, whose number leaves out most of it, and in a browser. */
export function freeMachineBytes(): number | null {
  if (typeof process !== 'object' || process.platform === 'darwin') return null;
  const { freemem } = process.getBuiltinModule('node:os');
  // The limit of a container counts cached files too, which make room; without a limit it is 0 or beyond all memory.
  const limit = process.constrainedMemory() || Number.POSITIVE_INFINITY;
  return Math.min(freemem(), limit - process.memoryUsage.rss()) - RESERVE_BYTES;
}

export interface MachineMemory {
  /** The most bytes of buffers that it can hold, if `taken` bytes of them are made. */
  most(taken: number): number;
}

/** null where nobody knows how much is free. */
export function machineMemory(): MachineMemory | null {
  if (freeMachineBytes() === null) return null;
  const begun = nativeBytes();
  return {
    // The system gives memory out as it is first written: what was made and not written seems free.
    most: (taken) => {
      const written = Math.min(taken, Math.max(0, nativeBytes() - begun));
      return freeMachineBytes()! + written;
    },
  };
}

/** What the process has beside the memory of JavaScript. */
function nativeBytes(): number {
  const { rss, heapTotal, external } = process.memoryUsage();
  return rss - heapTotal - external;
}
