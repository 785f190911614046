/** How the page tells what tokens stand for. */
import type { FastExplanation } from '../../../tokenizers/index.ts';
import { shape } from './chunks.ts';

/** Part of the flattened string: an id, or a symbol that is not merged yet. */
export interface Span {
  readonly id: number;
  /** The index of its first symbol. */
  readonly at: number;
  readonly length: number;
}

/** The string after the first `count` merges. */
export function spansAfter({ symbols, merges }: FastExplanation, count: number): Span[] {
  const spans = new Map<number, Span>(Array.from(symbols, (id, at) => [at, { id, at, length: 1 }]));
  for (const { id, at } of merges.slice(0, count)) {
    const left = spans.get(at)!;
    const right = spans.get(at + left.length)!;
    spans.delete(right.at);
    spans.set(at, { id, at, length: left.length + right.length });
  }
  return [...spans.values()];
}

/** The coefficient at an index of the string, in words. */
export function coefficientAt(index: number): string {
  return `dimension ${index % shape.dimension}, frequency ${Math.floor(index / shape.dimension)}`;
}

/** Numbers with repeats counted: `3 0 x7`. */
export function shortened(numbers: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const number of numbers) {
    const last = runs.at(-1);
    if (last?.[0] === number) last[1] += 1;
    else runs.push([number, 1]);
  }
  return runs.map(([number, times]) => (times > 1 ? `${number} ×${times}` : number)).join(' ');
}

/** The ids of a text: numbers with anything else between them as it stands, for the tokenizer to judge. */
export function idsOf(text: string): number[] {
  const words = text.split(/[\s,]+/).filter((word) => word !== '');
  return words.map(Number);
}
