/** `insula train --plan` and `insula pretrain --plan`: the memory that a run would take. */
import { aligned } from '../bench/measure/table.ts';
import type { Device } from '../engine/index.ts';
import {
  type MemoryGiven,
  type MemoryPlan,
  memoryComplaint,
  memoryPlan,
  planRows,
  sizesIn,
} from '../model/training/memory-plan.ts';
import type { PreparedRun } from '../model/training/prepare-run.ts';
import type { Result } from './command.ts';
import { flag } from './options.ts';

export const planOption = flag('prints the memory that the run would take on the adapter, and trains nothing');

/** The blocks of a model are about as long when they are fitted to few demonstrations or scenes. */
export const PLANNED_DEMONSTRATIONS = 16;
export const PLANNED_SCENES = 40;

export const plannedFrom = (count: number, what: string): string =>
  `planned from ${count} ${what}: with all of them, blocks may be a few tokens longer`;

export interface PlanSummary {
  readonly adapter: string;
  /** Bytes by their use. */
  readonly memory: MemoryPlan;
  /** Why the run does not fit, with settings that would; null if it does, or if nobody knows how much memory there is. */
  readonly complaint: string | null;
}

export async function planOf(
  device: Device,
  { configuration, settings }: Pick<PreparedRun, 'configuration' | 'settings'>,
  given: MemoryGiven | undefined,
): Promise<Result<PlanSummary>> {
  const memory = await memoryPlan(device, configuration, settings);
  const complaint = given ? await memoryComplaint(device, configuration, settings, memory, given) : null;
  const { maxBufferSize, maxStorageBufferBindingSize } = device.limits;
  const sizeText = sizesIn(memory.total);
  const has = given ? `${sizeText(given.bytes)}, by ${given.source}` : 'memory unknown: see --memory';
  const rows = planRows(memory, settings).map(([name, size, what]) => [name, what, size]);
  const lines = [
    ...aligned(rows, 2),
    `${device.description}: ${has}; at most ${sizeText(maxBufferSize)} in a buffer, ${sizeText(maxStorageBufferBindingSize)} in a binding`,
    ...(complaint === null ? [] : [complaint]),
  ];
  return { json: { adapter: device.description, memory, complaint }, lines, status: complaint === null ? 0 : 1 };
}
