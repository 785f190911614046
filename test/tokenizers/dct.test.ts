import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dct, inverseDct } from '../../tokenizers/index.ts';

describe('dct', () => {
  it('gives the coefficients of test vector 1', () => {
    const actions = [-1, 0.5, -0.5, 0.5, 0, 0.25, 0.5, 0, 1, -0.25];
    const expected = [0, 0.447214, -1.57475, 0.637, 0, -0.127917, -0.141995, -0.021939, 0, -0.04886];
    dct(actions, 5, 2).forEach((value, index) => {
      expect(Math.abs(value - expected[index])).toBeLessThan(1e-6);
    });
  });

  it('keeps the energy and is undone by its inverse', () => {
    const chunk = fc
      .tuple(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 6 }))
      .chain(([horizon, dimension]) =>
        fc.record({
          horizon: fc.constant(horizon),
          dimension: fc.constant(dimension),
          values: fc.array(fc.double({ min: -2, max: 2, noNaN: true }), {
            minLength: horizon * dimension,
            maxLength: horizon * dimension,
          }),
        }),
      );
    fc.assert(
      fc.property(chunk, ({ horizon, dimension, values }) => {
        const energy = (x: Iterable<number>) => Array.from(x).reduce((sum, value) => sum + value * value, 0);
        const coefficients = dct(values, horizon, dimension);
        expect(Math.abs(energy(coefficients) - energy(values))).toBeLessThan(1e-11);
        inverseDct(coefficients, horizon, dimension).forEach((value, index) => {
          expect(Math.abs(value - values[index])).toBeLessThan(1e-13);
        });
      }),
      { seed: 1, numRuns: 200 },
    );
  });
});
