import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import { parseJson } from '../engine/files/bytes.ts';
import { InputError } from '../engine/files/errors.ts';
import { checked, dictionary } from '../engine/files/json-schema.ts';

const Settings = v.object({
  batch: v.pipe(v.number(), v.integer(), v.minValue(1)),
  system: v.picklist(['pi0', 'pi0.5']),
  rate: v.nullable(v.pipe(v.number(), v.finite())),
  episodes: v.array(v.object({ id: v.string() })),
});
const File = v.strictObject({ settings: Settings });

const settings = { batch: 2, system: 'pi0', rate: null, episodes: [{ id: 'first' }] };

describe('a value that fits its schema', () => {
  test('comes back typed, without fields that the schema does not name', () => {
    const { settings: read } = checked(File, { settings: { ...settings, more: 1 } }, 'run.json');
    const batch: number = read.batch;
    expect(batch).toBe(2);
    expect(read).toEqual(settings);
  });
});

describe('a value that does not fit is one line with the file and the field', () => {
  const cases: [string, unknown, string][] = [
    ['the value itself', null, 'expected object, got null'],
    ['a missing field', {}, '"settings": missing'],
    ['a field too many', { settings, old: 1 }, '"old": unknown field'],
    ['another type', { settings: { ...settings, batch: 'x' } }, '"settings.batch": expected number, got "x"'],
    ['a fraction', { settings: { ...settings, batch: 0.5 } }, '"settings.batch": expected a whole number, got 0.5'],
    ['out of range', { settings: { ...settings, batch: 0 } }, '"settings.batch": expected at least 1, got 0'],
    ['not finite', { settings: { ...settings, rate: Number.NaN } }, '"settings.rate": expected number, got NaN'],
    [
      'infinite',
      { settings: { ...settings, rate: Infinity } },
      '"settings.rate": expected a finite number, got Infinity',
    ],
    [
      'none of a list',
      { settings: { ...settings, system: 'pi\n1' } },
      String.raw`"settings.system": expected "pi0" or "pi0.5", got "pi\n1"`,
    ],
    [
      'inside an array',
      { settings: { ...settings, episodes: [{ id: 'a' }, {}] } },
      '"settings.episodes[1].id": missing',
    ],
  ];
  test.each(cases)('%s', (_, value, complaint) => {
    const read = () => checked(File, value, 'run.json');
    expect(read).toThrow(new InputError(`run.json: ${complaint}`));
  });

  test('a message of the schema says what was expected', () => {
    const Pair = v.pipe(
      v.array(v.number()),
      v.check((list) => list.length === 2, 'two numbers'),
    );
    expect(() => checked(v.object({ ends: Pair }), { ends: [1] }, 'run.json')).toThrow(
      new InputError('run.json: "ends": expected two numbers, got [1]'),
    );
  });

  test('an object of any keys is no list, and is not looked through where it has too many', () => {
    const few = dictionary(v.number(), undefined, 2);
    const read = (value: unknown) => checked(few, value, 'run.json');
    expect(read({ a: 1, b: 2 })).toEqual({ a: 1, b: 2 });
    expect(() => read([1])).toThrow('run.json: expected a JSON object, got [1]');
    expect(() => read({ a: 1, b: 'x' })).toThrow('run.json: "b": expected number, got "x"');
    expect(() => read({ a: 'x', b: 1, c: 1 })).toThrow(
      'run.json: expected at most 2 entries, got {"a":"x","b":1,"c":1}',
    );
  });

  test('an undefined value is not taken for a missing field, and a strange key stays in one line', () => {
    expect(() => checked(v.object({ a: v.number() }), { a: undefined }, 'here')).toThrow(
      new InputError('here: "a": expected number, got nothing'),
    );
    const wrong = () => checked(v.record(v.string(), v.number()), { 'x\ny': 'z' }, 'here');
    expect(wrong).toThrow(new InputError(String.raw`here: "x\ny": expected number, got "z"`));
  });
});

describe('numbers that Python writes and JSON has not', () => {
  const parsed = (text: string, where?: string) =>
    parseJson(new TextEncoder().encode(text), 'a.json', 'not JSON', where);
  test.each([
    ['{"norm_stats": {"state": {"std": [1.0, NaN, 2.0], "q99": [Infinity]}}}', '"norm_stats.state.std[1]" is NaN'],
    ['{"NaN": "NaN", "b": {"c d": [[1, -Infinity]]}}', '"b.c d[0][1]" is -Infinity'],
    ['[{"text": "a \\"NaN\\" b, Infinity"}, Infinity]', '"[1]" is Infinity'],
    ['NaN', 'it is NaN'],
  ])('%s', (text, message) => {
    expect(() => parsed(text)).toThrow(InputError);
    expect(() => parsed(text)).toThrow(`a.json: ${message}, for which JSON has no number (Python writes it)`);
    expect(() => parsed(text, 'line 3: ')).toThrow(`a.json: line 3: ${message}`);
  });
  test.each(['{"a": NaN', '{"a": NaNs}', '{"a": nan}', '{"a": "NaN}', '{'])('%s is no JSON at all', (text) => {
    expect(() => parsed(text)).toThrow('a.json: not JSON (');
  });
  test('words in texts are left alone', () => {
    expect(parsed('{"a": "NaN", "Infinity": -1}')).toEqual({ a: 'NaN', Infinity: -1 });
  });
});
