import type { IntegerBpeJson } from './bpe.ts';
import { IntegerBpe } from './bpe.ts';
import type { ActionChunk, ActionTokenizer, ChunkShape } from './chunk.ts';
import { checkChunk, checkShape } from './chunk.ts';
import { dct, inverseDct } from './dct.ts';

export interface FastFitting {
  /** Ids at most: the coefficients' alphabet and the merges. Default 1024. */
  readonly vocabularySize?: number;
  /** Steps per unit of a coefficient: larger is finer and longer. Default 10. */
  readonly scale?: number;
}

export interface FastTokenizerJson extends IntegerBpeJson {
  readonly type: 'fast';
  readonly scale: number;
  /** The smallest quantised coefficient; it is symbol 0. */
  readonly minimum: number;
}

/** A chunk from ids that need not spell one, with what was done to them. */
export interface RelaxedDecoding {
  /** [horizon, dimension]. */
  readonly data: Float32Array;
  /** True where the ids spell a chunk of this shape, so that nothing was repaired. */
  readonly exact: boolean;
  /** Coefficients beyond the chunk, dropped. */
  readonly cut: number;
  /** Coefficients missing at the end (the highest frequencies), taken as zero. */
  readonly padded: number;
  /** Where the first id outside the vocabulary stood; it and all behind it were dropped. -1 if there was none. */
  readonly unknownAt: number;
}

/** The nearest integer; a tie goes to the even one, as in NumPy's `around`. */
export function roundHalfToEven(value: number): number {
  const up = Math.round(value);
  return up - value === 0.5 && up % 2 !== 0 ? up - 1 : up;
}

/**
 * FAST (Pertsch et al., arXiv 2501.09747): DCT over time, scale, round half to even, flatten with all dimensions of frequency
 * 0 first, byte-pair encode. The pairs are joined on the integers themselves, without the detour through text of the
 * published files, and both ends of the alphabet clamp: a round trip loses the rounding (at most 0.5 / scale in each
 * coefficient) and what lies beyond the coefficients seen in fitting, nothing else.
 */
export class FastTokenizer implements ActionTokenizer {
  readonly vocabularySize: number;

  private constructor(
    readonly scale: number,
    readonly minimum: number,
    readonly bpe: IntegerBpe,
  ) {
    this.vocabularySize = bpe.vocabularySize;
  }

  /** Learns the alphabet and the merges from normalised chunks, whose shapes may differ. */
  static fit(chunks: Iterable<ActionChunk>, options: FastFitting = {}): FastTokenizer {
    const { vocabularySize = 1024, scale = 10 } = options;
    checkScale(scale, 'FastTokenizer.fit');
    const coefficients: Float64Array[] = [];
    let minimum = Number.POSITIVE_INFINITY;
    let maximum = Number.NEGATIVE_INFINITY;
    for (const chunk of chunks) {
      const quantised = quantise(chunk, scale, `FastTokenizer.fit, chunk ${coefficients.length}`);
      for (const value of quantised) {
        if (value < minimum) minimum = value;
        if (value > maximum) maximum = value;
      }
      coefficients.push(quantised);
    }
    if (coefficients.length === 0) throw new Error('FastTokenizer.fit: no chunks to fit on');
    const symbols = maximum - minimum + 1;
    if (!(symbols <= vocabularySize)) {
      throw new Error(
        `FastTokenizer.fit: quantised coefficients run from ${minimum} to ${maximum}, ${symbols} symbols for a vocabulary of ${vocabularySize}; normalise the actions to [-1, 1], lower the scale or raise vocabularySize`,
      );
    }
    const sequences = coefficients.map((quantised) => quantised.map((value) => value - minimum));
    return new FastTokenizer(scale, minimum, IntegerBpe.train(sequences, { symbols, vocabularySize }));
  }

  static fromJSON(json: FastTokenizerJson): FastTokenizer {
    if (json?.type !== 'fast') throw new Error(`FastTokenizer.fromJSON: type is ${json?.type}, expected 'fast'`);
    checkScale(json.scale, 'FastTokenizer.fromJSON');
    if (!Number.isInteger(json.minimum)) {
      throw new Error(`FastTokenizer.fromJSON: minimum must be an integer, got ${json.minimum}`);
    }
    return new FastTokenizer(json.scale, json.minimum, new IntegerBpe(json));
  }

  /** Quantised DCT coefficients [horizon, dimension], frequency first, before clamping. */
  coefficients(chunk: ActionChunk): Float64Array {
    return quantise(chunk, this.scale, 'FastTokenizer.coefficients');
  }

  /** Ids of a chunk: at most horizon * dimension, as many as that chunk needs. */
  encode(chunk: ActionChunk): Int32Array {
    const last = this.bpe.symbols - 1;
    const quantised = quantise(chunk, this.scale, 'FastTokenizer.encode');
    return this.bpe.encode(quantised.map((value) => Math.min(Math.max(value - this.minimum, 0), last)));
  }

  /** The largest number of ids that one of `chunks` needs: the room to leave for them in a layout. */
  longest(chunks: Iterable<ActionChunk>): number {
    let longest = 0;
    for (const chunk of chunks) longest = Math.max(longest, this.encode(chunk).length);
    return longest;
  }

  /** [horizon, dimension]. Throws on an unknown id and on a wrong number of coefficients. */
  decode(ids: ArrayLike<number>, shape: ChunkShape): Float32Array {
    checkShape(shape, 'FastTokenizer.decode');
    const expected = shape.horizon * shape.dimension;
    const received = this.bpe.decodedLength(ids);
    if (received !== expected) {
      throw new Error(
        `FastTokenizer.decode: ${ids.length} ids spell ${received} coefficients, but horizon ${shape.horizon} x dimension ${shape.dimension} needs ${expected}; use decodeRelaxed to cut or pad them`,
      );
    }
    return this.reconstruct(this.bpe.decode(ids), shape);
  }

  /**
   * The chunk that `ids` come nearest to, for ids sampled from a model: what follows an unknown id is dropped, coefficients
   * beyond the chunk are cut, missing ones are zero.
   */
  decodeRelaxed(ids: ArrayLike<number>, shape: ChunkShape): RelaxedDecoding {
    checkShape(shape, 'FastTokenizer.decodeRelaxed');
    const expected = shape.horizon * shape.dimension;
    const all = Array.from(ids);
    const unknownAt = all.findIndex((id) => !this.bpe.has(id));
    const known = unknownAt < 0 ? all : all.slice(0, unknownAt);
    const received = this.bpe.decodedLength(known);
    let needed = 0;
    for (let length = 0; needed < known.length && length < expected; needed++) {
      length += this.bpe.decodedLength([known[needed]]);
    }
    const symbols = this.bpe.decode(known.slice(0, needed)).subarray(0, expected);
    return {
      data: this.reconstruct(symbols, shape),
      exact: unknownAt < 0 && received === expected,
      cut: Math.max(received - expected, 0),
      padded: Math.max(expected - received, 0),
      unknownAt,
    };
  }

  toJSON(): FastTokenizerJson {
    return { type: 'fast', scale: this.scale, minimum: this.minimum, ...this.bpe.toJSON() };
  }

  private reconstruct(symbols: Int32Array, { horizon, dimension }: ChunkShape): Float32Array {
    const coefficients = new Float64Array(horizon * dimension);
    for (let index = 0; index < symbols.length; index++) {
      coefficients[index] = (symbols[index] + this.minimum) / this.scale;
    }
    return Float32Array.from(inverseDct(coefficients, horizon, dimension));
  }
}

function checkScale(scale: number, caller: string): void {
  if (!(scale > 0 && Number.isFinite(scale))) throw new Error(`${caller}: scale must be positive, got ${scale}`);
}

function quantise(chunk: ActionChunk, scale: number, caller: string): Float64Array {
  checkChunk(chunk, caller);
  return dct(chunk.data, chunk.horizon, chunk.dimension).map((value) => roundHalfToEven(value * scale));
}
