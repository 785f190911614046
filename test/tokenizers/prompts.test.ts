import { describe, expect, it } from 'vitest';
import type { PromptName, PromptValues } from '../../tokenizers/index.ts';
import {
  cleanInstruction,
  digitizeState,
  encodePieces,
  prompts,
  promptText,
  TextTokenizer,
} from '../../tokenizers/index.ts';

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

describe('prompts', () => {
  const values = { instruction: ' Put the_cup\nDown ', state: [3, 255], steps: 5 };
  const written = (name: PromptName, other: PromptValues = values) => {
    const { before, behind } = prompts[name](other);
    const text = (pieces: typeof before) => pieces.map((piece) => (typeof piece === 'string' ? piece : piece.special));
    return [text(before), text(behind)];
  };

  it('are those of the sources', () => {
    expect(written('pi0')).toEqual([['bos', 'Put the cup Down', '\n'], []]);
    expect(written('pi0-fast')).toEqual([
      ['bos', 'Task: put the cup\ndown, State: 3 255;\n', 'Action: '],
      ['|', 'eos'],
    ]);
    const task = 'Task: Put the cup Down, State: 3 255;\nAction: ';
    expect(written('pi05')).toEqual([['bos', task], []]);
    expect(written('knowledge-insulation')).toEqual([['bos', task], ['eos']]);
    const plain = { instruction: 'Lift it', steps: 5 };
    expect(written('rt-2', plain)).toEqual([['bos', 'Q: what action should the robot take to Lift it? A:'], ['eos']]);
    expect(written('openvla', plain)).toEqual([
      ['bos', 'In: What action should the robot take to lift it?\nOut: '],
      ['eos'],
    ]);
    expect(written('robovlms-discrete', plain)).toEqual([
      ['bos', 'In: What 5 step actions should the robot take to lift it?\nOut: '],
      ['eos'],
    ]);
    expect(written('robovlms-discrete', { instruction: 'Lift it' })).toEqual(written('openvla', plain));
    expect(written('robovlms-kosmos', plain)).toEqual([['<grounding>An image of a robot Lift it'], []]);
    expect(written('robovlms-paligemma', plain)).toEqual([['eos', 'Lift it', '\n'], []]);
    expect(written('robovlms-flamingo', plain)).toEqual([['<image>Lift it<|endofchunk|>', 'eos'], []]);
    expect(written('paligemma', { instruction: 'caption en' })).toEqual([['bos', 'caption en', '\n'], ['eos']]);
  });

  it('stand without instruction and state', () => {
    for (const name of Object.keys(prompts) as PromptName[]) {
      const [before] = written(name, {});
      expect(before.every((piece) => typeof piece === 'string' && !/null|undefined/.test(piece))).toBe(true);
    }
  });

  it('become ids piece by piece', () => {
    const text = TextTokenizer.default();
    const { before, behind } = prompts['pi0-fast'](values);
    expect(Array.from(encodePieces(text, before))).toEqual([
      2,
      ...text.encode('Task: put the cup\ndown, State: 3 255;\n'),
      ...text.encode('Action: '),
    ]);
    expect(Array.from(encodePieces(text, behind))).toEqual([...text.encode('|'), 1]);
  });
});
