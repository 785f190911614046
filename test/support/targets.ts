import type { TrainingBatch } from '../../model/architecture/inputs.ts';

/** For each example, the rows of the backbone that have a loss, and the ids that they are to predict. */
export function targetsOf({ batch, lossTarget, lossMask }: TrainingBatch): { rows: number[]; ids: number[] }[] {
  const length = lossMask!.length / batch;
  return Array.from({ length: batch }, (_, example) => {
    const rows = Array.from({ length }, (_, row) => row).filter((row) => lossMask![example * length + row]);
    return { rows, ids: rows.map((row) => lossTarget![example * length + row]) };
  });
}
