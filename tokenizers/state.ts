import { digitize, linearEdges } from './bins.ts';

/**
 * The three forms of a normalised state (knowledge insulation, arXiv 2505.23705, appendix C): numbers in the prompt
 * (`stateText` of its bins), one reserved token for each bin (a range of the vocabulary; vocabulary.ts), and a
 * continuous vector that is projected into a token (`padState`).
 */

export interface StateDigitizing {
  /** Number of bins of equal width over [-1, 1]. Default 256. */
  readonly bins?: number;
  /** Whether a value below -1 gets bin 0 (the default) or, as in openpi, bin -1. A value above 1 always gets the last bin. */
  readonly clamp?: boolean;
}

/** Normalised state -> bins 0 .. bins - 1, with the edges of openpi (tokenizer.py): linspace(-1, 1, bins + 1)[:-1]. */
export function digitizeState(state: ArrayLike<number>, options: StateDigitizing = {}): Int32Array {
  const { bins = 256, clamp = true } = options;
  const edges = linearEdges(bins, bins, 'digitizeState', 1);
  return Int32Array.from(state, (value, dimension) => {
    if (!Number.isFinite(value))
      throw new Error(`digitizeState: the value at dimension ${dimension} is ${value}; the state must be finite`);
    return Math.max(digitize(value, edges) - 1, clamp ? 0 : -1);
  });
}

/** Bins as text, separated by spaces. openpi counts bins from 0 (the default), the paper from 1. */
export function stateText(bins: ArrayLike<number>, { first = 0 }: { readonly first?: 0 | 1 } = {}): string {
  return Array.from(bins, (bin) => bin + first).join(' ');
}

/** The most tokens of a state's text, digits and separators: floor(log10(bins) + 2) for each dimension (appendix C). */
export function stateTextTokens(dimension: number, bins = 256): number {
  return Math.floor(Math.log10(bins) + 2) * dimension;
}

/** Pads a continuous state with zeros to `width` (32 in openpi). */
export function padState(state: ArrayLike<number>, width: number): Float32Array {
  if (!Number.isInteger(width) || state.length > width)
    throw new Error(`padState: a state of ${state.length} dimensions does not fit a width of ${width}`);
  const padded = new Float32Array(width);
  padded.set(state);
  return padded;
}
