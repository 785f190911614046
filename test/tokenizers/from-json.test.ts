import { describe, expect, it } from 'vitest';
import {
  type ActionTokenizer,
  actionTokenizerFromJson,
  BinActionTokenizer,
  FastTokenizer,
  StrideTokenizer,
  StringActionTokenizer,
} from '../../tokenizers/index.ts';

const chunk = { horizon: 6, dimension: 2, data: Float32Array.from({ length: 12 }, (_, i) => Math.sin(i)) };
const gripper = { dimensions: [1], zero: -1, one: 1 };

describe('actionTokenizerFromJson', () => {
  it('brings every tokenizer back', () => {
    const all: ActionTokenizer[] = [
      FastTokenizer.fit([chunk]),
      FastTokenizer.fit([chunk], { format: 'published' }),
      new BinActionTokenizer({ bins: 17, form: 'openpi' }),
      new StringActionTokenizer({ decimals: 2, betweenSteps: '|', gripper }),
      new StrideTokenizer(new BinActionTokenizer(), 3),
    ];
    for (const tokenizer of all) {
      const again = actionTokenizerFromJson(JSON.parse(JSON.stringify(tokenizer)));
      expect(again.encode(chunk)).toEqual(tokenizer.encode(chunk));
      expect(JSON.stringify(again)).toBe(JSON.stringify(tokenizer));
    }
  });

  it('names bad input', () => {
    const wrong: [unknown, string][] = [
      [null, 'type is nothing; there are fast, fast-published, bins, stride and string'],
      [{ type: 'x' }, 'type is "x"'],
      [{ type: 'bins', bins: 'many' }, 'bins must be an integer'],
      [{ type: 'bins', form: 'x' }, 'form is "x"; there are openvla and openpi'],
      [{ type: 'string', decimals: 0 }, 'decimals must be an integer from 1 to 8'],
      [{ type: 'string', gripper: {}, decimals: 1.5 }, 'decimals must be'],
      [{ type: 'string', gripper: { dimensions: 3 } }, 'gripper needs a list of dimensions'],
      [{ type: 'stride', inner: { type: 'stride' } }, 'a stride within a stride'],
      [{ type: 'stride', inner: { type: 'bins' }, stride: 0 }, 'stride must be a positive integer'],
      [
        { type: 'fast', scale: 10, minimum: 0, symbols: 1e15, merges: [] },
        'symbols must be an integer from 1 to 1048576',
      ],
    ];
    for (const [json, message] of wrong) expect(() => actionTokenizerFromJson(json)).toThrow(message);
  });
});
