const MARK = '\0not finite: ';

/**
 * Finds the first NaN, Infinity or -Infinity of a text that is JSON but for these; Python's json module writes them, and no parser
 * of JSON reads them. `"norm_stats.state.std[0]" is NaN`; null if there is none or something else is wrong.
 */
export function nonFinite(text: string): string | null {
  const words = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\b(?:NaN|Infinity)\b/gs;
  const marked = text.replace(words, (word) => (word.startsWith('"') ? word : JSON.stringify(MARK + word)));
  if (marked.length === text.length) return null;
  try {
    return placeIn(JSON.parse(marked), '');
  } catch {
    return null;
  }
}

function placeIn(value: unknown, path: string): string | null {
  if (typeof value === 'string' && value.startsWith(MARK))
    return `${path === '' ? 'it' : JSON.stringify(path)} is ${value.slice(MARK.length)}`;
  if (typeof value !== 'object' || value === null) return null;
  for (const [key, own] of Object.entries(value)) {
    const found = placeIn(own, Array.isArray(value) ? `${path}[${key}]` : path === '' ? key : `${path}.${key}`);
    if (found) return found;
  }
  return null;
}
