import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { idsOfPieces, type ScoredPieces, scoredPiecesTokenizerJson, TextTokenizer } from '../../tokenizers/index.ts';

const folder = new URL('../../../shared/data/', import.meta.url);
const skipped = existsSync(folder) ? '' : ' (skipped: ../shared is not there)';
const read = (file: string) => readFileSync(new URL(file, folder), 'utf8');

/** Three special pieces, the bytes, then the given ones, the earlier the better. */
function scored(...pieces: string[]): ScoredPieces {
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  const latin1 = pieces.map((piece) => String.fromCharCode(...new TextEncoder().encode(piece)));
  return { pieces: ['', '', '', ...bytes, ...latin1].map((piece, id) => [piece, id < 259 ? 0 : -id]) };
}

describe('files of the SentencePiece kind', () => {
  const text = new TextTokenizer(scoredPiecesTokenizerJson(scored('in', ' in', 'ing', ' ', 'i', 'n', 'g', 'ü')), {
    pad: 0,
  });

  it('join by score, put a space in front and fall back to bytes', () => {
    expect(text.special).toEqual({ pad: 0, bos: 1, eos: 2 });
    expect(text.vocabularySize).toBe(267);
    expect(Array.from(text.encode('ing in'))).toEqual([260, 265, 260]);
    expect(Array.from(text.encode('gü€', { bos: true }))).toEqual([1, 262, 265, 266, 3 + 0xe2, 3 + 0x82, 3 + 0xac]);
    for (const any of ['ing in', 'gü€', '漢 字', '<s>i</s>']) expect(text.decode(text.encode(any))).toBe(any);
    expect(Array.from(text.encode('<s>')).includes(1)).toBe(false);
    expect(Array.from(idsOfPieces(text, ' in').toVocabulary([0, 1, 2]))).toEqual([262, 263, 264]);
  });

  it('name what is wrong', () => {
    expect(() => scoredPiecesTokenizerJson({} as ScoredPieces)).toThrow('expected a list of at least 259');
    expect(() => scoredPiecesTokenizerJson({ pieces: [['a', 0]] })).toThrow('got 1');
    const broken = { pieces: [...scored().pieces, ['a']] } as unknown as ScoredPieces;
    expect(() => scoredPiecesTokenizerJson(broken)).toThrow('pieces[259] is ["a"], expected [piece, score]');
  });

  /** As Gemma's file: no space in front, byte fallback, special pieces before the text. */
  it('read as Gemma writes them', () => {
    const special = ['<pad>', '<eos>', '<bos>', '<unk>'];
    const pieces = ['<0xC3>', '<0xBC>', '\n', '▁', 'p', 'u', 't', '1', '2', 'pu', 'put', '▁put', '<loc0000>'];
    const vocab = Object.fromEntries([...special, ...pieces].map((token, id) => [token, id]));
    const added = special.map((content, id) => ({ id, content, special: true }));
    const gemma = new TextTokenizer({
      version: '1.0',
      post_processor: null,
      added_tokens: [...added, { id: 16, content: '<loc0000>', special: false }],
      normalizer: { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      pre_tokenizer: { type: 'Split', pattern: { String: ' ' }, behavior: 'MergedWithPrevious', invert: false },
      decoder: {
        type: 'Sequence',
        decoders: [
          { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
          { type: 'ByteFallback' },
          { type: 'Fuse' },
        ],
      },
      model: {
        type: 'BPE',
        unk_token: '<unk>',
        fuse_unk: true,
        byte_fallback: true,
        vocab,
        merges: ['p u', 'pu t', '▁ put'],
      },
    });
    expect(gemma.special).toEqual({ pad: 0, eos: 1, bos: 2 });
    expect(Array.from(gemma.encode('put 12\n', { bos: true }))).toEqual([2, 14, 7, 11, 12, 6]);
    expect(Array.from(gemma.encode('put put'))).toEqual([14, 15]);
    expect(Array.from(gemma.encode('ü<loc0000>'))).toEqual([4, 5, 16]);
    expect(gemma.decode([2, 14, 15, 7, 4, 5, 1])).toBe('put put ü');
    expect([gemma.idOf('<loc0000>'), gemma.idOf('<eos>'), gemma.idOf('x')]).toEqual([16, 1, undefined]);
  });
});

describe('files of the byte-level kind', () => {
  it('read as Llama 3 writes them', () => {
    const characters = ['p', 'u', 't', 'Ġ', '1', '2', 'pu', 'put', 'Ġput', '12'];
    const llama = new TextTokenizer(
      {
        version: '1.0',
        post_processor: null,
        added_tokens: [
          { id: 10, content: '<|begin_of_text|>', special: true },
          { id: 11, content: '<|end_of_text|>', special: true },
        ],
        normalizer: null,
        pre_tokenizer: {
          type: 'Sequence',
          pretokenizers: [
            {
              type: 'Split',
              pattern: { Regex: "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|\\s+" },
              behavior: 'Isolated',
              invert: false,
            },
            { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
          ],
        },
        decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
        model: {
          type: 'BPE',
          ignore_merges: true,
          vocab: Object.fromEntries(characters.map((token, id) => [token, id])),
          merges: ['p u', 'pu t', 'Ġ put', '1 2'],
        },
      },
      { pad: 11 },
    );
    expect(llama.special).toEqual({ pad: 11, bos: 10, eos: 11 });
    expect(Array.from(llama.encode('put put12', { bos: true }))).toEqual([10, 7, 8, 9]);
    expect(llama.decode([10, 7, 8, 9, 11])).toBe('put put12');
  });
});

describe.skipIf(skipped !== '')(`stories260K${skipped}`, () => {
  it('gives the ids and the text of the published sample', () => {
    const pieces = JSON.parse(read('pretrained/stories260K/tokenizer.json')) as ScoredPieces;
    const golden = JSON.parse(read('pretrained/stories260K/golden.json')) as { greedy_ids: number[]; text: string };
    const text = new TextTokenizer(scoredPiecesTokenizerJson(pieces), { pad: 0 });
    expect([text.vocabularySize, text.special]).toEqual([512, { pad: 0, bos: 1, eos: 2 }]);
    // The sample keeps the space that the tokenizer puts in front, and spells line feeds as the piece's name.
    const sample = golden.text.replaceAll('<0x0A>', '\n');
    expect(` ${text.decode(golden.greedy_ids)}`).toBe(sample);
    const encoded = Array.from(text.encode(sample.slice(1), { bos: true }));
    expect(encoded).toEqual(golden.greedy_ids);
    const stories = read('text/tinystories_sample.txt');
    expect(text.decode(text.encode(stories))).toBe(stories);
  });
});
