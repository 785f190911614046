/** The differences between two runs as sentences, and the check that a resumed run is still the same run. */
import * as v from 'valibot';
import { InputError } from '../../engine/files/errors.ts';
import { count, positive32 } from '../../engine/files/json-schema.ts';
import { type RunSettings, runSettings } from './run-settings.ts';

/** Properties of the data set of a run. Its files may have moved when the run is resumed. */
export const runDataSchema = v.object({
  name: v.string(),
  /** Control steps per second. */
  rate: positive32,
  actionDimension: count(1),
  stateDimension: count(),
  cameras: v.array(v.string()),
  /** Number of different instructions, paraphrases included, that training draws from. */
  instructions: count(),
  /** Sampling weights of the robots; null if none were given. */
  weights: v.nullable(v.record(v.string(), positive32)),
  /** SHA-256 of the statistics of the training part; null if statistics were given instead of the data's own. */
  statistics: v.nullable(v.string()),
});
export type RunData = Readonly<v.InferOutput<typeof runDataSchema>>;

/** A run, or the part of it that is known. */
interface RunIdentity {
  readonly settings?: Partial<RunSettings>;
  readonly data?: RunData;
}

/** A resumed run may have more steps, and its data may have moved. */
const mayDiffer: readonly (keyof RunSettings)[] = ['steps', 'data', 'dataset'];

const propertyNames: Readonly<Record<keyof RunData, string>> = {
  name: 'name',
  rate: 'control steps per second',
  actionDimension: 'action dimensions',
  stateDimension: 'state dimensions',
  cameras: 'cameras',
  instructions: 'different instructions (with paraphrases)',
  weights: 'weights of its robots',
  statistics: 'numbers',
};

/** The differences between a run and its continuation, one sentence each; only fields that both have are compared. */
export function differences(begun: RunIdentity, now: RunIdentity): string[] {
  const settings = differing(begun.settings, now.settings)
    .filter((name) => !mayDiffer.includes(name))
    .filter((name) => name !== 'preset' || begun.settings?.preset?.name !== now.settings?.preset?.name)
    .map((name) => {
      const [own, other] = [now.settings?.[name], begun.settings?.[name]];
      const before =
        other === true ? 'with it' : other === null || other === false ? 'without it' : `with ${settingText(other)}`;
      return `${optionText(name, own)}: the run was begun ${before}; leave it out, or begin anew with --out`;
    });
  const data = differing(begun.data, now.data).map((name) => {
    const advice = 'give the data that the run was begun with';
    if (name === 'statistics') return `data set "${now.data?.name}": its numbers have changed; ${advice}`;
    const [own, other] = [now.data?.[name], begun.data?.[name]].map(propertyText);
    return `data set "${now.data?.name}": ${propertyNames[name]} ${own}; the run was begun with ${other}: ${advice}`;
  });
  return [...settings, ...data];
}

/** The settings of a run that differ from its preset's and the program's defaults, as options; those that a system's recipe or the built-in world chose are among them. */
export function settingsBesideDefaults(run: RunSettings): string[] {
  const { system, preset, seed } = run;
  return differing(runSettings({ system, preset, seed }), run).map((name) => optionText(name, run[name]));
}

/** @throws InputError with the first difference */
export function expectSameRun(begun: RunIdentity, now: RunIdentity): void {
  const [first] = differences(begun, now);
  if (first !== undefined) throw new InputError(first);
}

/** Names of the fields that both have with different values. */
function differing<T extends object>(begun: T | undefined, now: T | undefined): (keyof T & string)[] {
  if (!begun || !now) return [];
  const names = Object.keys(now) as (keyof T & string)[];
  return names.filter((name) => {
    const [own, other] = [now[name], begun[name]];
    return own !== undefined && other !== undefined && JSON.stringify(own) !== JSON.stringify(other);
  });
}

/** A setting as an option on the command line. */
function optionText(name: keyof RunSettings, value: RunSettings[keyof RunSettings] | undefined): string {
  const option = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
  if (typeof value === 'boolean') return option;
  return `${option} ${name === 'from' && value === null ? 'scratch' : settingText(value)}`;
}

/** The value of an option as typed on the command line. */
function settingText(value: RunSettings[keyof RunSettings] | undefined): string {
  if (Array.isArray(value)) return value.map((own) => (typeof own === 'object' ? JSON.stringify(own) : own)).join(',');
  if (typeof value !== 'object') return String(value);
  if (value === null) return 'none';
  if ('name' in value && typeof value.name === 'string') return value.name;
  return Object.entries(value)
    .map(([name, own]) => `${name}=${own}`)
    .join(',');
}

function propertyText(value: RunData[keyof RunData] | undefined): string {
  if (Array.isArray(value)) return value.join(', ') || 'none';
  return value === null ? 'none' : JSON.stringify(value);
}
