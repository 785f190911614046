/**
 * Bad input from a user: a file, an option, a data set. The message is one line that says what was wrong, where, and
 * what to do; the command line prints it alone, without a stack, and exits with a status other than 0.
 */
export class InputError extends Error {
  override readonly name = 'InputError';
}

/** A value from a file as a short piece of one line: JSON, cut after 100 characters. */
export function quote(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 100 ? `${text.slice(0, 100)}...` : text;
}
