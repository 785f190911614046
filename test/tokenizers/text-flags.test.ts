import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { TextTokenizer } from '../../tokenizers/index.ts';

interface Case {
  readonly name: string;
  readonly json: object;
  readonly ids: readonly (readonly number[])[];
  /** The decoded ids, for files with a decoder. */
  readonly texts?: readonly string[];
}
const { texts, groups } = JSON.parse(
  readFileSync(new URL('../fixtures/tokenizer-flags.json', import.meta.url), 'utf8'),
) as { texts: string[]; groups: { model: object; cases: Case[] }[] };

const file = (model: object, own: object) => ({
  ...{ added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, model },
  ...own,
});
const special = { pad: 0, bos: 1, eos: 2 };

describe('flags of a tokenizer.json', () => {
  for (const { model, cases } of groups)
    it.each(cases)('$name: ids and texts of the Python library', ({ json, ids, texts: decoded }) => {
      const tokenizer = new TextTokenizer(file(model, json), special);
      texts.forEach((text, i) => {
        expect([text, ...tokenizer.encode(text)]).toEqual([text, ...ids[i]]);
        if (decoded) expect(tokenizer.decode(ids[i])).toBe(decoded[i]);
      });
    });

  const added = (own: object) => ({ added_tokens: [{ id: 99, content: '<x>', special: false, ...own }] });
  const pre = (...pretokenizers: object[]) => ({ pre_tokenizer: { type: 'Sequence', pretokenizers } });
  it.each<[string, object, string]>([
    ['single_word', added({ single_word: true }), 'added_tokens[0] ("<x>"): "single_word" is true'],
    [
      'normalized',
      { ...added({ normalized: true, content: '<X>' }), normalizer: { type: 'Lowercase' } },
      '"normalized" with a normalizer that changes its content',
    ],
    ['an id of two tokens', added({ content: 'put' }), 'added_tokens[0] ("put") has the id 99, and model.vocab'],
    ['a normalizer', { normalizer: { type: 'Strip', strip_left: true } }, '"normalizer.type" is "Strip"'],
    [
      'a normalizer of a sequence',
      { normalizer: { type: 'Sequence', normalizers: [{ type: 'NFC' }, { type: 'Precompiled' }] } },
      '"normalizer[1].type" is "Precompiled"',
    ],
    ['a pre-tokenizer', pre({ type: 'UnicodeScripts' }), '"pre_tokenizer[0].type" is "UnicodeScripts"'],
    [
      'a later first',
      pre({ type: 'WhitespaceSplit' }, { type: 'Metaspace', prepend_scheme: 'first' }),
      '"pre_tokenizer[1].prepend_scheme" behind another pre-tokenizer is "first"',
    ],
    [
      'a turned split',
      pre({ type: 'Split', pattern: { String: 'a' }, behavior: 'MergedWithNext', invert: true }),
      '"pre_tokenizer[0].behavior" with "invert" is "MergedWithNext"',
    ],
    ['dropout', { model: { ...groups[0].model, dropout: 0.1 } }, '"model.dropout" is 0.1'],
    [
      'a prefix of subwords',
      { model: { ...groups[0].model, continuing_subword_prefix: '##' } },
      '"model.continuing_subword_prefix" is "##"',
    ],
    [
      'bytes of Unigram',
      { model: { type: 'Unigram', unk_id: 0, vocab: [['<unk>', 0]], byte_fallback: true } },
      '"model.byte_fallback" of Unigram is true',
    ],
    ['a decoder', { decoder: { type: 'Sequence', decoders: [{ type: 'CTC' }] } }, '"decoder[0].type" is "CTC"'],
  ])('refuses %s by name', (_, own, message) => {
    expect(() => new TextTokenizer(file(groups[0].model, own), special)).toThrow(message);
  });

  it('ignores the flags of special tokens, whose names stay text', () => {
    const own = added({ special: true, single_word: true, lstrip: true });
    const tokenizer = new TextTokenizer(file(groups[0].model, own), special);
    expect(tokenizer.decode(tokenizer.encode('a <x>'))).toContain('x');
    expect(Array.from(tokenizer.encode('a <x>'))).not.toContain(99);
  });
});
