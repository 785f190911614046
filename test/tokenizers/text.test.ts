import { Tokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { defaultMerges } from '../../tokenizers/default-merges.ts';
import {
  defaultTokenizerJson,
  IntegerBpe,
  promptText,
  TextTokenizer,
  worldInstructions,
  worldLanguage,
} from '../../tokenizers/index.ts';
import { trainDefaultMerges } from '../../tokenizers/world-language.ts';

const tokenizer = TextTokenizer.default();

describe('the default vocabulary', () => {
  it('is what training on the language of the world gives (default-merges-node.ts)', () => {
    expect(defaultMerges).toEqual(trainDefaultMerges());
  });

  it('has at most 768 ids, with pad 0, end 1, begin 2', () => {
    expect(tokenizer.vocabularySize).toBe(3 + 256 + defaultMerges.length);
    expect(tokenizer.vocabularySize).toBeLessThanOrEqual(768);
    expect(tokenizer.special).toEqual({ pad: 0, eos: 1, bos: 2 });
  });

  it('has every word of the world and every number from 0 to 255 in one piece', () => {
    const words = new Set(worldInstructions().flatMap((instruction) => instruction.split(' ')));
    expect(words.size).toBeGreaterThan(20);
    const pieces = [...words, ...Array.from({ length: 256 }, (_, bin) => `${bin}`)].map((piece) => ` ${piece}`);
    for (const piece of [...pieces, 'Task:', 'State:', ' State:', 'Action:', ';\n']) {
      expect([piece, tokenizer.encode(piece).length]).toEqual([piece, 1]);
    }
  });

  it('takes at most 24 ids for a whole prompt with a state of five dimensions', () => {
    const short = worldInstructions().filter((instruction) => !instruction.includes(' and '));
    const lengths = short.map((instruction) => {
      const prompt = promptText({ instruction, state: [0, 255, 137, 12, 200] });
      const ids = tokenizer.encode(prompt, { bos: true });
      expect(ids[0]).toBe(2);
      expect(tokenizer.decode(ids)).toBe(prompt);
      return ids.length;
    });
    expect(Math.max(...lengths)).toBeLessThanOrEqual(24);
    const instruction = 'put the red cube in the blue bin';
    expect(tokenizer.encode(promptText({ instruction, state: [1, 2, 3, 4, 5] }), { bos: true }).length).toBe(20);
  });

  it('loads unchanged in @huggingface/tokenizers and gives the same ids', () => {
    const json = JSON.parse(JSON.stringify(defaultTokenizerJson()));
    const library = new Tokenizer(json, {});
    for (const instruction of worldInstructions().slice(0, 50)) {
      expect(library.encode(instruction).ids).toEqual(Array.from(tokenizer.encode(instruction)));
    }
    const kept = TextTokenizer.default().toJSON();
    expect(new TextTokenizer(JSON.parse(JSON.stringify(kept))).encode('put it')).toEqual(tokenizer.encode('put it'));
  });

  it('merges as our own encoder does', () => {
    const { vocab } = defaultTokenizerJson().model;
    const merges = defaultMerges.map((merge) => merge.split(' ').map((token) => vocab[token] - 3) as [number, number]);
    const bpe = new IntegerBpe({ symbols: 256, merges });
    const letters = [...'abcdeghiklmnoprtuwxy'];
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...letters), { minLength: 1, maxLength: 20 }), (word) => {
        const bytes = new TextEncoder().encode(` ${word.join('')}`);
        expect(Array.from(bpe.encode(bytes), (id) => id + 3)).toEqual(
          Array.from(tokenizer.encode(` ${word.join('')}`)),
        );
      }),
      { seed: 7, numRuns: 300 },
    );
  });
});

describe('TextTokenizer', () => {
  it('brings any text back', () => {
    const anyText = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 40 }),
      fc.string({ unit: 'grapheme', maxLength: 40 }),
      fc.string({ unit: fc.constantFrom(...' \n\t\r;:,0123456789abcTaskState|<>éß漢🤖'), maxLength: 40 }),
      fc.constantFrom(
        '',
        '<eos>',
        'a <pad> b<bos>',
        'stelle den Würfel in die blaue Kiste',
        '把红色方块放进蓝色箱子',
        ' , . ? !',
      ),
    );
    fc.assert(
      fc.property(anyText, (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      }),
      { seed: 8, numRuns: 1000 },
    );
  });

  it('puts BOS in front where asked, and leaves special ids out of the text', () => {
    const plain = Array.from(tokenizer.encode('put it'));
    expect(Array.from(tokenizer.encode('put it', { bos: true }))).toEqual([2, ...plain]);
    expect(tokenizer.decode([2, ...plain, 1, 0, 0])).toBe('put it');
    expect(tokenizer.decode([0, 1, 2])).toBe('');
    expect(Array.from(tokenizer.encode('', { bos: true }))).toEqual([2]);
  });

  it('never makes a special id from text', () => {
    expect(Array.from(tokenizer.encode('<bos>x<eos><pad>')).every((id) => id > 2)).toBe(true);
  });

  it('finds the special ids of other files, or takes them as given', () => {
    const json = defaultTokenizerJson();
    const tokens = [
      { id: 1, content: '<s>', special: true },
      { id: 2, content: '</s>', special: true },
    ];
    const other = {
      ...json,
      added_tokens: tokens,
      model: { type: 'BPE', vocab: { a: 0, '<s>': 1, '</s>': 2, b: 3 }, merges: [] },
    };
    expect(() => new TextTokenizer(other)).toThrow('none of <pad> [PAD] <|pad|>; give its id as { pad: ... }');
    const given = new TextTokenizer(other, { pad: 0 });
    expect(given.special).toEqual({ pad: 0, eos: 2, bos: 1 });
    expect([given.vocabularySize, ...given.encode('ab')]).toEqual([4, 0, 3]);
  });

  it('names bad input', () => {
    expect(() => tokenizer.decode([5, tokenizer.vocabularySize])).toThrow('at position 1 is unknown; ids are 0 to');
    expect(() => tokenizer.decode([-1])).toThrow('id -1 at position 0 is unknown');
    expect(() => new TextTokenizer({ model: {} })).toThrow('this is not a tokenizer.json that can be read');
    const { model } = defaultTokenizerJson();
    const read = (change: object) => () =>
      new TextTokenizer({ ...defaultTokenizerJson(), model: { ...model, ...change } });
    // The library makes a table as long as the largest id.
    expect(read({ vocab: { ...model.vocab, x: 2 ** 30 } })).toThrow('the token "x" with the id 1073741824');
    expect(read({ merges: [null] })).toThrow('"model.merges" has null, expected two tokens');
    expect(() => new TextTokenizer({ added_tokens: [{ id: -1, content: 'x' }] })).toThrow('"added_tokens" of the');
  });

  it('reads any JSON, or says in one line that it cannot', () => {
    const keys = ['version', 'added_tokens', 'normalizer', 'pre_tokenizer', 'post_processor', 'decoder', 'model'];
    const part = fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.constantFrom(...Object.values(defaultTokenizerJson())));
    const json = fc.oneof(
      fc.jsonValue(),
      fc.record(Object.fromEntries(keys.map((key) => [key, part])), { requiredKeys: [] }),
    );
    fc.assert(
      fc.property(json, (given) => {
        try {
          expect(new TextTokenizer(given as object).vocabularySize).toBeGreaterThan(0);
        } catch (error) {
          expect((error as Error).message).toMatch(/^TextTokenizer: [^\n]*$/);
        }
      }),
      { seed: 21, numRuns: 300 },
    );
  });

  it('knows the words of the world', () => {
    expect(worldInstructions()).toContain('put the red cube in the blue bin');
    expect(worldInstructions()).toContain('press the yellow button');
    expect(new Set(worldInstructions()).size).toBe(worldInstructions().length);
    expect(worldLanguage.colours).toContain('orange');
  });
});
