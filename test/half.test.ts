import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as half from '../engine/files/half.ts';

/** Every finite non-negative value of a 16-bit format, by its bit pattern, from the format's definition. */
function values(fractionBits: number, bias: number, patterns: number): number[] {
  return Array.from({ length: patterns }, (_, pattern) => {
    const exponent = pattern >> fractionBits;
    const fraction = (pattern & (2 ** fractionBits - 1)) / 2 ** fractionBits;
    return exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias);
  });
}

const widenBfloat16 = (pattern: number) => half.decodeBfloat16(Uint16Array.of(pattern))[0];

const formats = [
  {
    name: 'f16',
    infinity: 0x7c00,
    values: values(10, 15, 0x7c00),
    narrow: half.float32ToFloat16,
    widen: half.float16ToFloat32,
    encode: half.encodeFloat16,
    decode: half.decodeFloat16,
  },
  {
    name: 'bf16',
    infinity: 0x7f80,
    values: values(7, 127, 0x7f80),
    narrow: half.float32ToBfloat16,
    widen: widenBfloat16,
    encode: half.encodeBfloat16,
    decode: half.decodeBfloat16,
  },
];

describe.each(formats)('$name', ({ infinity, values, narrow, widen, encode, decode }) => {
  test('every bit pattern widens to its value and narrows back', () => {
    for (let pattern = 0; pattern < infinity; pattern++) {
      if (widen(pattern) !== values[pattern] || widen(pattern | 0x8000) !== -values[pattern]) {
        throw new Error(`pattern ${pattern} widens to ${widen(pattern)}, its value is ${values[pattern]}`);
      }
      if (narrow(values[pattern]) !== pattern || narrow(-values[pattern]) !== (pattern | 0x8000)) {
        throw new Error(`value ${values[pattern]} narrows to ${narrow(values[pattern])}, its pattern is ${pattern}`);
      }
    }
    expect(widen(infinity)).toBe(Number.POSITIVE_INFINITY);
    expect(widen(infinity | 0x8000)).toBe(Number.NEGATIVE_INFINITY);
    expect(widen(infinity + 1)).toBeNaN();
  });

  test('narrowing picks the nearest value, of two equally near the even pattern', () => {
    const largest = values[infinity - 1];
    const step = largest - values[infinity - 2];
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: infinity - 1 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (pattern, part) => {
          const [below, above] = [values[pattern], values[pattern + 1] ?? largest + step];
          for (const wanted of [below + part * (above - below), (below + above) / 2]) {
            const value = Math.fround(wanted);
            if (value < below || value > above) continue;
            const odd = pattern % 2;
            const toAbove = value - below > above - value || (value - below === above - value && odd === 1);
            expect(narrow(value)).toBe(pattern + (toAbove ? 1 : 0));
            expect(narrow(-value)).toBe((pattern + (toAbove ? 1 : 0)) | 0x8000);
          }
        },
      ),
      { seed: 2, numRuns: 2000 },
    );
  });

  test('zeros, infinities, NaN and overflow', () => {
    expect(narrow(-0)).toBe(0x8000);
    expect(Object.is(widen(0x8000), -0)).toBe(true);
    expect(narrow(Number.POSITIVE_INFINITY)).toBe(infinity);
    expect(narrow(3.4e38)).toBe(infinity);
    const nan = narrow(Number.NaN) & 0x7fff;
    expect(nan).toBeGreaterThan(infinity);
  });

  test('arrays agree with single numbers', () => {
    const numbers = Float32Array.from([0, -0, 1, -1.5, 1e-7, 65504, 65519, 65520, 1e30, Number.NaN, -Math.PI]);
    const patterns = encode(numbers);
    expect([...patterns]).toEqual([...numbers].map(narrow));
    expect([...decode(patterns)]).toEqual([...patterns].map(widen));
  });
});

test('a signalling NaN whose payload lies in the lower half stays NaN in bf16', () => {
  const value = new Float32Array(new Uint32Array([0x7f800001]).buffer)[0];
  expect(widenBfloat16(half.float32ToBfloat16(value))).toBeNaN();
});
