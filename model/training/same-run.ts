/** What must not change between the parts of an interrupted run, and what differs between two runs, in words. */
import * as v from 'valibot';
import { InputError } from '../../engine/files/errors.ts';
import type { RunSettings } from './run-settings.ts';

/** Facts of the data set that a run was begun with. Its files may lie elsewhere when the run goes on. */
export const runDataSchema = v.object({
  name: v.string(),
  /** Control steps a second. */
  rate: v.number(),
  actionDimension: v.number(),
  stateDimension: v.number(),
  cameras: v.array(v.string()),
  /** How many different instructions there are, paraphrases among them: training draws from them. */
  instructions: v.number(),
  /** Weights of the robots of a mixture; null where they were not given. */
  weights: v.nullable(v.record(v.string(), v.number())),
  /** SHA-256 of the statistics of the training part; null where statistics were given in place of the data's own. */
  statistics: v.nullable(v.string()),
});
export type RunData = Readonly<v.InferOutput<typeof runDataSchema>>;

/** A run, or as much of it as is known. */
export interface RunIdentity {
  readonly settings?: Partial<RunSettings>;
  readonly data?: RunData;
}

/** The number of steps may grow, and the same data may lie in another place. */
const mayDiffer: readonly (keyof RunSettings)[] = ['steps', 'data', 'dataset'];

const factNames: Readonly<Record<keyof RunData, string>> = {
  name: 'name',
  rate: 'control steps a second',
  actionDimension: 'action dimensions',
  stateDimension: 'state dimensions',
  cameras: 'cameras',
  instructions: 'different instructions, paraphrases among them',
  weights: 'weights of its robots',
  statistics: 'numbers',
};

/** What differs between a run and one that is to go on with it, a sentence each; only what both know is compared. */
export function differences(begun: RunIdentity, now: RunIdentity): string[] {
  const settings = differing(begun.settings, now.settings)
    .filter((name) => !mayDiffer.includes(name))
    .filter((name) => name !== 'preset' || begun.settings?.preset?.name !== now.settings?.preset?.name)
    .map((name) => {
      const [own, other] = [now.settings?.[name], begun.settings?.[name]];
      const before =
        other === true ? 'with it' : other === null || other === false ? 'without it' : `with ${settingText(other)}`;
      const option = `--${name} ${typeof own === 'boolean' ? '' : settingText(own)}`.trim();
      return `${option}: the run was begun ${before}; leave it out, or begin anew with --out`;
    });
  const data = differing(begun.data, now.data).map((name) => {
    const advice = 'give the data that the run was begun with';
    if (name === 'statistics') return `data set "${now.data?.name}": its numbers are not those of then; ${advice}`;
    const [own, other] = [now.data?.[name], begun.data?.[name]].map(factText);
    return `data set "${now.data?.name}": ${factNames[name]} ${own}; the run was begun with ${other}: ${advice}`;
  });
  return [...settings, ...data];
}

/** @throws InputError with the first thing that differs */
export function expectSameRun(begun: RunIdentity, now: RunIdentity): void {
  const [first] = differences(begun, now);
  if (first !== undefined) throw new InputError(first);
}

/** The fields that both have, with different values. */
function differing<T extends object>(begun: T | undefined, now: T | undefined): (keyof T & string)[] {
  if (!begun || !now) return [];
  const names = Object.keys(now) as (keyof T & string)[];
  return names.filter((name) => {
    const [own, other] = [now[name], begun[name]];
    return own !== undefined && other !== undefined && JSON.stringify(own) !== JSON.stringify(other);
  });
}

/** The value of an option as it is typed. */
function settingText(value: RunSettings[keyof RunSettings] | undefined): string {
  if (Array.isArray(value)) return value.join(',');
  return typeof value === 'object' ? (value?.name ?? 'none') : String(value);
}

function factText(value: RunData[keyof RunData] | undefined): string {
  if (Array.isArray(value)) return value.join(', ') || 'none';
  return value === null ? 'none' : JSON.stringify(value);
}
