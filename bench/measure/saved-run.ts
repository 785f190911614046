/** Runs that a benchmark saves with --out and reads again with --compare. */
import * as v from 'valibot';
import { readJsonFile } from '../../engine/files/json-schema.ts';
import { comparedWith, type Provenance, provenanceFields } from './provenance.ts';
import { aligned } from './table.ts';

/** The schema of a saved run: its provenance, its rows, and further fields. It names only those that a comparison reads. */
export function savedRunSchema<
  const Format extends string,
  Row extends v.GenericSchema,
  Fields extends v.ObjectEntries,
>(format: Format, row: Row, fields: Fields) {
  const rows = v.pipe(v.array(row), v.readonly());
  return v.object({ format: v.literal(format), ...provenanceFields, rows, ...fields });
}

/** A run that `command` saved with --out. @throws InputError if the file cannot be read or is not such a run */
export function readSavedRun<Run>(path: string, schema: v.GenericSchema<unknown, Run>, command: string): Promise<Run> {
  return readJsonFile(path, schema, `a run that '${command} --out' saved`);
}

/** How a run is compared with an earlier one, row by row. */
interface Comparison<Before, Now> {
  /** The name that a row has in both runs. */
  key(row: Before | Now): string;
  readonly columns: readonly string[];
  /** The number of columns that are aligned to the left. */
  readonly left: number;
  /** Lines of the table for one row of both runs. */
  cells(before: Before, now: Now): string[][];
  readonly legend: string;
}

/** The comparison of a run with an earlier one: a table of the rows that both have, and the number of rows that only one has. */
export function comparisonOf<Before, Now>(
  before: Provenance & { readonly rows: readonly Before[] },
  now: { readonly rows: readonly Now[] },
  { key, columns, left, cells, legend }: Comparison<Before, Now>,
): string[] {
  const earlier = new Map(before.rows.map((row) => [key(row), row]));
  const both = now.rows.filter((row) => earlier.has(key(row)));
  const table = both.flatMap((row) => cells(earlier.get(key(row))!, row));
  const only = now.rows.length - both.length;
  const rest = earlier.size - both.length;
  return [
    `${comparedWith(before)}:`,
    ...(table.length > 0 ? aligned([[...columns], ...table], left) : []),
    legend,
    ...(only > 0 ? [`rows of this run that the earlier one lacks: ${only}`] : []),
    ...(rest > 0 ? [`rows of the earlier run that were not measured: ${rest}`] : []),
  ];
}
