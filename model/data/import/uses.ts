import type { FieldUse, SourceField } from './source.ts';

/** Fields by what is in them; `whole` says that numbers are integers by their type. A use that is given is not asked of the name. */
export interface FoundField extends Omit<SourceField, 'use'> {
  readonly whole?: boolean;
  readonly use?: FieldUse | null;
}

/** A use, the kind of its fields, and patterns of names: the first pattern that any name fits counts, and all names that fit it. */
export type UsePatterns = readonly (readonly [FieldUse, SourceField['kind'], ...RegExp[]])[];

/** Pictures by whose names no policy sees them when it acts. */
const unseen: readonly (readonly [RegExp, string])[] = [
  [/(^|[^a-z])(seg|segm|segments?|segmentations?|masks?)($|[^a-z])/i, 'a map of segments'],
  [/(^|[^a-z])goals?($|[^a-z])/i, 'a picture of the goal'],
  [/(^|[^a-z])next(obs(ervations?)?)?($|[^a-z])/i, 'it is of the next step'],
];
/** The reason why pictures of this name are no camera unless the user says so. */
const unseenReason = (name: string) => unseen.find(([pattern]) => pattern.test(name))?.[1];

/** Gives every field its use by its name, or the reason why it has none; `reasons` are those of names. Times that are whole have no known unit. */
export function withUses(
  found: readonly FoundField[],
  patterns: UsePatterns,
  reasons: readonly (readonly [RegExp, string])[] = [],
): SourceField[] {
  const chosen = patterns.map(([use, kind, ...names]) => {
    const fits = (own: FoundField) => !(use === 'time' && own.whole) && !(use === 'camera' && unseenReason(own.name));
    const fitting = found.filter((own) => own.use === undefined && own.kind === kind && fits(own));
    const every = names.map((pattern) => fitting.flatMap(({ name }) => (pattern.test(name) ? [name] : [])));
    return { use, taken: every.find((own) => own.length > 0) ?? [], others: every.flat() };
  });
  return found.map(({ whole: _, ...field }) => {
    const { name } = field;
    const use = field.use ?? chosen.find(({ taken }) => taken.includes(name))?.use ?? null;
    if (use !== null) return { ...field, use };
    const rival = chosen.find(({ others }) => others.includes(name));
    const why =
      (rival && `${rival.taken.join(' and ')} ${rival.taken.length > 1 ? 'are' : 'is'} taken as the ${rival.use}`) ??
      reasons.find(([pattern]) => pattern.test(name))?.[1] ??
      (field.kind === 'pictures' ? unseenReason(name) : undefined) ??
      'its name says no use: --map gives it one';
    return { reason: why, ...field, use: null };
  });
}
