import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { Tokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ActionChunk, FastTokenizerJson, PublishedFast, PublishedTokenizerJson } from '../../tokenizers/index.ts';
import { FastTokenizer } from '../../tokenizers/index.ts';
import { describeGrammar } from '../support/grammar.ts';

const folder = new URL('../../../shared/data/tokenizers/', import.meta.url);
const skipped = existsSync(folder) ? '' : ' (skipped: ../shared is not there)';
const read = (file: string) => JSON.parse(readFileSync(new URL(file, folder), 'utf8'));
const copy = <T>(value: T): T => JSON.parse(JSON.stringify(value));

describe.skipIf(skipped !== '')(`a FAST tokenizer made by the official code${skipped}`, () => {
  const files = (): PublishedFast => ({
    tokenizer: read('fast-libero-tokenizer.json'),
    processor: read('fast-libero-processor_config.json'),
  });
  const golden = (): { chunk: ActionChunk; quantised: number[][]; ids: number[] }[] =>
    read('fast-libero-golden.json').cases.map((one: { chunk: number[][]; quantised: number[][]; ids: number[] }) => ({
      ...one,
      chunk: { horizon: 50, dimension: 7, data: Float32Array.from(one.chunk.flat()) },
    }));

  describeGrammar('this tokenizer', () => FastTokenizer.fromPublished(files()));

  it('gives the golden ids, token for token, and gets the coefficients back', () => {
    const fast = FastTokenizer.fromPublished(files());
    expect([fast.vocabularySize, fast.scale, fast.minimum]).toEqual([1024, 10, -71]);
    const cases = golden();
    expect(cases).toHaveLength(16);
    for (const { chunk, ids, quantised } of cases) {
      expect(Array.from(fast.encode(chunk))).toEqual(ids);
      expect(Array.from(fast.codec.read(ids, 350).symbols, (symbol) => symbol + fast.minimum)).toEqual(
        quantised.flat(),
      );
      const grammar = fast.grammar(chunk);
      expect(ids.reduce((state, id) => grammar.next(state, id), 0)).toBe(grammar.complete);
      expect(fast.decodeRelaxed(ids, chunk)).toMatchObject({ data: fast.decode(ids, chunk), exact: true });
    }
  });

  it('has a grammar that spells nothing else', () => {
    const fast = FastTokenizer.fromPublished(files());
    const shape = { horizon: 4, dimension: 3 };
    const grammar = fast.grammar(shape);
    fc.assert(
      fc.property(fc.infiniteStream(fc.nat()), (choices) => {
        const ids: number[] = [];
        for (let state = 0; state !== grammar.complete; state = grammar.next(state, ids[ids.length - 1])) {
          const allowed = grammar.allowed(state);
          ids.push(allowed[choices.next().value! % allowed.length]);
        }
        expect(fast.decode(ids, shape)).toHaveLength(12);
      }),
      { seed: 18, numRuns: 200 },
    );
  });

  it('is written as it was read', () => {
    const fast = FastTokenizer.fromPublished(files());
    expect(copy(fast.toPublished())).toMatchObject(files());
    const sized = { ...files().processor, time_horizon: 50, action_dim: 7, vocab_size: 1030 };
    const kept = FastTokenizer.fromJSON(copy(FastTokenizer.fromPublished({ ...files(), processor: sized }).toJSON()));
    expect(kept.toPublished().processor).toMatchObject(sized);
    const again = FastTokenizer.fromJSON(copy(fast.toJSON()));
    for (const { chunk, ids } of golden()) expect(Array.from(again.encode(chunk))).toEqual(ids);
  });

  it('encodes what @huggingface/tokenizers encodes', () => {
    const fast = FastTokenizer.fromPublished(files());
    const library = new Tokenizer(copy(files().tokenizer), {});
    let compared = 0;
    for (const { chunk } of golden()) {
      for (const factor of [0.3, 1.1, -0.7]) {
        const other = { ...chunk, data: chunk.data.map((value) => value * factor) };
        const text = String.fromCharCode(...fast.coefficients(other).map((value) => Math.max(value - fast.minimum, 0)));
        const { ids } = library.encode(text, { add_special_tokens: false });
        // The library drops characters that the file has no token for.
        if (library.decode(ids) !== text) continue;
        compared++;
        expect(Array.from(fast.encode(other))).toEqual(ids);
      }
    }
    expect(compared).toBeGreaterThan(30);
  });
});

const wave = (index: number): ActionChunk => ({
  horizon: 20,
  dimension: 4,
  data: Float32Array.from({ length: 80 }, (_, i) => Math.sin(0.2 * Math.floor(i / 4) * ((i % 4) + 1) + index)),
});
const waves = Array.from({ length: 60 }, (_, index) => wave(index));

describe('the published format', () => {
  const fitted = FastTokenizer.fit(waves, { format: 'published', vocabularySize: 400 });

  it('is fitted as the official code fits (merges of tokenizers 0.23.2 on the same chunks, as a hash)', () => {
    const { merges } = fitted.toPublished().tokenizer.model;
    expect(merges).toHaveLength(298);
    expect(merges.slice(0, 6).map((pair) => [...pair].join(' '))).toEqual([
      '" "',
      '"" ""',
      '"""" """"',
      '"""""""" """"""""',
      '" !',
      '" #',
    ]);
    const hash = createHash('sha256').update(JSON.stringify(merges)).digest('hex');
    expect(hash).toBe('846db988ca6168306c536339b7788f056cda4301fe9d5033635660a3691e5d3d');
  });

  it('is fitted, written and read, and @huggingface/tokenizers agrees', () => {
    const { tokenizer, processor } = copy(fitted.toPublished());
    expect(processor).toMatchObject({ scale: 10, min_token: fitted.minimum, vocab_size: fitted.vocabularySize });
    // AutoProcessor of transformers needs this, and otherwise gives a plain text tokenizer.
    expect(processor.auto_map).toEqual({
      AutoProcessor: 'processing_action_tokenizer.UniversalActionProcessor',
    });
    const library = new Tokenizer(tokenizer, {});
    const again = FastTokenizer.fromPublished({ tokenizer, processor });
    for (const chunk of waves) {
      const ids = Array.from(fitted.encode(chunk));
      const text = String.fromCharCode(...fitted.coefficients(chunk).map((value) => value - fitted.minimum));
      expect(library.encode(text, { add_special_tokens: false }).ids).toEqual(ids);
      expect(Array.from(again.encode(chunk))).toEqual(ids);
      expect(ids.length).toBeLessThan(80);
      expect(again.decode(ids, chunk)).toEqual(fitted.decode(ids, chunk));
    }
  });

  it('takes the nearest coefficient where the file has no token for one, and clamps both ends', () => {
    const vocab = { B: 0, D: 1, BD: 2 }; // coefficients 66 and 68 of minimum 0
    const tokenizer = { ...fitted.toPublished().tokenizer, model: { type: 'BPE', vocab, merges: ['B D'] } };
    const fast = FastTokenizer.fromPublished({ tokenizer, processor: { scale: 1, min_token: 0 } });
    const line = (value: number) => fast.encode({ data: Float32Array.of(value), horizon: 1, dimension: 1 })[0];
    expect([-9, 66, 67, 68, 1e9].map(line)).toEqual([0, 0, 0, 1, 1]);
    expect(Array.from(fast.codec.read([2, 1], 10).symbols)).toEqual([66, 68, 68]);
  });

  it('spells characters beyond ASCII by bytes, and says where ids leave one unfinished', () => {
    // U+00C8 is the bytes C3 88, in GPT-2's characters Ã and Ī.
    const vocab = { A: 0, Ã: 1, ĩ: 2, Ī: 3, ÃĪ: 4 };
    const tokenizer = { ...fitted.toPublished().tokenizer, model: { type: 'BPE', vocab, merges: [] } };
    const fast = FastTokenizer.fromPublished({ tokenizer, processor: { scale: 1, min_token: 0 } });
    const shape = { horizon: 1, dimension: 2 };
    expect(Array.from(fast.encode({ data: Float32Array.of(65, 200), ...shape }))).toEqual([0, 1, 3]);
    expect(Array.from(fast.decode([0, 1, 3], shape))).toEqual([65, 200]);
    expect(Array.from(fast.decode([0, 4], shape))).toEqual([65, 200]);
    expect(() => fast.decode([0, 3], shape)).toThrow('id 3 at position 1 spells no whole coefficient there');
    expect(() => fast.decode([0, 1], shape)).toThrow('id 1 at position 1 spells no whole coefficient there');
    expect(() => fast.decode([0, 5], shape)).toThrow('id 5 at position 1 is unknown; ids are 0 to 4');
    expect(fast.decodeRelaxed([0, 1, 0], shape)).toEqual({
      data: Float32Array.of(65, 0),
      exact: false,
      cut: 0,
      padded: 1,
      unknownAt: 2,
    });
    const grammar = fast.grammar(shape);
    expect([0, 1, 2, 3].map((state) => Array.from(grammar.allowed(state)))).toEqual([
      [0, 1, 4],
      [2, 3],
      [0, 1, 4],
      [2, 3],
    ]);
    expect([0, 1, 3].reduce((state, id) => grammar.next(state, id), 0)).toBe(grammar.complete);
  });

  it('reads any ids without looping', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -2, max: 420 }), { maxLength: 50 }), (ids) => {
        const { data, padded, cut, unknownAt, exact } = fitted.decodeRelaxed(ids, waves[0]);
        expect(data.every(Number.isFinite)).toBe(true);
        expect(exact).toBe(padded === 0 && cut === 0 && unknownAt < 0);
        expect(unknownAt).toBeLessThan(Math.max(ids.length, 1));
      }),
      { seed: 11, numRuns: 300 },
    );
  });

  it('names what is wrong with a file', () => {
    const { tokenizer, processor } = fitted.toPublished();
    const model = (changes: object) => ({ ...tokenizer, model: { ...tokenizer.model, ...changes } });
    const open = (changed: unknown) => () =>
      FastTokenizer.fromPublished({ tokenizer: changed as PublishedTokenizerJson, processor });
    expect(open({ ...tokenizer, normalizer: { type: 'NFC' } })).toThrow('it has a normalizer');
    expect(open({ ...tokenizer, pre_tokenizer: { type: 'Metaspace' } })).toThrow('expected ByteLevel with use_regex');
    expect(open({ ...tokenizer, model: undefined })).toThrow('model.type is nothing, expected "BPE"');
    expect(open(model({ type: 'Unigram' }))).toThrow('model.type is "Unigram"');
    expect(open(model({ dropout: 0.1 }))).toThrow('model.dropout is set');
    expect(open(model({ vocab: [] }))).toThrow('model.vocab is no object');
    expect(open(model({ vocab: {} }))).toThrow('is not in model.vocab');
    expect(open(model({ vocab: {}, merges: [] }))).toThrow('has no token for any byte');
    expect(open(model({ vocab: { A: 2 ** 40 } }))).toThrow('token "A" has the id 1099511627776');
    expect(open(model({ merges: {} }))).toThrow('model.merges is no list');
    expect(open(model({ merges: ['A B C'] }))).toThrow('model.merges[0] is "A B C", expected two tokens');
    expect(open(model({ merges: [tokenizer.model.merges[0], tokenizer.model.merges[0]] }))).toThrow(
      'merge 1 repeats merge 0',
    );
    expect(() => FastTokenizer.fromPublished({ tokenizer, processor: { scale: 0, min_token: 1 } })).toThrow(
      'processor_config.json: scale must be a number from 1e-6 to 1e6, got 0',
    );
    expect(() => FastTokenizer.fromPublished({ tokenizer, processor: { scale: 1, min_token: 1.5 } })).toThrow(
      'min_token must be an integer, got 1.5',
    );
    expect(() => FastTokenizer.fromPublished({ tokenizer, processor: { ...processor, vocab_size: 399 } })).toThrow(
      'processor_config.json says vocab_size 399, tokenizer.json has 400 ids: they belong to different tokenizers',
    );
    expect(() => FastTokenizer.fit(waves).toPublished()).toThrow("fit it with { format: 'published' }");
    expect(() => FastTokenizer.fromJSON({ type: 'fast-published' } as FastTokenizerJson)).toThrow(
      'scale must be a number',
    );
    expect(() => FastTokenizer.fit(waves, { format: 'published', vocabularySize: 90 })).toThrow(
      'the published format needs',
    );
    const far = [0, 6000].map((value) => ({ horizon: 1, dimension: 1, data: Float32Array.of(value) }));
    expect(() => FastTokenizer.fit(far, { format: 'published', vocabularySize: 70_000 })).toThrow(
      'has characters for 55296 coefficients, not for 60001',
    );
  });
});
