/** The page's address holds all that the user has set, so that a link shows what its sender sees. */
import { useEffect, useState } from 'preact/hooks';
import type * as v from 'valibot';
import { safeParse } from 'valibot';

/** Browsers refuse an address that changes with every movement of a slider: it follows after so many milliseconds of rest. */
const ADDRESS_DELAY = 150;

/** The section of an address `#section/state`, and its state as text. */
export function placeOf(hash: string): { section: string; state: string } {
  const [section, ...state] = hash.replace(/^#/, '').split('/');
  return { section, state: state.join('/') };
}

export function useHash(): string {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const changed = () => setHash(location.hash);
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return hash;
}

/** JSON as an address shows it best: `'` for quotation marks, which are the most frequent of what an address has to escape. */
const encode = (value: unknown) =>
  encodeURIComponent(JSON.stringify(value).replaceAll("'", '\\u0027')).replaceAll('%22', "'").replaceAll('%2C', ',');

/** The address of a section that shows `state`. */
export const linkTo = (section: string, state: object) => `#${section}/${encode(state)}`;

function decode(text: string): unknown {
  return JSON.parse(decodeURIComponent(text.replaceAll("'", '%22')));
}

/** What was last set in each section while the page is open. */
const kept = new Map<string, unknown>();

/**
 * What a section shows, kept in the address behind its name. An address with the name alone gives what was last set there, or the initial
 * state. One that does not hold such a state gives the initial one, and `problem` says so.
 */
export function useLinked<Schema extends v.GenericSchema>(
  section: string,
  schema: Schema,
  initial: v.InferOutput<Schema>,
): { state: v.InferOutput<Schema>; change(part: Partial<v.InferOutput<Schema>>): void; problem: string | null } {
  const read = () => {
    const { section: named, state } = placeOf(location.hash);
    if (named !== section || state === '')
      return { state: (kept.get(section) as v.InferOutput<Schema>) ?? initial, problem: null };
    let what = 'The link to this page is damaged or of another version';
    try {
      const { success, output, issues } = safeParse(schema, decode(state));
      if (success) {
        kept.set(section, output);
        return { state: output, problem: null };
      }
      const [{ type, input, path }] = issues;
      if (type === 'picklist' && typeof input === 'string') what = `There is no ${path?.at(-1)?.key} '${input}'`;
    } catch {
      // The text is no JSON: told as any other state that does not fit.
    }
    return { state: initial, problem: `${what}: the page shows its usual state.` };
  };
  const [own, setOwn] = useState(read);
  useEffect(() => {
    const changed = () => placeOf(location.hash).section === section && setOwn(read());
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  useEffect(() => {
    const write = () => {
      const { section: shown, state } = placeOf(location.hash);
      const isShown = shown === section || shown === '';
      if (isShown && kept.get(section) === own.state && linkTo(section, own.state as object) !== `#${section}/${state}`)
        history.replaceState(null, '', linkTo(section, own.state as object));
    };
    const later = setTimeout(write, ADDRESS_DELAY);
    return () => clearTimeout(later);
  }, [own]);
  const change = (part: Partial<v.InferOutput<Schema>>) =>
    setOwn((before) => {
      const state = { ...(before.state as object), ...part };
      kept.set(section, state);
      return { state, problem: null };
    });
  return { ...own, change };
}
