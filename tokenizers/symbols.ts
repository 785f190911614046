import type { ChunkGrammar } from './grammar.ts';

/** Sequences of the symbols 0 .. symbols - 1 as ids 0 .. vocabularySize - 1. */
export interface SymbolCodec {
  readonly symbols: number;
  readonly vocabularySize: number;
  encode(sequence: ArrayLike<number>): Int32Array;
  /** Which ids may follow which, so that `length` symbols are spelled. */
  grammar(length: number): ChunkGrammar;
  read(ids: ArrayLike<number>, atMost: number): Reading;
}

/** What ids spell, as far as they can be read. */
export interface Reading {
  /** The first `atMost` symbols. */
  readonly symbols: Int32Array;
  /** How many symbols there are in all. */
  readonly length: number;
  /** Position of the first id that is outside the vocabulary or breaks a symbol; reading ends there. -1 if there is none. */
  readonly bad: number;
}
