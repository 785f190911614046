import { describe, expect, it } from 'vitest';
import { cleanInstruction, digitizeState, promptText } from '../../tokenizers/index.ts';

describe('promptText', () => {
  it('writes the prompt of pi0.5', () => {
    const state = digitizeState([-1, 0, 0.25, 1]);
    expect(promptText({ instruction: 'put the red_cube\nin the blue bin ', state })).toBe(
      'Task: put the red cube in the blue bin, State: 0 128 160 255;\nAction: ',
    );
  });

  it('leaves out what is missing', () => {
    expect(promptText({ instruction: 'lift the ball' })).toBe('Task: lift the ball;\nAction: ');
    expect(promptText({ instruction: ' ', state: [3, 4] })).toBe('State: 3 4;\nAction: ');
    expect(promptText({ instruction: null, state: null })).toBe('Action: ');
    expect(promptText({ instruction: 'a', state: [] })).toBe('Task: a;\nAction: ');
  });

  it('lowers the case where asked', () => {
    expect(cleanInstruction(' Pick_UP ', { lowerCase: true })).toBe('pick up');
    expect(promptText({ instruction: 'Pick UP', lowerCase: true })).toBe('Task: pick up;\nAction: ');
    expect(promptText({ instruction: 'Pick UP' })).toBe('Task: Pick UP;\nAction: ');
  });
});
