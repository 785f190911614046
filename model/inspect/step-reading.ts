/** What the list of a captured step says: sums by kernel, and the tensors in its arenas with their lifetimes. */
import { ALIGNMENT, type ListedOperation, roundUp } from '../../engine/index.ts';

export interface KernelTotal {
  /** Kernel and entry point, 'copy' or 'clear'. */
  readonly operation: string;
  readonly times: number;
  readonly flops: number;
  readonly bytes: number;
}

/** Sums by kernel and entry point, in decreasing order of FLOPs. */
export function totalsByKernel(operations: readonly ListedOperation[]): KernelTotal[] {
  const totals = new Map<string, KernelTotal>();
  for (const { operation, flops = 0, bytes } of operations) {
    const so = totals.get(operation) ?? { operation, times: 0, flops: 0, bytes: 0 };
    totals.set(operation, { operation, times: so.times + 1, flops: so.flops + flops, bytes: so.bytes + bytes });
  }
  return [...totals.values()].sort((a, b) => b.flops - a.flops);
}

/** An allocation in an arena, from the first to the last operation that uses it. */
export interface ArenaTensor {
  /** The op that made it. */
  readonly label: string;
  readonly arena: number;
  /** Bytes from the start of the arena. */
  readonly offset: number;
  /** The bytes that it takes there: a multiple of 256. */
  readonly bytes: number;
  /** Indices of operations in the list. */
  readonly first: number;
  readonly last: number;
}

/** The allocations of a step's arenas by their number. At the fullest operation their bytes sum up to the lower bound of any plan. */
export function arenaTensors(operations: readonly ListedOperation[]): ArenaTensor[] {
  const tensors: ArenaTensor[] = [];
  operations.forEach(({ bindings }, last) => {
    for (const { allocation, arena, offset, bytes, tensor } of bindings) {
      if (allocation === undefined) continue;
      const { first = last, ...known } = tensors[allocation] ?? { offset, bytes: 0 };
      const start = Math.min(known.offset, offset);
      const end = Math.max(known.offset + known.bytes, offset + roundUp(bytes, ALIGNMENT));
      tensors[allocation] = { label: tensor, arena: arena!, offset: start, bytes: end - start, first, last };
    }
  });
  return tensors;
}
