import { describe, expect, test } from 'vitest';
import type { Command } from '../cli/command.ts';
import { commands } from '../cli/commands.ts';
import {
  choice,
  choices,
  decimal,
  decimals,
  factors,
  flag,
  list,
  number,
  optionLines,
  readOptions,
  seedNumber,
  text,
  texts,
  type Use,
  type ValuesOf,
} from '../cli/options.ts';
import { isLike, nearest } from '../engine/files/nearest.ts';
import { InputError } from '../engine/index.ts';

const animals = ['cat', 'dog', 'ostrich'] as const;
const options = {
  name: text('a text'),
  loud: flag('a flag'),
  word: list('several texts'),
  count: number('a whole number', 2),
  any: seedNumber('a seed'),
  part: decimal('a number', { from: 0, below: 1 }),
  size: decimal('a number', { above: 0 }),
  shift: decimal('any number'),
  pet: choice('a name', animals),
  pets: choices('names', animals),
  tags: texts('texts'),
  weights: decimals('numbers'),
  rates: factors('numbers by name'),
};
const read = (...words: string[]) => readOptions('go', { options }, words);

/** The message of an InputError without its hint. */
function refusal(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    expect((error as Error).name).toBe('InputError');
    return (error as Error).message.replace(/(;| ) ?[Ss]ee insula go --help$/, '');
  }
  return expect.fail('accepted');
}

describe('options', () => {
  test('have values of the types that are declared', () => {
    const expected: Required<ValuesOf<typeof options>> = {
      name: 'a b',
      loud: true,
      word: ['x', '-1'],
      count: 2,
      any: 2 ** 53 - 1,
      part: 0,
      size: 1e-3,
      shift: -0.5,
      pet: 'cat',
      pets: ['dog', 'cat'],
      tags: ['a', 'b c'],
      weights: [1, 0.5],
      rates: { a: 2, 'b=*': 0.5 },
    };
    const words = [
      '--name',
      'a b',
      '--loud',
      '--word',
      'x',
      '--word',
      '-1',
      '--count',
      '2',
      '--any',
      '9007199254740991',
      '--part=0',
    ];
    const others = ['--size', '1e-3', '--shift', '-.5', '--pet=cat', '--pets', 'dog, cat', '--tags', 'a, b c'];
    const result = read(...words, ...others, '--weights', '1,.5', '--rates', 'a=2, b=*=.5');
    expect(result).toEqual({ values: expected, json: false, help: false, names: [] });
    expect(read()).toEqual({ values: {}, json: false, help: false, names: [] });
    expect(read('--json', '--name=x')).toEqual({ values: { name: 'x' }, json: true, help: false, names: [] });
    expect(read('--name=--loud', '--shift=-2').values).toEqual({ name: '--loud', shift: -2 });
  });

  test.each([
    ['--count 1', '--count 1: expected an integer from 2 to 1000000'],
    ['--count -3', '--count -3: expected an integer'],
    ['--count 2.5', '--count 2.5: expected an integer'],
    ['--count 1e3', '--count 1e3: expected an integer'],
    ['--count 9007199254740992', '--count 9007199254740992: expected an integer'],
    ['--count=', '--count : expected an integer'],
    ['--count 1000001', '--count 1000001: expected an integer from 2 to 1000000'],
    ['--any 9007199254740992', '--any 9007199254740992: expected an integer from 0 to 2^53 - 1'],
    ['--part 1e-320', '--part 1e-320: expected a number that f32 holds, 0 or of a size from 1.2e-38 to 3.4e38'],
    ['--size 1e-40', '--size 1e-40: expected a number that f32 holds'],
    ['--part 1', '--part 1: expected a number from 0 and below 1'],
    ['--part -0.1', '--part -0.1: expected a number from 0 and below 1'],
    ['--size 0', '--size 0: expected a number above 0'],
    ['--shift=', '--shift : expected a number'],
    ['--shift Infinity', '--shift Infinity: expected a number'],
    ['--shift -1e39', '--shift -1e39: expected a number'],
    ['--shift NaN', '--shift NaN: expected a number'],
    ['--pet cow', '--pet cow: there is no "cow"; there are cat, dog, ostrich'],
    ['--pet ostrihc', '--pet ostrihc: there is no "ostrihc"; did you mean ostrich?'],
    ['--pet cat,dog', '--pet cat,dog: there is no "cat,dog"; there are cat, dog, ostrich'],
    ['--pets cat,cow', '--pets cat,cow: there is no "cow"; there are'],
    ['--name=', '--name : expected a text, got an empty one'],
    ['--pets cat,', '--pets cat,: expected a text, got an empty one'],
    ['--pets cat,cat', '--pets cat,cat: "cat" is named twice'],
    ['--weights 1,0', '--weights 1,0: expected a number above 0'],
    ['--weights 1,', '--weights 1,: expected a text, got an empty one'],
    ['--rates a', '--rates a: "a": expected NAME=N'],
    ['--rates =2', '--rates =2: "=2": expected NAME=N'],
    ['--rates a=', '--rates a=: expected a number above 0'],
    ['--rates a=0', '--rates a=0: expected a number above 0'],
    ['--rates a=x', '--rates a=x: expected a number above 0'],
    ['--rates a=1,a=2', '--rates a=1,a=2: "a" is named twice'],
  ])('%s is a value that is not taken', (words, message) => {
    expect(refusal(() => read(...words.split(' ')))).toContain(`go: ${message}`);
  });

  test.each([
    ['--cuont 3', 'there is no option --cuont; did you mean --count?'],
    ['--quiet', 'there is no option --quiet'],
    ['--no-loud', 'there is no option --no-loud'],
    ['--constructor 1', 'there is no option --constructor'],
    ['--__proto__=1', 'there is no option --__proto__'],
    ['-l', 'there is no option -l'],
    ['-5', 'there is no option -5'],
    ['--name', '--name needs a value'],
    ['--name --loud', '--name needs a value'],
    ['--name -h', '--name needs a value'],
    ['--shift -x', '--shift needs a value'],
    ['--loud=yes', '--loud takes no value'],
    ['--json=', '--json takes no value'],
    ['--name a --name b', '--name is given twice'],
    ['--loud --loud', '--loud is given twice'],
    ['--pets cat --pets dog', '--pets is given twice'],
    ['cat', '"cat" belongs to no option'],
    ['--loud yes', '"yes" belongs to no option'],
    ['-- --loud', '"--loud" belongs to no option'],
  ])('%s is refused, with where to read more', (words, message) => {
    expect(refusal(() => read(...words.split(' ')))).toContain(`go: ${message}`);
    expect(() => read(...words.split(' '))).toThrow(/(; see|\? See) insula go --help$/);
  });

  test('words beside them are kept by a command that takes some', () => {
    const { values, names } = readOptions('go', { options, names: 'animals' }, ['cat', '--loud', 'dog']);
    expect({ values, names }).toEqual({ values: { loud: true }, names: ['cat', 'dog'] });
  });
});

describe('an option that changes nothing', () => {
  const withUse = (use: Use) => {
    const own = { own: flag('o', use), a: text('a'), b: text('b'), pet: choice('p', animals) };
    return (words: string) => readOptions('go', { options: own }, words.split(' '));
  };

  test.each<[string, Use, string, string[]]>([
    ['--own', { needs: 'a' }, '--own changes nothing without --a', ['--own --a 1', '--a 1', '--b 1']],
    [
      '--own --pet cat',
      { needs: ['a', 'b'] },
      '--own changes nothing without --a or --b',
      ['--own --b 1', '--a 1 --own'],
    ],
    [
      '--own',
      { needs: { pet: ['cat', 'dog'] } },
      '--own changes nothing with --pet left out: it is for --pet cat or dog',
      ['--own --pet cat', '--pet dog --own', '--pet ostrich'],
    ],
    [
      '--pet dog --own',
      { needs: { pet: ['cat', undefined] } },
      '--own changes nothing with --pet dog: it is for --pet cat',
      ['--own', '--own --pet cat', '--pet dog'],
    ],
    ['--own --a 1', { excludes: 'a' }, '--own changes nothing together with --a', ['--own', '--a 1', '--own --b 1']],
    ['--b 1 --own', { excludes: ['a', 'b'] }, '--own changes nothing together with --b', ['--own', '--a 1 --b 1']],
    ['--own --a 1 --b 1', { needs: 'a', excludes: 'b' }, '--own changes nothing together with --b', ['--own --a 1']],
  ])('%s is refused where it has %o', (refused, use, message, taken) => {
    const readWith = withUse(use);
    expect(refusal(() => readWith(refused))).toBe(`go: ${message}`);
    for (const words of taken) expect(readWith(words).help).toBe(false);
    for (const words of [`${refused} --help`, `-h ${refused}`]) expect(readWith(words).help).toBe(true);
  });
});

test('the name that was probably meant, or all of them', () => {
  const names = ['pi0', 'pi05', 'knowledge-insulation'];
  expect(nearest('pi06', names)).toBe('did you mean pi0?');
  expect(nearest('p05', names)).toBe('did you mean pi05?');
  expect(nearest('PI0', names)).toBe('did you mean pi0?');
  expect(nearest('ip0', names)).toBe('did you mean pi0?');
  expect(nearest('gate', ['rate', 'gates'])).toBe('did you mean gates?');
  expect(nearest('knowlege-isolation', names, '--')).toBe('did you mean --knowledge-insulation?');
  expect(nearest('act', names, '--')).toBe('there are --pi0, --pi05, --knowledge-insulation');
  expect(nearest('', names)).toBe('there are pi0, pi05, knowledge-insulation');
});

test('a pattern is a whole name with any letters at its stars, of which there may be many', () => {
  for (const [pattern, name, fits] of [
    ['a', 'a', true],
    ['a', 'ab', false],
    ['', '', true],
    ['*', '', true],
    ['a*', 'abc', true],
    ['*c', 'abc', true],
    ['a*a', 'a', false],
    ['a*b*c', 'a.b.c', true],
    ['a*b*c', 'a.c.b', false],
    ['*ab*ab', 'xabab', true],
    ['*ab*ab', 'xab', false],
    ['a**c', 'abc', true],
    ['l.*.w', 'l.0.w', true],
    ['l.*.w', 'l-0.w', false],
    [`${'*'.repeat(40)}z`, 'a'.repeat(90), false],
  ] as const)
    expect([pattern, name, isLike(pattern, name)]).toEqual([pattern, name, fits]);
});

test('help of the options is a column of names and one of texts that go on below themselves', () => {
  const help = 'one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen';
  const own = { 'some-name': text(help), loud: flag('a flag'), all: list('texts') };
  const indent = ' '.repeat(24);
  const narrow = [
    '  --some-name TEXT      one two three four five six seven eight',
    `${indent}nine ten eleven twelve thirteen fourteen`,
    `${indent}fifteen`,
    '  --loud                a flag',
    '  --all TEXT ...        texts',
    '  --json                prints one JSON object on standard',
    `${indent}output`,
  ];
  expect(optionLines(own, 64)).toEqual(narrow);
  expect(optionLines(own, 10)).toEqual(narrow);
  expect(optionLines(own, 120)).toHaveLength(4);
  const [long] = optionLines({ long: text('x'.repeat(200)) }, 64);
  expect(long).toBe(`${'  --long TEXT'.padEnd(24)}${'x'.repeat(200)}`);
});

describe('commands', async () => {
  const loaded = await Promise.all(
    Object.entries(commands).map(async ([name, { load }]): Promise<[string, Command]> => [name, await load()]),
  );

  test.each(loaded)('%s: its options have help, and rules about options that it has', (_, { options, run }) => {
    expect(run).toBeTypeOf('function');
    expect(Object.keys(options)).not.toContain('json');
    expect(Object.keys(options)).not.toContain('help');
    for (const [name, { help, needs = [], excludes = [] }] of Object.entries(options)) {
      expect(help, name).toMatch(/^\S+( \S+)*$/);
      const rules = typeof needs === 'string' || Array.isArray(needs) ? [needs].flat() : Object.keys(needs);
      for (const other of [...rules, ...[excludes].flat()]) {
        expect(Object.keys(options), `the rule of --${name}`).toContain(other);
        expect(other).not.toBe(name);
      }
      if (typeof needs === 'string' || Array.isArray(needs)) continue;
      for (const [other, allowed] of Object.entries(needs as Record<string, (string | undefined)[]>))
        for (const value of allowed) if (value !== undefined) expect(options[other].read([value])).toBe(value);
    }
    for (const line of optionLines(options, 120)) expect(line.length).toBeLessThanOrEqual(120);
    for (const line of optionLines(options, 120)) expect(line).toMatch(/^(?= {24}\S|.{23} \S)/);
  });

  const nonsense = [
    '',
    ' ',
    ',',
    '=',
    '-1',
    '0x10',
    '1e9',
    '1e308',
    '1e-320',
    '-0',
    '9007199254740992',
    'NaN',
    'Infinity',
  ];
  const hostile = [
    '\u0000',
    '\u202e',
    '٣',
    '{}',
    '__proto__',
    'constructor=1',
    '../..',
    `${'9'.repeat(400)}`,
    'x'.repeat(100_000),
  ];

  test.each(loaded)('%s takes nonsense, or refuses it in one line that names the option', (name, command) => {
    for (const option of Object.keys(command.options))
      for (const value of [...nonsense, ...hostile, ...nonsense.map((own) => `a=${own}`)])
        try {
          readOptions(name, command, [`--${option}=${value}`]);
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
          const { message } = error as Error;
          expect(message.slice(0, 2100)).toContain(`--${option}`);
          expect(message).not.toMatch(
            /\n|Cannot (read|conv|destr)|undefined|is not a function|not iterable|Invalid array/,
          );
        }
  });

  test.each(Object.entries(commands))('%s has a summary', (_, { summary }) => {
    expect(summary).toMatch(/^\S+( \S+)*$/);
  });
});
