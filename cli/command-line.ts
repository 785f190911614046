/** The command line as npm passes it on, and as a user types it. */
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InputError } from '../engine/index.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** Whether this is the compiled program of an installed package. */
export const installed = import.meta.url.endsWith('.js');
const program = fileURLToPath(new URL('./setup/insula.mjs', import.meta.url));

/** The command that runs `insula WORDS` in the same way as this process was started. */
export function commandLine(words: readonly string[], environment: Environment = process.env): string {
  const [command, ...options] = words.map(quoteForShell);
  const script = environment.npm_lifecycle_event;
  if (script === 'start' && command === 'train')
    return ['npm start', ...(options.length > 0 ? ['--', ...options] : [])].join(' ');
  const start =
    script === 'insula'
      ? 'npm run insula --'
      : script === 'npx' || installed
        ? 'npx insula'
        : `node ${quoteForShell(relative('', program))}`;
  return [start, command, ...options].join(' ');
}

/** npm does not pass on options that stand before a `--`. @throws InputError if it has kept one of `options` */
export function refuseOptionsOfNpm(
  words: readonly string[],
  options: readonly string[],
  environment: Environment = process.env,
): void {
  if (environment.npm_command === undefined) return;
  const kept = options.flatMap((name) => {
    const value = environment[`npm_config_${name}`];
    return value === undefined ? [] : [value === 'true' ? [`--${name}`] : [`--${name}`, value]];
  });
  if (kept.length === 0) return;
  const names = kept.map(([name]) => name).join(' and ');
  // npm passes the value of such an option on as a word, which cannot be put back in its place.
  const [command, ...parted] = words;
  const example = commandLine([command, ...(parted.length > 0 ? ['OPTIONS'] : kept.flat())], environment);
  throw new InputError(`npm kept ${names} for itself: put a -- before the options, as in ${example}`);
}

function quoteForShell(word: string): string {
  return /^[\w./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
