/** Options of the commands: one declaration gives an option's help, its type and its validation. */
import { parseArgs } from 'node:util';
import { isPositive32 } from '../engine/files/json-schema.ts';
import { nearest, probable } from '../engine/files/nearest.ts';
import { InputError, quote } from '../engine/index.ts';

/** The conditions under which an option has an effect. Otherwise it is refused. */
export interface Use {
  /** It needs this option, one of these, or an option with one of these values (undefined: not given). */
  readonly needs?: string | readonly string[] | Readonly<Record<string, readonly (string | undefined)[]>>;
  /** It has no effect together with these options. */
  readonly excludes?: string | readonly string[];
}

export interface Option<T> extends Use {
  readonly help: string;
  /** Placeholder of the value in help; null for a flag. */
  readonly value: string | null;
  /** The option may be given several times; `read` gets every value. */
  readonly repeatable: boolean;
  /** The option names a file or a folder that the command writes: whether it can be written is checked before the command runs. */
  readonly writes?: 'file' | 'folder';
  /** @throws Error that describes the expected value, without the option's name */
  readonly read: (texts: readonly string[]) => T;
}
export type Options = Readonly<Record<string, Option<unknown>>>;
export type ValuesOf<O extends Options> = { readonly [Name in keyof O]?: O[Name] extends Option<infer T> ? T : never };

const single = <T>(help: string, value: string | null, read: (text: string) => T, use: Use = {}): Option<T> => ({
  ...{ help, value, repeatable: false, ...use },
  read: ([own]) => read(own),
});

function expectText(own: string): string {
  if (own.trim() === '') throw new Error('expected a text, got an empty one');
  return own;
}

export const text = (help: string, use?: Use) => single(help, 'TEXT', expectText, use);

/** A file that the command writes. */
export const outputFile = (help: string, use?: Use): Option<string> => ({
  ...text(help, use),
  value: 'FILE',
  writes: 'file',
});

/** A folder that the command writes to. */
export const outputFolder = (help: string, use?: Use): Option<string> => ({
  ...text(help, use),
  value: 'FOLDER',
  writes: 'folder',
});

export const flag = (help: string, use?: Use) => single(help, null, () => true as boolean, use);

export const list = (help: string, use?: Use): Option<readonly string[]> => ({
  ...{ help, value: 'TEXT ...', repeatable: true, ...use },
  read: (texts) => texts,
});

/** A count, at least `least` and at most `to`: what exceeds a million is a slip, and would be begun and never end. */
export function number(help: string, least = 0, { to = 1e6, ...use }: { to?: number } & Use = {}): Option<number> {
  const read = (own: string) => {
    const value = /^\d+$/.test(own) ? Number(own) : Number.NaN;
    if (value >= least && value <= to) return value;
    throw new Error(`expected an integer from ${least} to ${to < Number.MAX_SAFE_INTEGER ? to : '2^53 - 1'}`);
  };
  return single(help, 'N', read, use);
}

/** A number that chooses. */
export const seedNumber = (help: string, use?: Use) => number(help, 0, { ...use, to: Number.MAX_SAFE_INTEGER });

/** A number within the given bounds: at least `from`, above `above`, below `below`. */
export function decimal(
  help: string,
  { from, above, below, to, ...use }: { from?: number; above?: number; below?: number; to?: number } & Use = {},
): Option<number> {
  const range = [
    ...(above === undefined ? [] : [`above ${above}`]),
    ...(from === undefined ? [] : [`from ${from}`]),
    ...(below === undefined ? [] : [`below ${below}`]),
    ...(to === undefined ? [] : [`at most ${to}`]),
  ].join(' and ');
  const read = (own: string) => {
    const value = Number(own);
    const most = value < (below ?? Infinity) && value <= (to ?? Infinity);
    const within = value > (above ?? -Infinity) && value >= (from ?? -Infinity) && most;
    if (own.trim() === '' || Number.isNaN(value) || !within)
      throw new Error(range === '' ? 'expected a number' : `expected a number ${range}`);
    // An adapter computes in f32.
    if (value !== 0 && !isPositive32(Math.abs(value)))
      throw new Error('expected a number that f32 holds, 0 or of a size from 1.2e-38 to 3.4e38');
    return value;
  };
  return single(help, 'N', read, use);
}

/** One of the names; `hint` follows an unknown one in its error. */
export function choice<T extends string>(help: string, names: readonly T[], use?: Use, hint = nearest): Option<T> {
  const read = (own: string) => {
    const found = names.find((name) => name === own);
    if (found === undefined) throw new Error(`there is no ${quote(own)}; ${hint(own, names)}`);
    return found;
  };
  return single(help, 'NAME', read, use);
}

/** Texts, separated by commas. */
export function texts(help: string, use?: Use): Option<string[]> {
  return single(help, 'A,B', split, use);
}

/** Several of the names, separated by commas. */
export function choices<T extends string>(help: string, names: readonly T[], use?: Use, hint = nearest): Option<T[]> {
  const one = choice(help, names, use, hint);
  const read = (own: string) => {
    const parts = split(own);
    const repeated = parts.find((part, i) => parts.indexOf(part) < i);
    if (repeated !== undefined) throw new Error(`${quote(repeated)} is named twice`);
    return parts.map((part) => one.read([part]));
  };
  return single(help, 'A,B', read, use);
}

/** Numbers above 0, and at most `to`, by name: A=1,B=2. */
export function factors(help: string, { to, ...use }: { to?: number } & Use = {}): Option<Record<string, number>> {
  const one = decimal(help, { above: 0, to });
  const read = (own: string) => {
    const pairs = split(own).map((part) => {
      const at = part.lastIndexOf('=');
      if (at < 1) throw new Error(`${quote(part)}: expected NAME=N`);
      return [part.slice(0, at).trim(), one.read([part.slice(at + 1)])] as const;
    });
    const names = pairs.map(([name]) => name);
    const repeated = names.find((name, i) => names.indexOf(name) < i);
    if (repeated !== undefined) throw new Error(`${quote(repeated)} is named twice`);
    return Object.fromEntries(pairs);
  };
  return single(help, 'A=N,B=N', read, use);
}

/** Numbers above 0, separated by commas. */
export function decimals(help: string, use?: Use): Option<number[]> {
  const one = decimal(help, { above: 0 });
  return single(help, 'N,N', (own) => split(own).map((part) => one.read([part])), use);
}

const split = (own: string) => own.split(',').map((part) => expectText(part).trim());

const common = { json: flag('prints one JSON object on standard output'), help: flag('lists the options') };

/** The values of a command's own options, `json` and `help`, and positional arguments. */
interface Read {
  readonly values: Readonly<Record<string, unknown>>;
  readonly json: boolean;
  readonly help: boolean;
  readonly names: readonly string[];
}

/**
 * Reads the words after a command.
 *
 * @throws InputError if an option is unknown, repeated, lacks its value, has an invalid value, or has no effect
 */
export function readOptions(
  command: string,
  { options, names }: { readonly options: Options; readonly names?: string },
  args: readonly string[],
): Read {
  const fail = (message: string) => {
    const link = message.endsWith('?') ? ' See' : '; see';
    return new InputError(`${command}: ${message}${link} insula ${command} --help`);
  };
  const known: Options = { ...options, ...common };
  const kinds = Object.entries(known).map(([name, { value }]) => {
    const type = value === null ? ('boolean' as const) : ('string' as const);
    return [name, { type, multiple: true, ...(name === 'help' && { short: 'h' }) }] as const;
  });
  const given = { args: [...args], options: Object.fromEntries(kinds) };
  const { tokens } = parseArgs({ ...given, strict: false, allowPositionals: true, tokens: true });
  const found = new Map<string, string[]>();
  const words: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') words.push(token.value);
    if (token.kind !== 'option') continue;
    const option = Object.hasOwn(known, token.name) ? known[token.name] : undefined;
    if (!option) {
      const meant = probable(token.name, Object.keys(known));
      throw fail(`there is no option ${token.rawName}${meant === null ? '' : `; did you mean --${meant}?`}`);
    }
    const { value, inlineValue } = token;
    if (option.value === null && value !== undefined) throw fail(`--${token.name} takes no value`);
    const missing = option.value !== null && (value === undefined || (!inlineValue && /^-(?!\.?\d)/.test(value ?? '')));
    if (missing) throw fail(`--${token.name} needs a value`);
    if (found.has(token.name) && !option.repeatable) throw fail(`--${token.name} is given twice`);
    found.set(token.name, [...(found.get(token.name) ?? []), value ?? '']);
  }
  if (words.length > 0 && names === undefined) throw fail(`${quote(words[0])} belongs to no option`);
  const values: Record<string, unknown> = {};
  for (const [name, texts] of found) {
    try {
      values[name] = known[name].read(texts);
    } catch (error) {
      throw new InputError(`${command}: --${name} ${texts.join(' ')}: ${(error as Error).message}`);
    }
  }
  const { json = false, help = false, ...own } = values;
  if (!help) for (const name of Object.keys(own)) refuseUseless(name, options[name], own, fail);
  return { values: own, json: json === true, help: help === true, names: words };
}

const isList = (needs: object): needs is readonly string[] => Array.isArray(needs);

function refuseUseless(
  name: string,
  { needs, excludes = [] }: Use,
  values: Readonly<Record<string, unknown>>,
  fail: (message: string) => InputError,
): void {
  const excluding = [excludes].flat().find((other) => values[other] !== undefined);
  if (excluding !== undefined) throw fail(`--${name} changes nothing together with --${excluding}`);
  if (needs === undefined) return;
  if (typeof needs === 'string' || isList(needs)) {
    const all = typeof needs === 'string' ? [needs] : needs;
    if (all.some((other) => values[other] !== undefined)) return;
    throw fail(`--${name} changes nothing without ${all.map((other) => `--${other}`).join(' or ')}`);
  }
  for (const [other, allowed] of Object.entries(needs)) {
    const own = values[other] as string | undefined;
    if (allowed.includes(own)) continue;
    const wanted = allowed.filter((value) => value !== undefined).join(' or ');
    throw fail(`--${name} changes nothing with --${other} ${own ?? 'left out'}: it is for --${other} ${wanted}`);
  }
}

/** Help of the options, one line each; long texts are wrapped in their column. */
export function optionLines(options: Options, width: number): string[] {
  return Object.entries({ ...options, json: common.json }).flatMap(([name, { value, help }]) => {
    return hanging(`  --${name}${value === null ? '' : ` ${value}`}`, help, 24, width);
  });
}

/** A text beside its label, wrapped in its column. */
export function hanging(label: string, help: string, column: number, width: number): string[] {
  const lines = wrapped(help, Math.max(40, width - column));
  return lines.map((line, i) => (i === 0 ? `${label} ` : '').padEnd(column) + line);
}

/** The width of the terminal, at most 120 characters. */
export const terminalWidth = () => Math.min(process.stdout.columns ?? 120, 120);

/** Wraps a text to lines of at most `width` characters; its own line breaks and their indentation stay. */
export function wrapped(help: string, width: number): string[] {
  return help.split('\n').flatMap((paragraph) => {
    const indent = /^ */.exec(paragraph)?.[0] ?? '';
    const [first, ...words] = paragraph.trim().split(' ');
    const lines = [indent + first];
    for (const word of words) {
      const last = lines.length - 1;
      if (lines[last].length + 1 + word.length <= width) lines[last] += ` ${word}`;
      else lines.push(`${indent}${indent}${word}`);
    }
    return lines;
  });
}
