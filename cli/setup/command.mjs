// `insula` runs `insula setup`, or else the program with the adapter that the set-up found.

import { existsSync } from 'node:fs';
import { softwareEnvironment, softwareFolder } from '../../engine/adapters/software-adapter.mjs';
import { prepare } from './prepare.mjs';
import { launch } from './program.mjs';

const help = `insula setup: installs what is missing: an adapter that opens (on Debian and Ubuntu, without root), and in a clone of the repository the dependencies`;

/** @param {string[]} words of the command line */
export function runCommand(words) {
  const [command, ...options] = words.join(' ') === 'help setup' ? ['setup', '--help'] : words;
  if (command !== 'setup') {
    launch(existsSync(new URL('../main.ts', import.meta.url)) ? 'cli/main.ts' : 'cli/main.js', words);
    return;
  }
  if (options.length === 0) {
    const found = prepare();
    if (found) console.log(readyLines(found).join('\n'));
  } else if (['--help', '-h'].includes(options[0])) console.log(help);
  else {
    console.error(`insula: 'insula setup' takes no options, and got '${options.join(' ')}'`);
    process.exitCode = 1;
  }
}

/** @param {import('./find-adapter.mjs').Found} found */
function readyLines(found) {
  if (found.adapter === 'none') return [];
  const lines = [`ready: ${found.description}`];
  if (found.adapter === 'system') return lines;
  const variables = Object.entries(softwareEnvironment(process.env, softwareFolder()))
    .filter(([name, value]) => value !== process.env[name])
    .map(([name, value]) => ` ${name}='${value}'`);
  return [...lines, `programs that are not started by insula open it after: export${variables.join('')}`];
}
