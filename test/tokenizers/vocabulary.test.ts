import { describe, expect, it } from 'vitest';
import {
  actionIdsFromEnd,
  BinActionTokenizer,
  idsOfPieces,
  publicMappings,
  rangesAfterText,
  StringActionTokenizer,
  TextTokenizer,
} from '../../tokenizers/index.ts';

describe('actionIdsFromEnd', () => {
  it('gives test vector 2 (FAST in PaliGemma)', () => {
    const ids = actionIdsFromEnd({ ...publicMappings.openpi, size: 2048 });
    const mapped = ids.toVocabulary([0, 1, 1023, 1024, 2047]);
    expect(Array.from(mapped)).toEqual([257023, 257022, 256000, 255999, 254976]);
    expect(Array.from(ids.toActions(mapped))).toEqual([0, 1, 1023, 1024, 2047]);
    expect([257024, 257023, 254976, 254975].map(ids.isAction)).toEqual([false, true, true, false]);
    expect(ids.vocabularySize).toBe(257152);
  });

  it('gives test vector 11 (bins in Llama: OpenVLA, RoboVLMs)', () => {
    const bins = (values: number[]) =>
      new BinActionTokenizer().encode({ data: Float32Array.from(values), horizon: values.length, dimension: 1 });
    const openVla = actionIdsFromEnd({ ...publicMappings.openVla, size: 256 });
    expect(Array.from(openVla.toVocabulary(bins([-1.2, -1, -0.999, -0.5, 0, 0.25, 0.999, 1, 1.2])))).toEqual([
      31999, 31999, 31999, 31936, 31872, 31840, 31745, 31744, 31744,
    ]);
    const roboVlms = actionIdsFromEnd({ ...publicMappings.roboVlms(32000, 3), size: 256 });
    expect(Array.from(roboVlms.toVocabulary(bins([-1, 0, 1])))).toEqual([31986, 31859, 31731]);
  });

  it('names bad input', () => {
    expect(() => actionIdsFromEnd({ vocabularySize: 100, size: 90, skip: 11 })).toThrow(
      'do not fit a vocabulary of 100',
    );
    const ids = actionIdsFromEnd({ vocabularySize: 100, size: 10, skip: 5 });
    expect(() => ids.toVocabulary([0, 10])).toThrow('action id 10 at position 1 is unknown; action ids are 0 to 9');
    expect(() => ids.toActions([90, 95])).toThrow('id 95 at position 1 is no action id; those are 85 to 94');
  });
});

describe('rangesAfterText', () => {
  it('lays ranges one after the other, none of them in another', () => {
    const ranges = rangesAfterText(640, { location: 1024, state: 256, action: 2048 });
    const all = Object.values(ranges);
    expect(all.map((one) => one.vocabularySize)).toEqual([3968, 3968, 3968]);
    for (let id = 0; id < 3968; id++) {
      expect(all.filter((one) => one.isAction(id)).length).toBe(id < 640 ? 0 : 1);
    }
    expect(Array.from(ranges.state.toVocabulary([0, 255]))).toEqual([1664, 1919]);
    expect(Array.from(ranges.action.toActions([1920, 3967]))).toEqual([0, 2047]);
    expect(() => ranges.state.toActions([640])).toThrow('id 640 at position 0 is no action id; those are 1664 to 1919');
    expect(() => rangesAfterText(640, { location: -1 })).toThrow('location must be a count, got -1');
    expect(() => rangesAfterText(-1, { location: 1 })).toThrow('textSize must be a count, got -1');
  });
});

describe('idsOfPieces', () => {
  it('lets string actions share the characters of the text', () => {
    const text = TextTokenizer.default();
    const tokenizer = new StringActionTokenizer();
    const ids = idsOfPieces(text, tokenizer.characters);
    const chunk = { data: Float32Array.of(0.0312, -0.5, 1, 0), horizon: 2, dimension: 2 };
    const mapped = ids.toVocabulary(tokenizer.encode(chunk));
    expect(text.decode(mapped)).toBe('+0.0312 -0.5000;+1.0000 +0.0000');
    expect(new Set(mapped).size).toBeLessThanOrEqual(15);
    expect(Array.from(ids.toActions(mapped))).toEqual(Array.from(tokenizer.encode(chunk)));
    expect(ids.isAction(text.special.eos)).toBe(false);
    expect(() => ids.toActions([1])).toThrow('id 1 at position 0 is no action id; those of the given pieces');
    expect(() => idsOfPieces(text, ['xyzzy'])).toThrow('the text vocabulary has no piece "xyzzy"');
  });
});
