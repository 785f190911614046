import type { ActionChunk, ActionTokenizer, ChunkShape } from './chunk.ts';
import { checkChunk, checkShape } from './chunk.ts';
import { type ChunkGrammar, chunkGrammar } from './grammar.ts';

/** How many of the ascending `edges` are at most `value`, as in NumPy's `digitize`. */
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

function linearEdges(count: number, intervals: number): Float64Array {
  return Float64Array.from({ length: count }, (_, index) => (index === intervals ? 1 : -1 + index * (2 / intervals)));
}

function checkBins(bins: number, minimum: number, caller: string): void {
  if (!Number.isInteger(bins) || bins < minimum) {
    throw new Error(`${caller}: bins must be an integer of at least ${minimum}, got ${bins}`);
  }
}

/**
 * One id per number, the naive tokenizer of RT-2 and OpenVLA (openvla action_tokenizer.py): `bins` edges from -1 to 1 cut
 * that range into bins - 1 intervals; values outside are clamped to it; the id is the number of edges at most the value,
 * less one, so that the last id is 1.0 alone. Ids are time-major, dimensions inside. Decoding gives an interval's centre:
 * an error of at most 1 / (bins - 1).
 */
export class BinActionTokenizer implements ActionTokenizer {
  readonly vocabularySize: number;
  private readonly edges: Float64Array;

  constructor({ bins = 256 }: { readonly bins?: number } = {}) {
    checkBins(bins, 2, 'BinActionTokenizer');
    this.vocabularySize = bins;
    this.edges = linearEdges(bins, bins - 1);
  }

  /** [horizon * dimension] ids. */
  encode(chunk: ActionChunk): Int32Array {
    checkChunk(chunk, 'BinActionTokenizer.encode');
    return Int32Array.from(chunk.data, (value) => digitize(Math.min(Math.max(value, -1), 1), this.edges) - 1);
  }

  /** [horizon, dimension]. Throws on an unknown id and on a wrong number of ids. */
  decode(ids: ArrayLike<number>, shape: ChunkShape): Float32Array {
    checkShape(shape, 'BinActionTokenizer.decode');
    const expected = shape.horizon * shape.dimension;
    if (ids.length !== expected) {
      throw new Error(
        `BinActionTokenizer.decode: ${ids.length} ids, but horizon ${shape.horizon} x dimension ${shape.dimension} needs ${expected}`,
      );
    }
    return Float32Array.from(ids, (id, index) => {
      if (!Number.isInteger(id) || id < 0 || id >= this.vocabularySize) {
        throw new Error(
          `BinActionTokenizer.decode: id ${id} at position ${index} is unknown; ids are 0 to ${this.vocabularySize - 1}`,
        );
      }
      const interval = Math.min(id, this.vocabularySize - 2);
      return (this.edges[interval] + this.edges[interval + 1]) / 2;
    });
  }

  /** State: how many numbers are written. */
  grammar(shape: ChunkShape): ChunkGrammar {
    checkShape(shape, 'BinActionTokenizer.grammar');
    const all = Int32Array.from(this.edges, (_, bin) => bin);
    return chunkGrammar(
      shape.horizon * shape.dimension,
      () => all,
      () => 1,
    );
  }
}

export interface StateDigitizing {
  /** Bins of equal width over [-1, 1]. Default 256. */
  readonly bins?: number;
  /** Whether a value below -1 falls into bin 0 (the default) or, as in openpi, into "bin" -1. Above 1 both give the last bin. */
  readonly clamp?: boolean;
}

/** Normalised state [dimension] -> bins 0 .. bins - 1 [dimension], with the edges of openpi (tokenizer.py): linspace(-1, 1, bins + 1)[:-1]. */
export function digitizeState(state: ArrayLike<number>, options: StateDigitizing = {}): Int32Array {
  const { bins = 256, clamp = true } = options;
  checkBins(bins, 1, 'digitizeState');
  const edges = linearEdges(bins, bins);
  return Int32Array.from(state, (value, dimension) => {
    if (!Number.isFinite(value)) {
      throw new Error(`digitizeState: the value at dimension ${dimension} is ${value}; the state must be finite`);
    }
    return Math.max(digitize(value, edges) - 1, clamp ? 0 : -1);
  });
}
