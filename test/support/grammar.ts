import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { ActionChunk, ActionTokenizer, ChunkShape } from '../../tokenizers/index.ts';

export const waves: ActionChunk[] = Array.from({ length: 30 }, (_, index) => ({
  horizon: 8,
  dimension: 3,
  data: Float32Array.from({ length: 24 }, (_, i) => Math.sin(0.3 * Math.floor(i / 3) * ((i % 3) + 1) + index)),
}));

/** The tests of a tokenizer's grammar. */
export const describeGrammar = (name: string, make: () => ActionTokenizer) =>
  describe(`the grammar of ${name}`, () => {
    let tokenizer: ActionTokenizer;
    beforeAll(() => {
      tokenizer = make();
    });
    const sizes = fc.record({ horizon: fc.integer({ min: 1, max: 9 }), dimension: fc.integer({ min: 1, max: 4 }) });

    const choices = fc.infiniteStream(fc.nat());
    /** Random ids that the grammar allows, until the chunk is complete. */
    const randomly = (shape: ChunkShape, choices: Iterator<number>, most?: number): number[] => {
      const grammar = tokenizer.grammar(shape);
      const ids: number[] = [];
      let state = 0;
      while (state !== grammar.complete) {
        const allowed = grammar.allowed(state, most && most - ids.length);
        if (allowed.length === 0) throw new Error(`no way on at ${state} of ${grammar.complete}`);
        ids.push(allowed[choices.next().value % allowed.length]);
        state = grammar.next(state, ids[ids.length - 1]);
      }
      expect(grammar.allowed(state).length).toBe(0);
      return ids;
    };

    it('lets a model write nothing that cannot be decoded, and always leaves a way on', () => {
      fc.assert(
        fc.property(sizes, choices, (shape, choices) => {
          expect(tokenizer.decode(randomly(shape, choices), shape).every(Number.isFinite)).toBe(true);
        }),
        { seed: 15, numRuns: 500 },
      );
    });

    it('completes a chunk within as many ids as another of its shape has', () => {
      fc.assert(
        fc.property(sizes, choices, (shape, choices) => {
          const most = tokenizer.encode({ ...shape, data: new Float32Array(shape.horizon * shape.dimension) }).length;
          const ids = randomly(shape, choices, most);
          expect(ids.length).toBeLessThanOrEqual(most);
          expect(tokenizer.decode(ids, shape).every(Number.isFinite)).toBe(true);
        }),
        { seed: 16, numRuns: 500 },
      );
    });

    it('allows what encode writes', () => {
      for (const chunk of waves) {
        const grammar = tokenizer.grammar(chunk);
        expect(tokenizer.encode(chunk).reduce((state, id) => grammar.next(state, id), 0)).toBe(grammar.complete);
      }
    });

    it('refuses other ids', () => {
      const grammar = tokenizer.grammar({ horizon: 1, dimension: 1 });
      for (const id of [-1, 0.5, tokenizer.vocabularySize]) {
        expect(() => grammar.next(0, id)).toThrow(`action id ${id} may not follow in state 0`);
      }
      expect(() => grammar.next(grammar.complete, 0)).toThrow('may not follow');
    });
  });
