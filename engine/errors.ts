/**
 * Bad input from a user: a file, an option, a data set. The message is one line that says what was wrong, where, and
 * what to do; the command line prints it alone, without a stack, and exits with a status other than 0.
 */
export class InputError extends Error {
  override readonly name = 'InputError';
}
