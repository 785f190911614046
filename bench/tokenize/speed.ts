import { Tokenizer } from '@huggingface/tokenizers';
import { InputError } from '../../engine/index.ts';
import { type ActionChunk, FastTokenizer } from '../../tokenizers/index.ts';

const ROUNDS = 7;

/**
 * Measures encoding and decoding of the same chunks in interleaved rounds: FAST on integers, and a published file by this project
 * (between coefficients and ids) and by @huggingface/tokenizers (between text and ids).
 */
export function measureSpeed(chunks: readonly ActionChunk[], vocabularySize: number) {
  const coefficients = chunks.reduce((sum, { data }) => sum + data.length, 0);
  const rate = (milliseconds: number) => (1000 * coefficients) / milliseconds;
  const fitted = (['integers', 'published'] as const).map((format) => {
    const begin = performance.now();
    const tokenizer = FastTokenizer.fit(chunks, { format, vocabularySize });
    return { tokenizer, row: { what: `fit, ${format}`, coefficientsPerSecond: rate(performance.now() - begin) } };
  });
  const [integers, published] = fitted.map(({ tokenizer }) => tokenizer);
  const library = new Tokenizer(published.toPublished().tokenizer, {});
  const symbols = chunks.map((chunk) => published.coefficients(chunk).map((value) => value - published.minimum));
  const texts = symbols.map((list) => String.fromCharCode(...list));
  const libraryIds = texts.map((text) => library.encode(text, { add_special_tokens: false }).ids);
  const ids = chunks.map((chunk) => published.encode(chunk));
  const integerIds = chunks.map((chunk) => integers.encode(chunk));
  if (ids.some((own, i) => own.join() !== libraryIds[i].join()))
    throw new InputError('the encoder of this project and that of @huggingface/tokenizers disagree on this data');

  const each = (action: (i: number) => unknown) => () => chunks.forEach((_, i) => void action(i));
  const works: [string, () => void][] = [
    ['DCT and rounding alone', each((i) => integers.coefficients(chunks[i]))],
    ['encode, integers, from actions', each((i) => integers.encode(chunks[i]))],
    ['decode, integers, to actions', each((i) => integers.decode(integerIds[i], chunks[i]))],
    ['encode, published, from coefficients', each((i) => published.codec.encode(symbols[i]))],
    ['  the same by @huggingface/tokenizers', each((i) => library.encode(texts[i], { add_special_tokens: false }))],
    ['decode, published, to coefficients', each((i) => published.codec.read(ids[i], symbols[i].length))],
    ['  the same by @huggingface/tokenizers', each((i) => library.decode(libraryIds[i]))],
  ];
  const times = works.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    works.forEach(([, work], i) => {
      const begin = performance.now();
      work();
      times[i].push(performance.now() - begin);
    });
  }
  const median = (values: number[]) => values.toSorted((a, b) => a - b)[ROUNDS >> 1];
  return {
    fit: fitted.map(({ row }) => row),
    rows: works.map(([what], i) => ({ what, coefficientsPerSecond: rate(median(times[i])) })),
  };
}
