import { describe, expect, it } from 'vitest';
import { digitizeState, rangesAfterText } from '../../tokenizers/index.ts';

const values = [-1.2, -1, -0.999, -0.5, 0, 0.25, 0.999, 1, 1.2];

describe('the state', () => {
  it('in bins gives test vector 11, clamped or as openpi leaves it', () => {
    expect(Array.from(digitizeState(values))).toEqual([0, 0, 0, 64, 128, 160, 255, 255, 255]);
    expect(Array.from(digitizeState(values, { clamp: false }))).toEqual([-1, 0, 0, 64, 128, 160, 255, 255, 255]);
  });

  it('takes another number of bins', () => {
    expect(Array.from(digitizeState([-1, -0.01, 0, 0.99, 1], { bins: 4 }))).toEqual([0, 1, 2, 3, 3]);
    expect(Array.from(digitizeState([-7, 7], { bins: 1 }))).toEqual([0, 0]);
  });

  it('as special tokens takes a range of its own, one id for each bin', () => {
    const { state, action } = rangesAfterText(640, { state: 256, action: 1024 });
    expect(Array.from(state.toVocabulary(digitizeState([-1, 0, 1])))).toEqual([640, 768, 895]);
    expect([state.vocabularySize, action.vocabularySize, ...action.toVocabulary([0])]).toEqual([1920, 1920, 896]);
  });

  it('names bad input', () => {
    expect(() => digitizeState([0, Number.NEGATIVE_INFINITY])).toThrow('the value at dimension 1 is -Infinity');
    expect(() => digitizeState([0], { bins: 2.5 })).toThrow(
      'bins must be an integer of at least 1, up to 1048576, got 2.5',
    );
    expect(() => digitizeState([0], { bins: 1e12 })).toThrow('got 1000000000000');
  });
});
