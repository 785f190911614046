/**
 * Bad input from a user: a file, an option, a data set. The message is one line that says what was wrong, where, and
 * what to do; the command line prints it alone, without a stack, and exits with a status other than 0. Names and words
 * from a file may be in it: control characters become spaces, and what follows the first 2000 characters is cut.
 */
export class InputError extends Error {
  override readonly name = 'InputError';

  constructor(message: string, options?: ErrorOptions) {
    const line = message.replace(/[\p{Cc}\u2028\u2029]+/gu, ' ');
    super(line.length > 2000 ? `${line.slice(0, 2000)}...` : line, options);
  }
}

/** A value from a file as a short piece of one line: JSON, cut after 100 characters. */
export function quote(value: unknown): string {
  let text: string;
  try {
    text = JSON.stringify(value) ?? (value === undefined ? 'nothing' : String(value));
  } catch {
    text = 'a value nested too deeply'; // JSON.stringify is recursive, JSON.parse is not
  }
  return text.length > 100 ? `${text.slice(0, 100)}...` : text;
}

/** What a library said of a damaged file; where it stumbled over the damage instead of finding it, that. */
export function reasonOf(error: unknown): string {
  const stumbled =
    error instanceof TypeError || error instanceof RangeError || error instanceof WebAssembly.RuntimeError;
  if (stumbled) return 'its parts do not fit together';
  return error instanceof Error ? error.message : String(error);
}
