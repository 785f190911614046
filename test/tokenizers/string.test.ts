import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StringActionTokenizer } from '../../tokenizers/index.ts';

const tokenizer = new StringActionTokenizer();
const shape = { horizon: 2, dimension: 2 };

describe('StringActionTokenizer', () => {
  it('writes the numbers of test vector 13', () => {
    const data = Float32Array.of(0.0312, -0.5, 1, -0.00004);
    expect(tokenizer.format({ data, ...shape })).toBe('+0.0312 -0.5000;+1.0000 +0.0000');
  });

  it('clamps to one digit before the point', () => {
    const data = Float32Array.of(1e30, -12, 9.99999, 9.5);
    expect(tokenizer.format({ data, ...shape })).toBe('+9.9999 -9.9999;+9.9999 +9.5000');
  });

  it('comes back within half of the last digit, one id per character', () => {
    const anyChunk = fc
      .tuple(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 8 }))
      .chain(([horizon, dimension]) =>
        fc.record({
          horizon: fc.constant(horizon),
          dimension: fc.constant(dimension),
          data: fc.float32Array({
            min: -2,
            max: 2,
            noNaN: true,
            minLength: horizon * dimension,
            maxLength: horizon * dimension,
          }),
        }),
      );
    fc.assert(
      fc.property(anyChunk, (chunk) => {
        const ids = tokenizer.encode(chunk);
        expect(ids.length).toBe(8 * chunk.data.length - 1);
        expect(ids.every((id) => id >= 0 && id < tokenizer.vocabularySize)).toBe(true);
        tokenizer.decode(ids, chunk).forEach((value, index) => {
          expect(Math.abs(value - chunk.data[index])).toBeLessThanOrEqual(5e-5 + 2e-7);
        });
      }),
      { seed: 5, numRuns: 100 },
    );
  });

  it('takes nothing but its own form, and says where it differs', () => {
    expect(Array.from(tokenizer.parse('+0.0312 -0.5000;+1.0000 +0.0000', shape))).toEqual(
      [0.0312, -0.5, 1, 0].map(Math.fround),
    );
    expect(() => tokenizer.parse('+0.0312 -0.5000', shape)).toThrow('the text has 1 steps, the horizon is 2');
    expect(() => tokenizer.parse('+0.0312 -0.5000;+1.0000', shape)).toThrow('step 1 has 1 numbers, the dimension is 2');
    expect(() => tokenizer.parse('+0.0312 -0.5000;+1.0000 0.0000', shape)).toThrow(
      'step 1, dimension 1: "0.0000" is not of the form [+-]d.dddd',
    );
    for (const bad of ['+0.31', '+10.0000', '+1.0000\n', '+NaN', '']) {
      expect(() => tokenizer.parse(bad, { horizon: 1, dimension: 1 })).toThrow('is not of the form');
    }
    expect(() => tokenizer.decode([0, 15], shape)).toThrow('id 15 at position 1 is unknown; ids are 0 to 14');
    const nan = { data: Float32Array.of(Number.NaN), horizon: 1, dimension: 1 };
    expect(() => tokenizer.encode(nan)).toThrow('StringActionTokenizer: the value at step 0, dimension 0 is NaN');
  });

  it('takes other decimals, delimiters and a gripper of one digit', () => {
    const gripper = { dimensions: [1], zero: -1, one: 1 };
    const other = new StringActionTokenizer({ decimals: 2, betweenDimensions: ',', betweenSteps: '\n', gripper });
    const chunk = { data: Float32Array.of(0.126, 0.9, -3, -0.2), ...shape };
    expect(other.format(chunk)).toBe('+0.13,1\n-3.00,0');
    expect(Array.from(other.decode(other.encode(chunk), shape))).toEqual([Math.fround(0.13), 1, -3, -1]);
    expect(() => other.parse('+0.13,2\n-3.00,0', shape)).toThrow('step 0, dimension 1: "2" is not of the form 0 or 1');
    expect(() => new StringActionTokenizer({ decimals: 9 })).toThrow('decimals must be an integer from 1 to 8, got 9');
    for (const format of [
      { betweenSteps: ' ' },
      { betweenDimensions: '' },
      { betweenSteps: '5' },
      { betweenSteps: '; ' },
    ]) {
      expect(() => new StringActionTokenizer(format)).toThrow('must be two different characters');
    }
  });
});

describe('lenient parsing', () => {
  const lenient = (text: string) => tokenizer.parseLenient(text, shape);

  it('takes what format writes as exact', () => {
    const text = '+0.0312 -0.5000;+1.0000 +0.0000';
    expect(lenient(text)).toEqual({ data: tokenizer.parse(text, shape), parsed: 4, exact: true, problem: null });
  });

  it('takes numbers in other forms, flagged', () => {
    const { data, ...rest } = lenient(' 0.5  -1 ;\n12.25 3. ');
    expect([...data]).toEqual([0.5, -1, 12.25, 3]);
    expect(rest).toEqual({ parsed: 4, exact: false, problem: null });
  });

  it('keeps the valid prefix, holds the rest and says where it ended', () => {
    const { data, ...rest } = lenient('+0.5000 -0.2500;+0.7500 oops');
    expect([...data]).toEqual([0.5, -0.25, 0.75, -0.25]);
    expect(rest).toEqual({
      parsed: 3,
      exact: false,
      problem: 'step 1, dimension 1: expected a number at character 24',
    });
    expect(lenient('+0.5000;').problem).toBe('step 0, dimension 1: expected " " at character 7');
    expect(lenient('+0.5000 -0.2').problem).toBe('step 0, dimension 1: the number at character 8 is cut off');
    expect(lenient('+0.5000 +0.0000 +1.0000').problem).toBe('step 1, dimension 0: expected ";" at character 15');
    expect([...lenient('').data]).toEqual([0, 0, 0, 0]);
    expect(lenient('+0.5000 +0.0000;+1.0000 +0.0000;x').problem).toBe('2 characters follow the chunk');
    const ids = [10, 0, 12, 5, 0, 0, 0, 99];
    expect(tokenizer.decodeLenient(ids, { horizon: 1, dimension: 1 })).toMatchObject({
      parsed: 1,
      exact: false,
      problem: 'id 99 at position 7 is unknown; ids are 0 to 14',
    });
  });

  it('never throws, never loops, gives finite numbers and a true prefix', () => {
    const piece = fc.constantFrom(...'0123456789+-. ;\n', '+0.1234', ' ', ';', '9'.repeat(60), 'é');
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
        const { data, parsed, exact, problem } = lenient(pieces.join(''));
        expect(data.every(Number.isFinite)).toBe(true);
        expect(problem === null || !exact).toBe(true);
        expect(parsed === 4 || problem !== null).toBe(true);
        if (exact) expect(data).toEqual(tokenizer.parse(pieces.join(''), shape));
      }),
      { seed: 14, numRuns: 1000 },
    );
  });
});
