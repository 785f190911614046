/**
 * Bad input from a user: a file, an option, a data set. The message is one line with the fault, its location and its
 * remedy; the command line prints it alone, without a stack, and exits with a status other than 0. The message may
 * quote a file: control characters become spaces, and it is truncated to 2000 characters.
 */
export class InputError extends Error {
  override readonly name = 'InputError';

  constructor(message: string, options?: ErrorOptions) {
    const line = message.replace(/[\p{Cc}\u2028\u2029]+/gu, ' ');
    super(line.length > 2000 ? `${line.slice(0, 2000)}...` : line, options);
  }
}

/**
 * A text for a terminal or a page: control characters, which could hide, move or colour what stands there, are written as `\\u001b`.
 * Tabs and ends of lines remain.
 */
export const printable = (text: string): string =>
  text.replace(
    /[^\P{Cc}\t\n]|[\u2028\u2029\p{Bidi_Control}]/gu,
    (own) => `\\u${own.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );

/** A value from a file for a message: JSON, truncated to 160 characters, within which names of tensors fit. */
export function quote(value: unknown): string {
  let text: string;
  try {
    text = JSON.stringify(value) ?? (value === undefined ? 'nothing' : String(value));
  } catch {
    text = 'a value nested too deeply'; // JSON.stringify is recursive, JSON.parse is not
  }
  return printable(text.length > 160 ? `${text.slice(0, 160)}...` : text);
}

/** A number of things: "1 action", "5 actions". */
export const counted = (count: number, noun: string) => `${count} ${noun}${count === 1 ? '' : 's'}`;

/** A library's message about a damaged file. The message of a library that crashed on the damage is replaced. */
export function reasonOf(error: unknown): string {
  const crashed =
    error instanceof TypeError || error instanceof RangeError || error instanceof WebAssembly.RuntimeError;
  if (crashed) return 'its parts do not fit together';
  return error instanceof Error ? error.message : String(error);
}
