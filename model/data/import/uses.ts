import type { FieldUse, SourceField } from './source.ts';

/** Fields by what is in them; `whole` says that numbers are integers by their type. */
export interface FoundField extends Omit<SourceField, 'use'> {
  readonly whole?: boolean;
}

/** A use, the kind of its fields, and patterns of names: the first pattern that any name fits counts, and all names that fit it. */
export type UsePatterns = readonly (readonly [FieldUse, SourceField['kind'], ...RegExp[]])[];

/** Gives every field its use by its name, or the reason why it has none; `reasons` are those of names. Times that are whole have no known unit. */
export function withUses(
  found: readonly FoundField[],
  patterns: UsePatterns,
  reasons: readonly (readonly [RegExp, string])[] = [],
): SourceField[] {
  const chosen = patterns.map(([use, kind, ...names]) => {
    const fitting = found.filter((own) => own.kind === kind && !(use === 'time' && own.whole));
    const every = names.map((pattern) => fitting.flatMap(({ name }) => (pattern.test(name) ? [name] : [])));
    return { use, taken: every.find((own) => own.length > 0) ?? [], others: every.flat() };
  });
  return found.map(({ whole: _, ...field }) => {
    const { name } = field;
    const use = chosen.find(({ taken }) => taken.includes(name))?.use ?? null;
    if (use !== null) return { ...field, use };
    const rival = chosen.find(({ others }) => others.includes(name));
    const why =
      (rival && `${rival.taken.join(' and ')} ${rival.taken.length > 1 ? 'are' : 'is'} taken as the ${rival.use}`) ??
      reasons.find(([pattern]) => pattern.test(name))?.[1] ??
      'its name says no use: --map gives it one';
    return { reason: why, ...field, use };
  });
}
