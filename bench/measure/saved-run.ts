/** Runs that a benchmark saves with --out and reads again with --compare. */
import * as v from 'valibot';
import { readJsonFile } from '../../engine/files/json-schema.ts';
import { provenanceFields } from './provenance.ts';

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
