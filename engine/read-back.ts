/** Reading from the device: a copy into memory that the host maps, in order with everything encoded before. */
import type { AsyncErrors } from './async-errors.ts';
import { type BufferRange, type Memory, roundUp } from './memory.ts';

/** A device as far as reading needs it. */
interface ReadDevice {
  readonly errors: AsyncErrors;
  readonly memory: Memory;
  readonly closed: boolean;
  copy(source: BufferRange, target: BufferRange, bytes: number): void;
  flush(): void;
}

/** The bytes of ranges as they are when everything encoded so far has run. Lengths need not be multiples of 4. */
export async function readBack(
  device: ReadDevice,
  ranges: readonly BufferRange[],
  bytes: readonly number[],
): Promise<ArrayBuffer[]> {
  const { errors, memory } = device;
  errors.assertOpen();
  const starts = [0];
  for (const own of bytes) starts.push(starts[starts.length - 1] + roundUp(own, 4));
  const size = starts[bytes.length];
  const staging = memory.takeStaging(size);
  try {
    for (const [i, range] of ranges.entries()) {
      const byteLength = starts[i + 1] - starts[i];
      device.copy(range, { buffer: staging, offset: starts[i], byteLength }, byteLength);
    }
    await null; // several reads at once are one submit
    errors.assertOpen();
    device.flush();
    // The bytes are copied as soon as they are there: a loss of the device takes them away again.
    const copied = staging.mapAsync(GPUMapMode.READ, 0, size).then(() => {
      const mapped = staging.getMappedRange(0, size);
      return bytes.map((own, i) => mapped.slice(starts[i], starts[i] + own));
    });
    const copies = await errors.settle(copied);
    await errors.check();
    if (!device.closed) {
      staging.unmap();
      memory.giveStaging(staging);
    }
    return copies;
  } catch (error) {
    // It may lack its memory, and would fail whoever took it next.
    if (!device.closed) memory.free(staging);
    throw error;
  }
}
