import type { ActionChunk, ActionTokenizer, ChunkGrammar, ChunkShape, Clamping } from './action-tokenizer.ts';
import { checkChunk, checkShape, countClamped, quote, unknownId } from './action-tokenizer.ts';
import { type AppliedMerge, IntegerBpe, type IntegerBpeJson, type SymbolCodec } from './bpe.ts';
import { dct, inverseDct } from './dct.ts';
import { alphabetOf, roundHalfToEven } from './fast-alphabet.ts';
import { PublishedCodec, type PublishedTokenizerJson } from './published-fast.ts';
import { PROCESSOR_FILE } from './published-fast-code.ts';
import { trainPublished } from './published-fast-training.ts';

export interface FastFitting {
  /** The most ids: the alphabet of coefficients and the merges. Default 1024. */
  readonly vocabularySize?: number;
  /** Quantisation steps per unit of a coefficient: a larger scale gives a smaller error and more tokens. Default 10. */
  readonly scale?: number;
  /** The alphabet holds all coefficients of values from -covers to covers; by default only those of the chunks, without outliers. */
  readonly covers?: number;
  /** `integers`, the default, merges the coefficients themselves; `published` is the format that openpi and LeRobot read. */
  readonly format?: 'integers' | 'published';
}

export type FastTokenizerJson =
  | (IntegerBpeJson & {
      readonly type: 'fast';
      readonly scale: number;
      /** The smallest quantised coefficient; it is symbol 0. */
      readonly minimum: number;
    })
  | ({ readonly type: 'fast-published' } & PublishedFast);

/** A published tokenizer: the contents of its files. */
export interface PublishedFast {
  /** tokenizer.json */
  readonly tokenizer: PublishedTokenizerJson;
  /** processor_config.json */
  readonly processor: { readonly scale: number; readonly min_token: number; readonly [setting: string]: unknown };
  /** tokenizer_config.json is only written. `transformers` 4 needs it to know the class, and not to clean up decoded text. */
  readonly tokenizerConfig?: object;
}

/** How a chunk becomes ids. Everything is in the order of the flattened string: [horizon, dimension], frequency first. */
export interface FastExplanation {
  /** The DCT of the chunk, before the scale. */
  readonly coefficients: Float64Array;
  /** Quantised coefficients, before clamping to the alphabet. */
  readonly quantised: Float64Array;
  /** The string: clamped coefficients, counted from the smallest of the alphabet. */
  readonly symbols: Int32Array;
  readonly merges: readonly AppliedMerge[];
  readonly ids: Int32Array;
  /** For each id the number of symbols that it stands for. */
  readonly lengths: readonly number[];
}

/** A chunk from ids that may be damaged, with the repairs. */
export interface RelaxedDecoding {
  /** [horizon, dimension]. */
  readonly data: Float32Array;
  /** Whether the ids encode a chunk of this shape, so that nothing was repaired. */
  readonly exact: boolean;
  /** Number of coefficients after the end of the chunk, which were dropped. */
  readonly cut: number;
  /** Number of coefficients missing at the end (the highest frequencies), which were set to zero. */
  readonly padded: number;
  /** Position of the first invalid id; it and all ids after it were dropped. -1 if there was none. */
  readonly unknownAt: number;
}

/**
 * FAST (Pertsch et al., arXiv 2501.09747), for chunks x [horizon, dimension] of normalised actions:
 *
 *   C = DCT-II of x over time, orthonormal             (dct.ts)
 *   q = round(scale * C), ties to even
 *   s = q - minimum, clamped to the alphabet, flattened with all dimensions of frequency 0 first
 *   ids = byte-pair encoding of s                       (bpe.ts, or published-fast.ts for the published files)
 *
 * A round trip has the error of rounding (at most 0.5 / scale in each coefficient) and of clamping to the alphabet,
 * nothing else. The published code drops characters that it has no token for, and decodes invalid ids to a chunk of
 * zeros with a printed warning; here the nearest coefficient replaces such a character, `decode` throws, and
 * `decodeRelaxed` reports its repairs.
 */
export class FastTokenizer implements ActionTokenizer {
  readonly vocabularySize: number;

  private constructor(
    readonly scale: number,
    /** The smallest quantised coefficient, which is symbol 0; smaller ones are clamped to it. */
    readonly minimum: number,
    readonly codec: SymbolCodec,
    private readonly processor: object = {},
  ) {
    this.vocabularySize = codec.vocabularySize;
  }

  /** The largest quantised coefficient; larger ones are clamped to it. */
  get maximum(): number {
    return this.minimum + this.codec.symbols - 1;
  }

  /**
   * Learns the alphabet and the merges from normalised chunks of any shapes. Outliers do not widen the alphabet (see
   * `alphabetOf`); `clamping` counts them.
   */
  static fit(chunks: Iterable<ActionChunk>, options: FastFitting = {}): FastTokenizer {
    const { vocabularySize = 1024, scale = 10, covers = 0, format = 'integers' } = options;
    checkScale(scale, 'FastTokenizer.fit');
    if (!(covers >= 0)) throw new Error(`FastTokenizer.fit: covers must be a number from 0, got ${covers}`);
    const given = [...chunks];
    if (given.length === 0) throw new Error('FastTokenizer.fit: no chunks to fit on');
    const coefficients = given.map((chunk, i) => quantise(chunk, scale, `FastTokenizer.fit, chunk ${i}`));
    const { minimum, maximum } = alphabetOf(coefficients, given, { scale, covers, vocabularySize });
    const symbols = maximum - minimum + 1;
    for (const quantised of coefficients)
      for (let index = 0; index < quantised.length; index++)
        quantised[index] = Math.min(Math.max(quantised[index], minimum), maximum) - minimum;
    const codec =
      format === 'published'
        ? new PublishedCodec(trainPublished(coefficients, { symbols, vocabularySize }))
        : IntegerBpe.train(coefficients, { symbols, vocabularySize });
    return new FastTokenizer(scale, minimum, codec);
  }

  /** Reads the result of toJSON. @throws Error that names the fault */
  static fromJSON(json: FastTokenizerJson): FastTokenizer {
    if (json?.type === 'fast-published') return FastTokenizer.fromPublished(json);
    if (json?.type !== 'fast')
      throw new Error(
        `FastTokenizer.fromJSON: type is ${quote((json as { type?: unknown } | null)?.type)}, expected 'fast'`,
      );
    checkScale(json.scale, 'FastTokenizer.fromJSON');
    checkMinimum(json.minimum, 'FastTokenizer.fromJSON: minimum');
    return new FastTokenizer(json.scale, json.minimum, new IntegerBpe(json));
  }

  /** Reads the parsed files of a published tokenizer, as openpi and LeRobot use it. @throws Error that names the fault */
  static fromPublished({ tokenizer, processor }: PublishedFast): FastTokenizer {
    checkScale(processor?.scale, 'FastTokenizer.fromPublished, processor_config.json');
    checkMinimum(processor.min_token, 'FastTokenizer.fromPublished, processor_config.json: min_token');
    const codec = new PublishedCodec(tokenizer);
    const { vocab_size: size } = processor;
    if (typeof size === 'number' && codec.vocabularySize > size)
      throw new Error(
        `FastTokenizer.fromPublished: processor_config.json says vocab_size ${size}, tokenizer.json has ${codec.vocabularySize} ids: they belong to different tokenizers`,
      );
    return new FastTokenizer(processor.scale, processor.min_token, codec, processor);
  }

  /**
   * The contents of the files for `AutoProcessor.from_pretrained(folder, trust_remote_code=True)`, which runs the code
   * beside them (`processorCode`). @throws Error if the merges are not of that format
   */
  toPublished(): PublishedFast {
    const { codec, scale, minimum, vocabularySize } = this;
    if (!(codec instanceof PublishedCodec))
      throw new Error(
        "FastTokenizer.toPublished: this one joins integers, which the published format cannot say; fit it with { format: 'published' }",
      );
    const processor = {
      action_dim: null,
      min_token: minimum,
      processor_class: 'UniversalActionProcessor',
      scale,
      time_horizon: null,
      vocab_size: vocabularySize,
      ...this.processor,
      auto_map: { AutoProcessor: `${PROCESSOR_FILE}.UniversalActionProcessor` },
    };
    const tokenizerConfig = { clean_up_tokenization_spaces: false, tokenizer_class: 'PreTrainedTokenizerFast' };
    return { tokenizer: codec.json, processor, tokenizerConfig };
  }

  /** Quantised DCT coefficients [horizon, dimension], frequency first, before clamping. */
  coefficients(chunk: ActionChunk): Float64Array {
    return quantise(chunk, this.scale, 'FastTokenizer.coefficients');
  }

  /** Counts coefficients. */
  clamping(chunk: ActionChunk): Clamping {
    const coefficients = quantise(chunk, this.scale, 'FastTokenizer.clamping');
    return countClamped(coefficients, (value) => value < this.minimum || value > this.maximum);
  }

  /** Ids of a chunk: at most horizon * dimension, with a published tokenizer at most three times as many. */
  encode(chunk: ActionChunk): Int32Array {
    return this.codec.encode(this.symbolsOf(quantise(chunk, this.scale, 'FastTokenizer.encode')));
  }

  /** The same with everything on the way. @throws Error if the tokenizer is of the published format, which merges characters */
  explain(chunk: ActionChunk): FastExplanation {
    const { codec } = this;
    if (!(codec instanceof IntegerBpe))
      throw new Error('FastTokenizer.explain: the merges of the published format join characters, not coefficients');
    const quantised = quantise(chunk, this.scale, 'FastTokenizer.explain');
    const symbols = Int32Array.from(this.symbolsOf(quantised));
    const ids = codec.encode(symbols);
    return {
      ...{ coefficients: dct(chunk.data, chunk.horizon, chunk.dimension), quantised, symbols, ids },
      ...{ merges: codec.mergesOf(symbols), lengths: Array.from(ids, (id) => codec.lengthOf(id)) },
    };
  }

  /** [horizon, dimension]. Throws on an invalid id and on a wrong number of coefficients. */
  decode(ids: ArrayLike<number>, shape: ChunkShape): Float32Array {
    checkShape(shape, 'FastTokenizer.decode');
    const expected = shape.horizon * shape.dimension;
    const { symbols, length, unreadableAt } = this.codec.read(ids, expected);
    if (unreadableAt >= 0) {
      const id = ids[unreadableAt];
      const known = Number.isInteger(id) && id >= 0 && id < this.vocabularySize;
      if (!known) throw unknownId(id, unreadableAt, this.vocabularySize);
      throw new Error(`id ${id} at position ${unreadableAt} spells no whole coefficient there`);
    }
    if (length !== expected)
      throw new Error(
        `${ids.length} ids spell ${length} coefficients, but horizon ${shape.horizon} x dimension ${shape.dimension} needs ${expected}; decode relaxed to cut or pad them`,
      );
    return this.reconstruct(symbols, shape);
  }

  /**
   * Decodes ids sampled from a model without throwing: decoding ends at an invalid id, coefficients after the end of
   * the chunk are dropped, and missing ones are zero.
   */
  decodeRelaxed(ids: ArrayLike<number>, shape: ChunkShape): RelaxedDecoding {
    checkShape(shape, 'FastTokenizer.decodeRelaxed');
    const expected = shape.horizon * shape.dimension;
    const { symbols, length, unreadableAt } = this.codec.read(ids, expected);
    return {
      data: this.reconstruct(symbols, shape),
      exact: unreadableAt < 0 && length === expected,
      cut: Math.max(length - expected, 0),
      padded: Math.max(expected - length, 0),
      unknownAt: unreadableAt,
    };
  }

  /** The state counts coefficients (in the published format twice, plus one inside a coefficient of two bytes). */
  grammar(shape: ChunkShape): ChunkGrammar {
    checkShape(shape, 'FastTokenizer.grammar');
    return this.codec.grammar(shape.horizon * shape.dimension);
  }

  toJSON(): FastTokenizerJson {
    const { codec, scale, minimum } = this;
    if (codec instanceof IntegerBpe) return { type: 'fast', scale, minimum, ...codec.toJSON() };
    const { tokenizer, processor } = this.toPublished();
    return { type: 'fast-published', tokenizer, processor };
  }

  private symbolsOf(quantised: Float64Array): Float64Array {
    const last = this.codec.symbols - 1;
    return quantised.map((value) => Math.min(Math.max(value - this.minimum, 0), last));
  }

  private reconstruct(symbols: Int32Array, { horizon, dimension }: ChunkShape): Float32Array {
    const coefficients = new Float64Array(horizon * dimension);
    for (let index = 0; index < symbols.length; index++)
      coefficients[index] = (symbols[index] + this.minimum) / this.scale;
    return Float32Array.from(inverseDct(coefficients, horizon, dimension));
  }
}

function checkScale(scale: number, caller: string): void {
  if (typeof scale !== 'number' || !(scale >= 1e-6 && scale <= 1e6))
    throw new Error(`${caller}: scale must be a number from 1e-6 to 1e6, got ${quote(scale)}`);
}

function checkMinimum(minimum: number, caller: string): void {
  if (!Number.isSafeInteger(minimum)) throw new Error(`${caller} must be an integer, got ${quote(minimum)}`);
}

function quantise(chunk: ActionChunk, scale: number, caller: string): Float64Array {
  checkChunk(chunk, caller);
  const coefficients = dct(chunk.data, chunk.horizon, chunk.dimension);
  for (let index = 0; index < coefficients.length; index++)
    coefficients[index] = roundHalfToEven(coefficients[index] * scale);
  return coefficients;
}
