/** "did you mean pi05?", or "there are pi0, pi05, ..." if no name is near. */
export function nearest(word: string, names: readonly string[], prefix = ''): string {
  const near = probable(word, names);
  return near === null
    ? `there are ${names.map((name) => prefix + name).join(', ')}`
    : `did you mean ${prefix}${near}?`;
}

/** The name that was probably meant; null if none is near. */
export function probable(word: string, names: readonly string[]): string | null {
  const reach = (name: string) => Math.max(1, Math.floor(name.length / 3));
  const [best] = names
    .filter((name) => Math.abs(name.length - word.length) <= reach(name)) // a word of a megabyte is near none
    .map((name) => ({
      name,
      distance: distance(word.toLowerCase(), name.toLowerCase()),
      begins: name.startsWith(word),
    }))
    .sort((a, b) => a.distance - b.distance || Number(b.begins) - Number(a.begins));
  return best && best.distance <= reach(best.name) ? best.name : null;
}

/**
 * Whether a whole name fits `pattern`, in which `*` stands for any letters: the parts between stars follow one another in it, each where
 * it first can. A regular expression would try all ways to place them, which takes for ever with ten stars.
 */
export function isLike(pattern: string, name: string): boolean {
  const [first, ...others] = pattern.split('*');
  const last = others.pop();
  if (last === undefined) return name === pattern;
  let at = first.length;
  for (const part of others) {
    const found = name.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return name.startsWith(first) && name.endsWith(last) && at + last.length <= name.length;
}

/** Edit distance: insertions, deletions, substitutions and transpositions of neighbours. */
function distance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    rows.push([i]);
    for (let j = 1; j <= b.length; j++) {
      const replaced = rows[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      const exchanged =
        i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? rows[i - 2][j - 2] + 1 : Infinity;
      rows[i].push(Math.min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, replaced, exchanged));
    }
  }
  return rows[a.length][b.length];
}
