import type { ActionChunk, ActionTokenizer, ChunkGrammar, ChunkShape, Clamping } from './action-tokenizer.ts';
import { checkChunk, checkShape, chunkGrammar, countClamped, quote, unknownId } from './action-tokenizer.ts';

export const MOST_BINS = 2 ** 20;

/** The number of ascending `edges` that are at most `value`, as in NumPy's `digitize`. */
function digitize(value: number, edges: Float64Array): number {
  let low = 0;
  let high = edges.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (edges[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The first `bins` edges of `intervals` equal intervals over [-1, 1]; throws in `caller`'s name below `least` bins. */
function linearEdges(bins: number, intervals: number, caller: string, least: number): Float64Array {
  if (!Number.isInteger(bins) || bins < least || bins > MOST_BINS)
    throw new Error(`${caller}: bins must be an integer of at least ${least}, up to ${MOST_BINS}, got ${quote(bins)}`);
  return Float64Array.from({ length: bins }, (_, index) => (index === intervals ? 1 : -1 + index * (2 / intervals)));
}

/**
 * Normalised state -> bins 0 .. bins - 1, for a prompt (knowledge insulation, arXiv 2505.23705, appendix C), with the edges of
 * openpi (tokenizer.py): linspace(-1, 1, bins + 1)[:-1]. A value above 1 gets the last bin; one below -1 gets bin 0 or, without
 * `clamp`, bin -1 as in openpi.
 */
export function digitizeState(
  state: ArrayLike<number>,
  { bins = 256, clamp = true }: { readonly bins?: number; readonly clamp?: boolean } = {},
): Int32Array {
  const edges = linearEdges(bins, bins, 'digitizeState', 1);
  return Int32Array.from(state, (value, dimension) => {
    if (!Number.isFinite(value))
      throw new Error(`digitizeState: the value at dimension ${dimension} is ${value}; the state must be finite`);
    return Math.max(digitize(value, edges) - 1, clamp ? 0 : -1);
  });
}

export interface BinFormat {
  /** Number of ids. Default 256. */
  readonly bins?: number;
  /** `openvla` (the default, also RT-2's and RoboVLMs') or `openpi`. */
  readonly form?: 'openvla' | 'openpi';
}

export interface BinTokenizerJson extends Required<BinFormat> {
  readonly type: 'bins';
}

/**
 * One id per number, the naive tokenizer: values are clamped to [-1, 1]; the id is the number of edges at most the
 * value, less one. Ids are time-major, dimensions inside.
 *
 * | form | edges | decoded as | error at most |
 * |---|---|---|---|
 * | openvla (openvla and robovlms action_tokenizer.py) | linspace(-1, 1, bins): bins - 1 intervals, the last id is 1.0 alone | centre of the interval | 1 / (bins - 1) |
 * | openpi (tokenizer.py, its binning baseline; encoding is the inverse of its decoding) | linspace(-1, 1, bins + 1) without 1 | left edge, 2 id / bins - 1 | 2 / bins |
 *
 * vocabulary.ts maps these ids into a model's vocabulary (to its last 256, or to those 10 and the special tokens before
 * the end).
 */
export class BinActionTokenizer implements ActionTokenizer {
  readonly vocabularySize: number;
  readonly form: 'openvla' | 'openpi';
  private readonly edges: Float64Array;
  private readonly values: Float64Array;

  constructor({ bins = 256, form = 'openvla' }: BinFormat = {}) {
    if (form !== 'openvla' && form !== 'openpi')
      throw new Error(`BinActionTokenizer: form is ${quote(form)}; there are openvla and openpi`);
    this.form = form;
    const centres = form === 'openvla';
    this.edges = linearEdges(bins, centres ? bins - 1 : bins, 'BinActionTokenizer', centres ? 2 : 1);
    this.vocabularySize = bins;
    this.values = this.edges.map((edge, id) => {
      const interval = Math.min(id, bins - 2);
      return centres ? (this.edges[interval] + this.edges[interval + 1]) / 2 : edge;
    });
  }

  /** [horizon * dimension] ids. */
  encode(chunk: ActionChunk): Int32Array {
    checkChunk(chunk, 'BinActionTokenizer.encode');
    return Int32Array.from(chunk.data, (value) => digitize(Math.min(Math.max(value, -1), 1), this.edges) - 1);
  }

  /** Counts values, the most of them beyond the quantiles that became -1 and 1. */
  clamping(chunk: ActionChunk): Clamping {
    checkChunk(chunk, 'BinActionTokenizer.clamping');
    return countClamped(chunk.data, (value) => Math.abs(value) > 1);
  }

  /** [horizon, dimension]. Throws on an unknown id and on a wrong number of ids. */
  decode(ids: ArrayLike<number>, shape: ChunkShape): Float32Array {
    checkShape(shape, 'BinActionTokenizer.decode');
    const expected = shape.horizon * shape.dimension;
    if (ids.length !== expected)
      throw new Error(
        `${ids.length} ids, but horizon ${shape.horizon} x dimension ${shape.dimension} needs ${expected}`,
      );
    return Float32Array.from(ids, (id, index) => {
      if (this.values[id] === undefined) throw unknownId(id, index, this.vocabularySize);
      return this.values[id];
    });
  }

  /** The state counts numbers. */
  grammar(shape: ChunkShape): ChunkGrammar {
    checkShape(shape, 'BinActionTokenizer.grammar');
    const all = Int32Array.from(this.edges, (_, id) => id);
    return chunkGrammar(shape.horizon * shape.dimension, () => all);
  }

  toJSON(): BinTokenizerJson {
    return { type: 'bins', bins: this.vocabularySize, form: this.form };
  }
}
