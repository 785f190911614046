import { counted, InputError, quote } from '../../../engine/files/errors.ts';
import type { SourceEpisode, SourceField } from '../import/source.ts';

/** A step may differ from 1 / rate by this fraction before it is noticed, and the median step of an episode before it is refused. */
const STEP_TOLERANCE = 0.1;
const RATE_TOLERANCE = 0.05;
/** The irregular steps that are named; the others are counted. */
const NAMED = 3;

/**
 * Reads fields of an episode, `what` in errors, and joins their columns to a table [length, width].
 *
 * @param widths the numbers in a step of each field, known from earlier episodes; those of new fields are added
 * @returns null if there are no fields, or if they are optional and the episode has none of them
 * @throws InputError if a number is not finite, a field has another width than before, or steps are missing
 */
export async function joinedNumbers(
  episode: SourceEpisode,
  what: string,
  fields: readonly SourceField[],
  widths: Map<string, number>,
  optional = false,
): Promise<Float32Array | null> {
  const { length } = episode;
  const tables: { values: Float32Array | Float64Array; width: number }[] = [];
  for (const { name, names } of fields) {
    const complaint = (text: string) => new InputError(`${what}: ${quote(name)}${text}`);
    const values = await episode.numbers(name);
    if (values.length === 0 && optional) continue;
    const width = values.length / length;
    if (!Number.isInteger(width) || width === 0)
      throw complaint(` has ${values.length} numbers, which its ${length} steps do not divide evenly`);
    const bad = values.findIndex((value) => !Number.isFinite(Math.fround(value)));
    if (bad >= 0) {
      const label = names?.[bad % width] === undefined ? '' : ` (${names[bad % width]})`;
      const number = `${values[bad]}${Number.isFinite(values[bad]) ? ', beyond float32' : ''}`;
      throw complaint(
        `, step ${Math.floor(bad / width)}, dimension ${bad % width}${label} is ${number}: repair or leave out the episode`,
      );
    }
    const before = widths.get(name) ?? width;
    if (width !== before)
      throw complaint(
        ` has ${width} numbers a step, in the episodes before it ${before}: a data set has one dimension`,
      );
    widths.set(name, width);
    tables.push({ values, width });
  }
  if (tables.length === 0) return null;
  if (tables.length < fields.length)
    throw new InputError(
      `${what}: it has only ${tables.length} of ${fields.map(({ name }) => quote(name)).join(', ')}`,
    );
  const width = tables.reduce((sum, own) => sum + own.width, 0);
  const joined = new Float32Array(length * width);
  let first = 0;
  for (const own of tables) {
    for (let step = 0; step < length; step++)
      joined.set(own.values.subarray(step * own.width, (step + 1) * own.width), step * width + first);
    first += own.width;
  }
  return joined;
}

/** Steps that last another time than the rate says. */
export interface Irregular {
  count: number;
  /** The first of them, in words. */
  readonly named: string[];
}

/** Steps per second: those that the files state, that the user gives, or that are usual for files that state none. */
export interface Rate {
  readonly value: number;
  readonly from: 'files' | 'user' | 'usual';
}

/** Says why the times of an episode, `median` seconds apart, are not those of the rate. */
function wrongRate(times: Float32Array | Float64Array, median: number, { value, from }: Rate): string {
  const largest = Float64Array.from(times).reduce((most, time) => Math.max(most, Math.abs(time)), 0);
  const spacing = 2 ** (Math.floor(Math.log2(largest)) - 23); // of float32 numbers
  if (spacing * value > STEP_TOLERANCE && times.every((time) => Math.fround(time) === time))
    return `has times of ${largest} s, which float32 holds only to ${spacing} s: write them as float64, or from the beginning of the episode, or read no times: --map FILE, { "time": null }`;
  const apart = `advances by ${Number(median.toPrecision(4))} s a step`;
  const give = median > 0 ? `, such as --rate ${Number((1 / median).toPrecision(4))}` : '';
  if (from === 'usual')
    return `${apart}, but ${value} steps per second are assumed, because the files do not say: give them with --rate${give}`;
  if (from === 'user') return `${apart}, but --rate says ${value} steps per second: correct one of them`;
  return `${apart}, but the set has ${value} steps per second: correct it, or leave out the episode`;
}

/**
 * Compares every step with the times of the source, and adds those to `irregular` that differ from 1 / rate by more than a tenth.
 *
 * @throws InputError if a time is not finite, or the median step of the episode differs from 1 / rate by more than 5 %
 */
export async function checkTimes(
  episode: SourceEpisode,
  what: string,
  field: SourceField,
  rate: Rate,
  irregular: Irregular,
): Promise<void> {
  const times = await episode.numbers(field.name);
  const complaint = (text: string, remedy = ': correct it, or leave out the episode') =>
    new InputError(`${what}: ${quote(field.name)} ${text}${remedy}`);
  if (times.length !== episode.length) throw complaint(`has ${times.length} times for ${episode.length} steps`);
  const bad = times.findIndex((time) => !Number.isFinite(time));
  if (bad >= 0) throw complaint(`is ${times[bad]} in step ${bad}`);
  const steps = Float64Array.from({ length: times.length - 1 }, (_, i) => times[i + 1] - times[i]);
  if (steps.length === 0) return;
  const seconds = (step: number) => `${Number(step.toPrecision(4))} s`;
  const off = (step: number) => Math.abs(step * rate.value - 1);
  const median = steps.toSorted()[steps.length >> 1];
  if (off(median) > RATE_TOLERANCE) throw complaint(wrongRate(times, median, rate), '');
  for (const [i, step] of steps.entries()) {
    if (off(step) <= STEP_TOLERANCE) continue;
    irregular.count += 1;
    if (irregular.named.length >= NAMED) continue;
    const lost = Math.round(step * rate.value) - 1;
    const words = lost > 0 ? `, as if ${counted(lost, 'step')} were dropped` : '';
    irregular.named.push(`episode ${quote(episode.id)}, step ${i} to ${i + 1} takes ${seconds(step)}${words}`);
  }
}

/** One line about the irregular steps; nothing if there are none. */
export function irregularNote({ count, named }: Irregular, rate: number): string[] {
  if (count === 0) return [];
  const more = count > named.length ? `; and ${count - named.length} more` : '';
  const seconds = Number((1 / rate).toPrecision(4));
  const within = `${100 * STEP_TOLERANCE} % of ${seconds} s`;
  return [`times: ${counted(count, 'step')} not within ${within}: ${named.join('; ')}${more}`];
}
