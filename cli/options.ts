/** Options of the commands: how they are declared, and how the words of a command line become their values. */
import { parseArgs } from 'node:util';
import { InputError } from '../engine/index.ts';

/** A list may be given several times. */
type OptionType = 'string' | 'list' | 'number' | 'boolean';
export interface Option {
  readonly type: OptionType;
  readonly help: string;
  /** Of a number; 0 unless given. */
  readonly least?: number;
}
export const text = (help: string): Option => ({ type: 'string', help });
export const list = (help: string): Option => ({ type: 'list', help });
export const number = (help: string, least = 0): Option => ({ type: 'number', help, least });
export const flag = (help: string): Option => ({ type: 'boolean', help });

/** "--steps -1" as "--steps=-1", so that the number is complained about. */
function negativeNumbersJoined(args: string[]): string[] {
  return args.flatMap((arg, i) => {
    if (/^-\d/.test(arg) && args[i - 1]?.startsWith('--')) return [];
    return /^-\d/.test(args[i + 1] ?? '') && arg.startsWith('--') ? [`${arg}=${args[i + 1]}`] : [arg];
  });
}

/**
 * The values of a command's options, `json` and `help` among them; of a command that takes words, those as `names`.
 *
 * @throws InputError where an option is unknown, has no value, or is no number where one is expected
 */
export function readOptions(
  name: string,
  { options, names }: { readonly options: Readonly<Record<string, Option>>; readonly names?: true },
  args: string[],
): Record<string, unknown> {
  const kinds = Object.entries({ ...options, json: flag(''), help: flag('') });
  let values: Record<string, unknown>;
  try {
    const types = kinds.map(([own, { type }]) => [
      own,
      { type: type === 'boolean' ? 'boolean' : 'string', multiple: type === 'list' } as const,
    ]);
    const given = { args: negativeNumbersJoined(args), options: Object.fromEntries(types), strict: true };
    const parsed = parseArgs({ ...given, allowPositionals: names === true });
    values = names ? { ...parsed.values, names: parsed.positionals } : parsed.values;
  } catch (error) {
    const { message } = error as Error;
    const without = /^Option '(--[\w-]+).*argument (?:is ambiguous|missing)/.exec(message);
    const words = without ? `${without[1]} needs a value` : message.split('. To specify')[0];
    throw new InputError(`${name}: ${words}; see insula ${name} --help`);
  }
  for (const [own, { type, least = 0 }] of kinds) {
    const value = values[own];
    if (type !== 'number' || value === undefined) continue;
    const whole = /^\d+$/.test(String(value)) && Number.isSafeInteger(Number(value));
    if (!whole || Number(value) < least)
      throw new InputError(`${name}: --${own} ${value}: expected a whole number from ${least} to 2^53 - 1`);
    values[own] = Number(value);
  }
  return values;
}
